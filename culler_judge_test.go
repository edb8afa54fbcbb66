package main

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// TestJudge has the whole rule of what ends an instance, and when. Every pod was
// created, became ready and was last used at noon, but for the change. The cull
// timeout is an hour, so that annotations may lag by 5 minutes and 2 seconds.
func TestJudge(t *testing.T) {
	const (
		timeout = time.Hour
		lag     = 5*time.Minute + 2*time.Second
		moment  = time.Millisecond
	)
	at := func(after time.Duration) time.Time { return kubetest.Noon.Add(after) }
	readySince := func(since time.Time) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.Status.Conditions[1].LastTransitionTime = metav1.NewTime(since) }
	}
	restarts := waits("CrashLoopBackOff", "back-off 5m")

	for _, test := range []struct {
		name   string
		change func(*corev1.Pod)
		after  time.Duration // since noon
		action action
		reason instance.EndReason
		says   string // is in the message
	}{
		// Idle.
		{"just launched", changes(), 0, keep, "", ""},
		{"idle for its timeout, but somebody may not have written yet", changes(), timeout, keep, "", ""},
		{"idle, a moment too early", changes(), timeout + lag - moment, keep, "", ""},
		{"idle", changes(), timeout + lag, end, instance.EndCulled, "not used for 1h5m2s; its cull timeout is 1h0m0s"},
		{"idle for days", changes(), 72 * time.Hour, end, instance.EndCulled, ""},
		{"used since", kubetest.LastUsed(at(time.Hour)), 2*time.Hour + lag - moment, keep, "", ""},
		{"used, then idle", kubetest.LastUsed(at(time.Hour)), 2*time.Hour + lag, end, instance.EndCulled, ""},
		{"its own timeout is shorter", kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "12s"), 15 * time.Second, end, instance.EndCulled, "its cull timeout is 12s"},
		{"its own timeout is shorter, a moment too early", kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "12s"), 15*time.Second - moment, keep, "", ""},
		{"its own timeout is longer", kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "24h"), 25 * time.Hour, keep, "", ""},
		{"its own timeout is unreadable: the server's", kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "soon"), timeout + lag - moment, keep, "", ""},
		{"its own timeout is unreadable: the server's", kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "soon"), timeout + lag, end, instance.EndCulled, ""},

		// The time to start is nobody's idleness.
		{"ready only later", readySince(at(4 * time.Minute)), 4*time.Minute + timeout + lag - moment, keep, "", ""},
		{"ready only later, then idle", readySince(at(4 * time.Minute)), 4*time.Minute + timeout + lag, end, instance.EndCulled, ""},
		{"ready anew after a restart is no use", readySince(at(50 * time.Minute)), 5*time.Minute + timeout + lag, end, instance.EndCulled, ""},
		{"ready anew after a restart", readySince(at(50 * time.Minute)), 5*time.Minute + timeout + lag - moment, keep, "", ""},
		{"restarts for ever, each time ready for a while", changes(restarts, readySince(at(70*time.Minute+lag-time.Second))), 70*time.Minute + lag, end, instance.EndCulled, ""},

		// Too old, however active; and not for what cannot be read.
		{"in use, a moment younger than its max age", changes(kubetest.LastUsed(at(12*time.Hour-moment)), kubetest.WithAnnotation(instance.MaxAgeAnnotation, "12h")), 12*time.Hour - moment, keep, "", ""},
		{"in use, of its max age", changes(kubetest.LastUsed(at(12*time.Hour)), kubetest.WithAnnotation(instance.MaxAgeAnnotation, "12h")), 12 * time.Hour, end, instance.EndExpired, "launched 12h0m0s ago; its max age is 12h0m0s"},
		{"in use, of the server's max age", kubetest.LastUsed(at(48 * time.Hour)), 48 * time.Hour, end, instance.EndExpired, "its max age is 48h0m0s"},
		{"its own max age cannot be longer", changes(kubetest.LastUsed(at(48*time.Hour)), kubetest.WithAnnotation(instance.MaxAgeAnnotation, "96h")), 48 * time.Hour, end, instance.EndExpired, "its max age is 48h0m0s"},
		{"its own max age is unreadable: the server's", changes(kubetest.LastUsed(at(48*time.Hour-moment)), kubetest.WithAnnotation(instance.MaxAgeAnnotation, "1")), 48*time.Hour - moment, keep, "", ""},
		{"its own max age is unreadable: the server's", changes(kubetest.LastUsed(at(48*time.Hour)), kubetest.WithAnnotation(instance.MaxAgeAnnotation, "1")), 48 * time.Hour, end, instance.EndExpired, ""},
		{"claimed a day later", changes(kubetest.LastUsed(at(48*time.Hour)), kubetest.LaunchedAt(at(24*time.Hour))), 72*time.Hour - moment, end, instance.EndCulled, ""},
		{"claimed a day later, in use", changes(kubetest.LastUsed(at(72*time.Hour)), kubetest.LaunchedAt(at(24*time.Hour))), 72*time.Hour - moment, keep, "", ""},
		{"claimed a day later, in use, too old", changes(kubetest.LastUsed(at(72*time.Hour)), kubetest.LaunchedAt(at(24*time.Hour))), 72 * time.Hour, end, instance.EndExpired, ""},
		{"launched at no readable time, in use", changes(kubetest.LastUsed(at(200*time.Hour)), kubetest.WithAnnotation(instance.LaunchedAnnotation, "")), 200 * time.Hour, repair, "", `launched: "" is not`},
		{"launched at no readable time, idle", kubetest.WithAnnotation(instance.LaunchedAnnotation, ""), 200 * time.Hour, end, instance.EndCulled, ""},
		{"launched in the future, in use", changes(kubetest.LastUsed(at(200*time.Hour)), kubetest.LaunchedAt(at(300*time.Hour))), 200 * time.Hour, repair, "", "launched is in the future"},
		{"launched and used at no readable time", changes(kubetest.WithAnnotation(instance.LastActivityAnnotation, "?"), kubetest.WithAnnotation(instance.LaunchedAnnotation, "!")), 200 * time.Hour, repair, "", `launched: "!" is not`},
		{"idle before it was too old", changes(), 200 * time.Hour, end, instance.EndCulled, ""},
		{"too old, activity mangled", kubetest.WithAnnotation(instance.LastActivityAnnotation, "mangled"), 48 * time.Hour, end, instance.EndExpired, ""},
		{"too old before it is ready", changes(kubetest.Starting, kubetest.WithAnnotation(instance.MaxAgeAnnotation, "1m")), time.Minute, end, instance.EndExpired, ""},
		{"too old and completed", changes(kubetest.Completed, kubetest.WithAnnotation(instance.MaxAgeAnnotation, "1m")), time.Hour, end, instance.EndGone, ""},

		// Not readable: in use now, and to be mended.
		{"no activity", func(p *corev1.Pod) { delete(p.Annotations, instance.LastActivityAnnotation) }, 0, repair, "", "last-activity is missing"},
		{"no activity for days", func(p *corev1.Pod) { delete(p.Annotations, instance.LastActivityAnnotation) }, 47 * time.Hour, repair, "", ""},
		{"activity mangled", kubetest.WithAnnotation(instance.LastActivityAnnotation, "yesterday"), 47 * time.Hour, repair, "", `"yesterday" is not`},
		{"activity empty", kubetest.WithAnnotation(instance.LastActivityAnnotation, ""), 47 * time.Hour, repair, "", ""},
		{"activity in the future", kubetest.LastUsed(at(24 * time.Hour)), 0, repair, "", "in the future: 2026-01-03T12:00:00.000Z"},
		{"a moment more than clocks differ", kubetest.LastUsed(at(time.Minute + moment)), 0, repair, "", ""},
		{"as much as clocks differ", kubetest.LastUsed(at(time.Minute)), 0, keep, "", ""},
		{"the year 1", kubetest.LastUsed(time.Time{}), 0, keep, "", ""}, // just became ready
		{"the year 1, idle", kubetest.LastUsed(time.Time{}), timeout + lag, end, instance.EndCulled, ""},

		// Failed: kept for a minute, for clients to learn of it.
		{"broke down", kubetest.Broken, time.Minute - moment, keep, "", ""},
		{"broke down a minute ago", kubetest.Broken, time.Minute, end, instance.EndFailed, "Error: container notebook exited with code 1"},
		{"broke down after an hour's work", changes(kubetest.Broken, func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].State.Terminated.FinishedAt = metav1.NewTime(at(time.Hour))
		}), 61*time.Minute - moment, keep, "", ""},
		{"evicted, the kubelet did not say when", changes(unready(at(time.Hour)), func(p *corev1.Pod) {
			p.Status = corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "low on memory", Conditions: p.Status.Conditions}
		}), 61 * time.Minute, end, instance.EndFailed, "Evicted: low on memory"},
		{"broke down, activity mangled", changes(kubetest.Broken, kubetest.WithAnnotation(instance.LastActivityAnnotation, "")), time.Minute, end, instance.EndFailed, ""},
		{"completed", kubetest.Completed, 0, end, instance.EndGone, "ended by itself"},

		// Never ready: the start timeout and that minute.
		{"no node", kubetest.Unscheduled, 6*time.Minute - moment, keep, "", ""},
		{"no node for too long", kubetest.Unscheduled, 6 * time.Minute, end, instance.EndFailed, "StartTimeout: not ready within 5m0s: 0/1 nodes are available"},
		{"image missing", waits("ImagePullBackOff", "manifest unknown"), 6*time.Minute - moment, keep, "", ""},
		{"image missing for too long", waits("ImagePullBackOff", "manifest unknown"), 6 * time.Minute, end, instance.EndFailed, "ImagePullBackOff: image jupyter:1: manifest unknown"},
		{"restarts for ever, never ready", restarts, 6 * time.Minute, end, instance.EndFailed, "StartTimeout"},
		{"never ready, activity mangled", changes(kubetest.Unscheduled, kubetest.WithAnnotation(instance.LastActivityAnnotation, "")), 6 * time.Minute, end, instance.EndFailed, ""},
		{"never ready, activity in the future", changes(kubetest.Unscheduled, kubetest.LastUsed(at(24*time.Hour))), 6 * time.Minute, end, instance.EndFailed, ""},
		{"starting, activity mangled", changes(kubetest.Unscheduled, kubetest.WithAnnotation(instance.LastActivityAnnotation, "")), time.Minute, repair, "", ""},
		{"not ready for a while, after hours of work", changes(unready(at(3*time.Hour)), kubetest.LastUsed(at(3*time.Hour))), 3*time.Hour + 6*time.Minute - moment, keep, "", ""},
		{"never ready again, after hours of work", changes(unready(at(3*time.Hour)), kubetest.LastUsed(at(3*time.Hour))), 3*time.Hour + 6*time.Minute, end, instance.EndFailed, ""},
		{"its start outlasts its cull timeout", changes(kubetest.Unscheduled, kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "1s")), 6*time.Minute - moment, keep, "", ""},
		{"its start outlasts its cull timeout, failed", changes(kubetest.Unscheduled, kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "1s")), 6 * time.Minute, end, instance.EndFailed, "StartTimeout"},

		// Already on its way out.
		{"being deleted", kubetest.Deleting, 72 * time.Hour, keep, "", ""},
		{"failed and being deleted", changes(kubetest.Broken, kubetest.Deleting), 72 * time.Hour, keep, "", ""},
		{"being deleted, activity mangled", changes(kubetest.Deleting, kubetest.WithAnnotation(instance.LastActivityAnnotation, "")), 0, keep, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			policy := cullPolicy{cullTimeout: timeout, startTimeout: kubetest.StartTimeout, maxAge: 48 * time.Hour}
			pod := kubetest.Pod(kubetest.ID(1), kubetest.Noon, test.change)
			got := judge(pod, at(test.after), policy)
			if got.action != test.action || got.reason != test.reason {
				t.Errorf("got %v, want action %v and reason %q", got, test.action, test.reason)
			}
			if !strings.Contains(got.message, test.says) {
				t.Errorf("the message is %q, want %q in it", got.message, test.says)
			}
			if (got.action == keep) != (got.message == "") {
				t.Errorf("action %v with the message %q", got.action, got.message)
			}
		})
	}
}

