package main

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	at := func(after time.Duration) time.Time { return noon.Add(after) }
	readySince := func(since time.Time) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.Status.Conditions[1].LastTransitionTime = metav1.NewTime(since) }
	}
	restarts := waits("CrashLoopBackOff", "back-off 5m")

	for _, test := range []struct {
		name   string
		change func(*corev1.Pod)
		after  time.Duration // since noon
		action action
		reason EndReason
		says   string // is in the message
	}{
		// Idle.
		{"just launched", changes(), 0, keep, "", ""},
		{"idle for its timeout, but somebody may not have written yet", changes(), timeout, keep, "", ""},
		{"idle, a moment too early", changes(), timeout + lag - moment, keep, "", ""},
		{"idle", changes(), timeout + lag, end, EndCulled, "not used for 1h5m2s; its cull timeout is 1h0m0s"},
		{"idle for days", changes(), 72 * time.Hour, end, EndCulled, ""},
		{"used since", lastUsed(at(time.Hour)), 2*time.Hour + lag - moment, keep, "", ""},
		{"used, then idle", lastUsed(at(time.Hour)), 2*time.Hour + lag, end, EndCulled, ""},
		{"its own timeout is shorter", withAnnotation(cullTimeoutAnnotation, "12s"), 15 * time.Second, end, EndCulled, "its cull timeout is 12s"},
		{"its own timeout is shorter, a moment too early", withAnnotation(cullTimeoutAnnotation, "12s"), 15*time.Second - moment, keep, "", ""},
		{"its own timeout is longer", withAnnotation(cullTimeoutAnnotation, "24h"), 25 * time.Hour, keep, "", ""},
		{"its own timeout is unreadable: the server's", withAnnotation(cullTimeoutAnnotation, "soon"), timeout + lag - moment, keep, "", ""},
		{"its own timeout is unreadable: the server's", withAnnotation(cullTimeoutAnnotation, "soon"), timeout + lag, end, EndCulled, ""},

		// The time to start is nobody's idleness.
		{"ready only later", readySince(at(4 * time.Minute)), 4*time.Minute + timeout + lag - moment, keep, "", ""},
		{"ready only later, then idle", readySince(at(4 * time.Minute)), 4*time.Minute + timeout + lag, end, EndCulled, ""},
		{"ready anew after a restart is no use", readySince(at(50 * time.Minute)), 5*time.Minute + timeout + lag, end, EndCulled, ""},
		{"ready anew after a restart", readySince(at(50 * time.Minute)), 5*time.Minute + timeout + lag - moment, keep, "", ""},
		{"restarts for ever, each time ready for a while", changes(restarts, readySince(at(70*time.Minute+lag-time.Second))), 70*time.Minute + lag, end, EndCulled, ""},

		// Too old, however active; and not for what cannot be read.
		{"in use, a moment younger than its max age", changes(lastUsed(at(12*time.Hour-moment)), withAnnotation(maxAgeAnnotation, "12h")), 12*time.Hour - moment, keep, "", ""},
		{"in use, of its max age", changes(lastUsed(at(12*time.Hour)), withAnnotation(maxAgeAnnotation, "12h")), 12 * time.Hour, end, EndExpired, "launched 12h0m0s ago; its max age is 12h0m0s"},
		{"in use, of the server's max age", lastUsed(at(48 * time.Hour)), 48 * time.Hour, end, EndExpired, "its max age is 48h0m0s"},
		{"its own max age cannot be longer", changes(lastUsed(at(48*time.Hour)), withAnnotation(maxAgeAnnotation, "96h")), 48 * time.Hour, end, EndExpired, "its max age is 48h0m0s"},
		{"its own max age is unreadable: the server's", changes(lastUsed(at(48*time.Hour-moment)), withAnnotation(maxAgeAnnotation, "1")), 48*time.Hour - moment, keep, "", ""},
		{"its own max age is unreadable: the server's", changes(lastUsed(at(48*time.Hour)), withAnnotation(maxAgeAnnotation, "1")), 48 * time.Hour, end, EndExpired, ""},
		{"claimed a day later", changes(lastUsed(at(48*time.Hour)), launchedOn(at(24*time.Hour))), 72*time.Hour - moment, end, EndCulled, ""},
		{"claimed a day later, in use", changes(lastUsed(at(72*time.Hour)), launchedOn(at(24*time.Hour))), 72*time.Hour - moment, keep, "", ""},
		{"claimed a day later, in use, too old", changes(lastUsed(at(72*time.Hour)), launchedOn(at(24*time.Hour))), 72 * time.Hour, end, EndExpired, ""},
		{"launched at no readable time, in use", changes(lastUsed(at(200*time.Hour)), withAnnotation(launchedAnnotation, "")), 200 * time.Hour, repair, "", `launched: "" is not`},
		{"launched at no readable time, idle", withAnnotation(launchedAnnotation, ""), 200 * time.Hour, end, EndCulled, ""},
		{"launched in the future, in use", changes(lastUsed(at(200*time.Hour)), launchedOn(at(300*time.Hour))), 200 * time.Hour, repair, "", "launched is in the future"},
		{"launched and used at no readable time", changes(withAnnotation(lastActivityAnnotation, "?"), withAnnotation(launchedAnnotation, "!")), 200 * time.Hour, repair, "", `launched: "!" is not`},
		{"idle before it was too old", changes(), 200 * time.Hour, end, EndCulled, ""},
		{"too old, activity mangled", withAnnotation(lastActivityAnnotation, "mangled"), 48 * time.Hour, end, EndExpired, ""},
		{"too old before it is ready", changes(starting, withAnnotation(maxAgeAnnotation, "1m")), time.Minute, end, EndExpired, ""},
		{"too old and completed", changes(completed, withAnnotation(maxAgeAnnotation, "1m")), time.Hour, end, EndGone, ""},

		// Not readable: in use now, and to be mended.
		{"no activity", func(p *corev1.Pod) { delete(p.Annotations, lastActivityAnnotation) }, 0, repair, "", "last-activity is missing"},
		{"no activity for days", func(p *corev1.Pod) { delete(p.Annotations, lastActivityAnnotation) }, 47 * time.Hour, repair, "", ""},
		{"activity mangled", withAnnotation(lastActivityAnnotation, "yesterday"), 47 * time.Hour, repair, "", `"yesterday" is not`},
		{"activity empty", withAnnotation(lastActivityAnnotation, ""), 47 * time.Hour, repair, "", ""},
		{"activity in the future", lastUsed(at(24 * time.Hour)), 0, repair, "", "in the future: 2026-01-03T12:00:00.000Z"},
		{"a moment more than clocks differ", lastUsed(at(time.Minute + moment)), 0, repair, "", ""},
		{"as much as clocks differ", lastUsed(at(time.Minute)), 0, keep, "", ""},
		{"the year 1", lastUsed(time.Time{}), 0, keep, "", ""}, // just became ready
		{"the year 1, idle", lastUsed(time.Time{}), timeout + lag, end, EndCulled, ""},

		// Failed: kept for a minute, for clients to learn of it.
		{"broke down", broken, time.Minute - moment, keep, "", ""},
		{"broke down a minute ago", broken, time.Minute, end, EndFailed, "Error: container notebook exited with code 1"},
		{"broke down after an hour's work", changes(broken, func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].State.Terminated.FinishedAt = metav1.NewTime(at(time.Hour))
		}), 61*time.Minute - moment, keep, "", ""},
		{"evicted, the kubelet did not say when", changes(unready(at(time.Hour)), func(p *corev1.Pod) {
			p.Status = corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "low on memory", Conditions: p.Status.Conditions}
		}), 61 * time.Minute, end, EndFailed, "Evicted: low on memory"},
		{"broke down, activity mangled", changes(broken, withAnnotation(lastActivityAnnotation, "")), time.Minute, end, EndFailed, ""},
		{"completed", completed, 0, end, EndGone, "ended by itself"},

		// Never ready: the start timeout and that minute.
		{"no node", unscheduled, 6*time.Minute - moment, keep, "", ""},
		{"no node for too long", unscheduled, 6 * time.Minute, end, EndFailed, "StartTimeout: not ready within 5m0s: 0/1 nodes are available"},
		{"image missing", waits("ImagePullBackOff", "manifest unknown"), 6*time.Minute - moment, keep, "", ""},
		{"image missing for too long", waits("ImagePullBackOff", "manifest unknown"), 6 * time.Minute, end, EndFailed, "ImagePullBackOff: image jupyter:1: manifest unknown"},
		{"restarts for ever, never ready", restarts, 6 * time.Minute, end, EndFailed, "StartTimeout"},
		{"never ready, activity mangled", changes(unscheduled, withAnnotation(lastActivityAnnotation, "")), 6 * time.Minute, end, EndFailed, ""},
		{"never ready, activity in the future", changes(unscheduled, lastUsed(at(24*time.Hour))), 6 * time.Minute, end, EndFailed, ""},
		{"starting, activity mangled", changes(unscheduled, withAnnotation(lastActivityAnnotation, "")), time.Minute, repair, "", ""},
		{"not ready for a while, after hours of work", changes(unready(at(3*time.Hour)), lastUsed(at(3*time.Hour))), 3*time.Hour + 6*time.Minute - moment, keep, "", ""},
		{"never ready again, after hours of work", changes(unready(at(3*time.Hour)), lastUsed(at(3*time.Hour))), 3*time.Hour + 6*time.Minute, end, EndFailed, ""},
		{"its start outlasts its cull timeout", changes(unscheduled, withAnnotation(cullTimeoutAnnotation, "1s")), 6*time.Minute - moment, keep, "", ""},
		{"its start outlasts its cull timeout, failed", changes(unscheduled, withAnnotation(cullTimeoutAnnotation, "1s")), 6 * time.Minute, end, EndFailed, "StartTimeout"},

		// Already on its way out.
		{"being deleted", deleting, 72 * time.Hour, keep, "", ""},
		{"failed and being deleted", changes(broken, deleting), 72 * time.Hour, keep, "", ""},
		{"being deleted, activity mangled", changes(deleting, withAnnotation(lastActivityAnnotation, "")), 0, keep, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			policy := cullPolicy{cullTimeout: timeout, startTimeout: testStartTimeout, maxAge: 48 * time.Hour}
			pod := newPod(instanceID(1), noon, test.change)
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
	short := withAnnotation(cullTimeoutAnnotation, "12s") // of which annotations may lag by 3 seconds
	now := noon.Add(72 * time.Hour)
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
		{"failed, and so over", broken, 0, end},
		{"completed, and so over", completed, 0, end},
		{"too old", changes(lastUsed(now), withAnnotation(maxAgeAnnotation, "1h")), lag - moment, keep}, // the clock may be wrong
		{"too old", changes(lastUsed(now), withAnnotation(maxAgeAnnotation, "1h")), lag, end},
		{"never ready", unscheduled, lag - moment, keep},
		{"never ready", unscheduled, lag, end},
		{"mangled", withAnnotation(lastActivityAnnotation, ""), 0, repair}, // deletes nothing
		// It may be right by another clock, and the truth were lost.
		{"used in the future", lastUsed(now.Add(time.Hour)), lag - moment, keep},
		{"used in the future", lastUsed(now.Add(time.Hour)), lag, repair},
	} {
		policy := cullPolicy{cullTimeout: time.Hour, startTimeout: testStartTimeout, since: now.Add(-test.leads)}
		if got := judge(newPod(instanceID(1), noon, test.change), now, policy); got.action != test.want {
			t.Errorf("%s, leading for %s: got %v, want action %v", test.name, test.leads, got, test.want)
		}
	}
}

// What clients are told of a failed instance is what it is then ended for, and
// none is ended for a failure before that is its status.
func TestJudgeAgreesWithStatus(t *testing.T) {
	policy := cullPolicy{cullTimeout: time.Hour, startTimeout: testStartTimeout}
	for name, change := range map[string]func(*corev1.Pod){
		"deployed": changes(), "no node": unscheduled, "starting": starting, "broken": broken,
		"image missing": waits("ImagePullBackOff", ""), "lost": unready(noon.Add(time.Hour)),
	} {
		pod := newPod(instanceID(1), noon, change)
		for after := time.Duration(0); after <= 3*time.Hour; after += 10 * time.Second {
			now := noon.Add(after)
			inst := instanceFromPod(pod, now, policy.startTimeout)
			got := judge(pod, now, policy)
			if got.reason == EndFailed && (inst.Status != StatusFailed || got.message != inst.Reason+": "+inst.Message) {
				t.Fatalf("%s after %s: ended for %q, while its status is %+v", name, after, got.message, inst)
			}
		}
		// And none lives for ever.
		if got := judge(pod, noon.Add(3*time.Hour), policy); got.action != end {
			t.Errorf("%s: not over after 3 hours: %+v", name, got)
		}
	}
}