// The API server may have been away before a leader began, and what others know
// not have been written: for a flush period it deletes nothing that may be of use.
func TestJudgeInALeadersFirstPeriod(t *testing.T) {
	const lag, moment = 5*time.Minute + 2*time.Second, time.Millisecond
	short := kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "12s") // of which annotations may lag by 3 seconds
	now := kubetest.Noon.Add(72 * time.Hour)
	for _, test := range []struct {
		name   string
		change func(*corev1.Pod)
		leads  time.Duration
		want   action
	}{
		{"idle", changes(), 0, keep},
		{"idle", changes(), lag - moment, keep},
		{"idle", changes(), lag, end},
		{"idle, of a short timeout", short, 3*time.Second - moment, keep},
		{"idle, of a short timeout", short, 3 * time.Second, end},
		{"failed, and so over", kubetest.Broken, 0, end},
		{"completed, and so over", kubetest.Completed, 0, end},
		{"too old", changes(kubetest.LastUsed(now), kubetest.WithAnnotation(instance.MaxAgeAnnotation, "1h")), lag - moment, keep}, // the clock may be wrong
		{"too old", changes(kubetest.LastUsed(now), kubetest.WithAnnotation(instance.MaxAgeAnnotation, "1h")), lag, end},
		{"never ready", kubetest.Unscheduled, lag - moment, keep},
		{"never ready", kubetest.Unscheduled, lag, end},
		{"mangled", kubetest.WithAnnotation(instance.LastActivityAnnotation, ""), 0, repair}, // deletes nothing
		// It may be right by another clock, and the truth were lost.
		{"used in the future", kubetest.LastUsed(now.Add(time.Hour)), lag - moment, keep},
		{"used in the future", kubetest.LastUsed(now.Add(time.Hour)), lag, repair},
	} {
		policy := cullPolicy{cullTimeout: time.Hour, startTimeout: kubetest.StartTimeout, since: now.Add(-test.leads)}
		if got := judge(kubetest.Pod(kubetest.ID(1), kubetest.Noon, test.change), now, policy); got.action != test.want {
			t.Errorf("%s, leading for %s: got %v, want action %v", test.name, test.leads, got, test.want)
		}
	}
}

// What clients are told of a failed instance is what it is then ended for, and
// none is ended for a failure before that is its status.
func TestJudgeAgreesWithStatus(t *testing.T) {
	policy := cullPolicy{cullTimeout: time.Hour, startTimeout: kubetest.StartTimeout}
	for name, change := range map[string]func(*corev1.Pod){
		"deployed": changes(), "no node": kubetest.Unscheduled, "starting": kubetest.Starting, "broken": kubetest.Broken,
		"image missing": waits("ImagePullBackOff", ""), "lost": unready(kubetest.Noon.Add(time.Hour)),
	} {
		pod := kubetest.Pod(kubetest.ID(1), kubetest.Noon, change)
		for after := time.Duration(0); after <= 3*time.Hour; after += 10 * time.Second {
			now := kubetest.Noon.Add(after)
			inst := instance.FromPod(pod, now, policy.startTimeout)
			got := judge(pod, now, policy)
			if got.reason == instance.EndFailed && (inst.Status != instance.StatusFailed || got.message != inst.Reason+": "+inst.Message) {
				t.Fatalf("%s after %s: ended for %q, while its status is %+v", name, after, got.message, inst)
			}
		}
		// And none lives for ever.
		if got := judge(pod, kubetest.Noon.Add(3*time.Hour), policy); got.action != end {
			t.Errorf("%s: not over after 3 hours: %+v", name, got)
		}
	}
}
