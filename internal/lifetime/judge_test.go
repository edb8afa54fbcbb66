package lifetime_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	. "github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
)

const moment = time.Millisecond

// rules are the settings of all tests. With them, an annotation can trail the real
// last use by 5 minutes and 2 seconds.
var rules = Rules{CullTimeout: time.Hour, StartTimeout: kubetest.StartTimeout, MaxAge: 48 * time.Hour}

// at is a time after noon. Pods of tests are created, Ready and used at noon.
func at(after time.Duration) time.Time { return kubetest.Noon.Add(after) }

func podWith(changes ...func(*corev1.Pod)) *corev1.Pod {
	return kubetest.Pod(kubetest.ID(1), kubetest.Noon, changes...)
}

func usedAt(after time.Duration) func(*corev1.Pod)     { return kubetest.LastUsed(at(after)) }
func launchedAt(after time.Duration) func(*corev1.Pod) { return kubetest.LaunchedAt(at(after)) }
func timeout(value string) func(*corev1.Pod) {
	return kubetest.WithAnnotation(instance.CullTimeoutAnnotation, value)
}
func maxAge(value string) func(*corev1.Pod) {
	return kubetest.WithAnnotation(instance.MaxAgeAnnotation, value)
}
func used(value string) func(*corev1.Pod) {
	return kubetest.WithAnnotation(instance.LastActivityAnnotation, value)
}
func launched(value string) func(*corev1.Pod) {
	return kubetest.WithAnnotation(instance.LaunchedAnnotation, value)
}
func reached(after time.Duration) func(*corev1.Pod) { // its node
	return func(pod *corev1.Pod) { pod.Status.StartTime = new(metav1.NewTime(at(after))) }
}
func waiting(pod *corev1.Pod) { // for a place
	kubetest.Unscheduled(pod)
	instance.Enqueue(pod)
}
func admittedAt(after time.Duration) func(*corev1.Pod) {
	return kubetest.All(launchedAt(after), func(pod *corev1.Pod) { pod.Labels[instance.QueueLabel] = instance.QueueAdmitted })
}
func brokenAt(after time.Duration) func(*corev1.Pod) {
	return kubetest.All(kubetest.Broken, func(pod *corev1.Pod) {
		pod.Status.ContainerStatuses[0].State.Terminated.FinishedAt = metav1.NewTime(at(after))
	})
}

// TestJudgeEnds has what ends an instance, when exactly, and what people are told. A
// moment earlier the instance is kept, or only its times are fixed.
func TestJudgeEnds(t *testing.T) {
	const lag = 5*time.Minute + 2*time.Second
	all, notReadySince := kubetest.All, kubetest.NotReadySince
	restarts := kubetest.StartingWith("CrashLoopBackOff", "back-off 5m")
	for _, test := range []struct {
		name   string
		change func(*corev1.Pod)
		after  time.Duration // since noon
		reason instance.EndReason
		says   string // part of the message and detail
	}{
		// Idle.
		{"idle", all(), time.Hour + lag, instance.EndCulled, "Not used for 1h5m2s; its cull timeout is 1h0m0s."},
		{"used, then idle", usedAt(time.Hour), 2*time.Hour + lag, instance.EndCulled, ""},
		{"its own timeout is shorter", timeout("12s"), 15 * time.Second, instance.EndCulled, "its cull timeout is 12s"},
		{"its own timeout is longer", timeout("24h"), 26*time.Hour + 2*time.Second, instance.EndCulled, ""},
		{"its own timeout is unreadable: the server's", timeout("soon"), time.Hour + lag, instance.EndCulled, ""},
		{"its own timeout is not positive: the server's", timeout("-5m"), time.Hour + lag, instance.EndCulled, ""},
		{"last used in the year 1", kubetest.LastUsed(time.Time{}), time.Hour + lag, instance.EndCulled, ""},

		// The time to start does not count as idleness.
		{"Ready late", kubetest.ReadySince(at(4 * time.Minute)), 4*time.Minute + time.Hour + lag, instance.EndCulled, ""},
		{"Ready late, because it reached its node late", all(reached(4*time.Minute), timeout("1m"), kubetest.ReadySince(at(8*time.Minute))), 9*time.Minute + 7*time.Second, instance.EndCulled, ""},
		{"reached its node late, with a timeout shorter than its start", all(reached(4*time.Minute), timeout("1s"), notReadySince(at(4*time.Minute))), 10 * time.Minute, instance.EndFailed, "StartTimeout"},
		{"on a node whose clock is ahead", all(reached(100*time.Hour), kubetest.ReadySince(at(100*time.Hour))), 10*time.Minute + time.Hour + lag, instance.EndCulled, ""},
		{"Ready again after a restart, which is not a use", kubetest.ReadySince(at(50 * time.Minute)), 5*time.Minute + time.Hour + lag, instance.EndCulled, ""},
		{"restarts again and again, Ready in between", all(restarts, kubetest.ReadySince(at(65*time.Minute+lag-time.Second))), 65*time.Minute + lag, instance.EndCulled, ""},

		// Too old, however active.
		{"of its max age", all(usedAt(12*time.Hour), maxAge("12h")), 12 * time.Hour, instance.EndExpired, "Launched 12h0m0s ago; its max age is 12h0m0s."},
		{"of the server's max age", usedAt(48 * time.Hour), 48 * time.Hour, instance.EndExpired, "its max age is 48h0m0s."},
		{"its own max age is longer: the server's", all(usedAt(48*time.Hour), maxAge("96h")), 48 * time.Hour, instance.EndExpired, "its max age is 48h0m0s."},
		{"its own max age is unreadable: the server's", all(usedAt(48*time.Hour), maxAge("1")), 48 * time.Hour, instance.EndExpired, ""},
		{"claimed a day later", all(usedAt(72*time.Hour), launchedAt(24*time.Hour)), 72 * time.Hour, instance.EndExpired, ""},
		{"launch time unreadable, idle", launched(""), time.Hour + lag, instance.EndCulled, ""},
		{"too old, last use unreadable", used("mangled"), 48 * time.Hour, instance.EndExpired, ""},
		{"too old before it is Ready", all(kubetest.Starting, maxAge("1m")), time.Minute, instance.EndExpired, ""},

		// Waiting for a place: only questions about it count.
		{"nobody asks about its place", waiting, 6*time.Minute + 32*time.Second, instance.EndAbandoned, "nobody asked about it for 6m32s."},
		{"asked about for long", all(waiting, timeout("1s"), maxAge("1m"), usedAt(72*time.Hour)), 72*time.Hour + 6*time.Minute + 32*time.Second, instance.EndAbandoned, ""},
		{"its place came late", all(kubetest.Unscheduled, admittedAt(3*time.Hour)), 3*time.Hour + 6*time.Minute + 15*time.Second, instance.EndFailed, "StartTimeout"},
		{"its place came late, and it is Ready", all(admittedAt(3*time.Hour), usedAt(3*time.Hour), kubetest.ReadySince(at(3*time.Hour+time.Minute))), 4*time.Hour + time.Minute + lag, instance.EndCulled, ""},

		// Failed: kept for a minute, so that clients learn of it.
		{"broke down", kubetest.Broken, time.Minute, instance.EndFailed, "container notebook exited with code 1. Launch a new one. If it ends again, tell the author of the template. (Error)"},
		{"broke down after an hour", brokenAt(time.Hour), 61 * time.Minute, instance.EndFailed, ""},
		{"evicted, the kubelet did not say when", all(notReadySince(at(time.Hour)), func(p *corev1.Pod) {
			p.Status = corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "low on memory", Conditions: p.Status.Conditions}
		}), 61 * time.Minute, instance.EndFailed, "(Evicted: low on memory)"},
		{"broke down by a clock that is a little ahead", brokenAt(2 * time.Minute), 3 * time.Minute, instance.EndFailed, ""},
		{"broke down, last use unreadable", all(kubetest.Broken, used("")), time.Minute, instance.EndFailed, ""},

		// Not Ready within the start timeout, then failed for a minute.
		{"no node", kubetest.Unscheduled, 6*time.Minute + 15*time.Second, instance.EndFailed, "(StartTimeout: Unschedulable: 0/1 nodes are available)"},
		{"no image", kubetest.StartingWith("ImagePullBackOff", "manifest unknown"), 6 * time.Minute, instance.EndFailed, "(ErrImagePull: manifest unknown)"},
		{"restarts again and again, never Ready", restarts, 6 * time.Minute, instance.EndFailed, "StartTimeout"},
		{"never Ready, last use unreadable", all(kubetest.Unscheduled, used("")), 6*time.Minute + 15*time.Second, instance.EndFailed, ""},
		{"never Ready, last use in the future", all(kubetest.Unscheduled, usedAt(24*time.Hour)), 6*time.Minute + 15*time.Second, instance.EndFailed, ""},
		{"not Ready any more after hours", all(notReadySince(at(3*time.Hour)), usedAt(3*time.Hour)), 3*time.Hour + 6*time.Minute, instance.EndFailed, ""},
		{"its node is silent: judged by use", all(kubetest.OnSilentNode(at(time.Minute)), usedAt(time.Hour)), 2*time.Hour + lag, instance.EndCulled, ""},
		{"its cull timeout is shorter than its start", all(kubetest.Unscheduled, timeout("1s")), 6*time.Minute + 15*time.Second, instance.EndFailed, "StartTimeout"},
	} {
		t.Run(test.name, func(t *testing.T) {
			pod := podWith(test.change)
			if got := rules.Judge(pod, nil, at(test.after-moment), false); got.Action == End {
				t.Errorf("a moment too early: got %+v", got)
			}
			got := rules.Judge(pod, nil, at(test.after), false)
			if got.Action != End || got.Reason != test.reason || !strings.Contains(instance.TombstoneText(got.Message, got.Detail), test.says) {
				t.Errorf("got %+v, want End, %q and %q in the message", got, test.reason, test.says)
			}
			if got := rules.Judge(pod, nil, at(test.after+2000*time.Hour), false); got.Action != End {
				t.Errorf("long after: got %+v", got)
			}
		})
	}
}

func TestJudge(t *testing.T) {
	all := kubetest.All
	for _, test := range []struct {
		name   string
		change func(*corev1.Pod)
		after  time.Duration // since noon
		want   Action
		says   string // part of the message and detail
	}{
		{"just launched", all(), 0, Keep, ""},
		{"its cull timeout is over before its start has failed", all(kubetest.Unscheduled, timeout("1s")), 5*time.Minute + 14*time.Second, Keep, ""},
		{"idle for its timeout, but a use may not be written yet", all(), time.Hour, Keep, ""},
		{"completed", kubetest.Completed, 0, End, "ended by itself"},
		{"too old and completed", all(kubetest.Completed, maxAge("1m")), time.Hour, End, "ended by itself"},
		{"broke down at a time in the future, by a node's wrong clock", brokenAt(1000 * time.Hour), time.Minute, End, "exited with code 1"},

		// Wrong times count as now, and are fixed.
		{"no last use", kubetest.WithoutAnnotation(instance.LastActivityAnnotation), 47 * time.Hour, Fix, "last-activity is missing"},
		{"last use unreadable", used("yesterday"), 47 * time.Hour, Fix, `"yesterday" is not`},
		{"last use unreadable, not started yet", all(kubetest.Unscheduled, used("")), time.Minute, Fix, ""},
		{"last use in the future", usedAt(24 * time.Hour), 0, Fix, "in the future: 2026-01-03T12:00:00.000Z"},
		{"last use a moment further ahead than clocks are", usedAt(time.Minute + moment), 0, Fix, ""},
		{"last use as far ahead as clocks are", usedAt(time.Minute), 0, Keep, ""},
		{"launch time unreadable, in use", all(usedAt(200*time.Hour), launched("")), 200 * time.Hour, Fix, `launched: "" is not`},
		{"launched in the future, in use", all(usedAt(200*time.Hour), launchedAt(300*time.Hour)), 200 * time.Hour, Fix, "launched is in the future"},
		{"both times unreadable", all(used("?"), launched("!")), 200 * time.Hour, Fix, `launched: "!" is not`},

		// Already on its way out.
		{"being deleted", kubetest.Deleting, 72 * time.Hour, Keep, ""},
		{"failed and being deleted", all(kubetest.Broken, kubetest.Deleting), 72 * time.Hour, Keep, ""},
		{"being deleted, last use unreadable", all(kubetest.Deleting, used("")), 0, Keep, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := rules.Judge(podWith(test.change), nil, at(test.after), false)
			if got.Action != test.want || !strings.Contains(instance.TombstoneText(got.Message, got.Detail), test.says) || (got.Action == Keep) != (got.Message == "") {
				t.Errorf("got %+v, want action %v and %q in the message", got, test.want, test.says)
			}
		})
	}
}

// While deletes are held, nothing ends that may be in use, and a time that may be
// right by another clock stays.
func TestJudgeWhileHeld(t *testing.T) {
	now := 72 * time.Hour
	for _, test := range []struct {
		name       string
		change     func(*corev1.Pod)
		free, held Action
	}{
		{"idle", kubetest.All(), End, Keep},
		{"too old", kubetest.All(usedAt(now), maxAge("1h")), End, Keep},
		{"never Ready", kubetest.Unscheduled, End, Keep},
		{"failed", kubetest.Broken, End, End},
		{"completed", kubetest.Completed, End, End},
		{"last use unreadable", kubetest.All(used(""), launchedAt(now)), Fix, Fix},
		{"last use in the future", kubetest.All(usedAt(now+time.Hour), launchedAt(now)), Fix, Keep},
		{"launched in the future", kubetest.All(usedAt(now), launchedAt(now+time.Hour)), Fix, Keep},
	} {
		free, held := rules.Judge(podWith(test.change), nil, at(now), false), rules.Judge(podWith(test.change), nil, at(now), true)
		if free.Action != test.free || held.Action != test.held {
			t.Errorf("%s: got %+v, and %+v while held; want actions %v and %v", test.name, free, held, test.free, test.held)
		}
	}
}

// In doubt is what counts as failed only by the time that it has not been Ready, and was
// Ready before. What the kubelet says of an end is no doubt, and nobody has used what was
// never Ready.
func TestJudgeInDoubt(t *testing.T) {
	neverReady := func(p *corev1.Pod) { p.Status.StartTime = &metav1.Time{Time: kubetest.Noon} }
	for name, test := range map[string]struct {
		change func(*corev1.Pod)
		want   bool
	}{
		"stopped being Ready":  {kubetest.All(neverReady, kubetest.NotReadySince(at(time.Hour))), true},
		"restarts":             {kubetest.All(neverReady, kubetest.StartingWith("CrashLoopBackOff", ""), kubetest.ReadySince(at(time.Hour))), true},
		"never Ready":          {kubetest.All(neverReady, kubetest.NotReadySince(at(0))), false},
		"never on a node":      {kubetest.Unscheduled, false},
		"broke down":           {kubetest.All(neverReady, brokenAt(time.Hour)), false},
		"cannot start anymore": {kubetest.All(neverReady, kubetest.StartingWith("ErrImageNeverPull", ""), kubetest.ReadySince(at(time.Hour))), false},
	} {
		got := rules.Judge(podWith(test.change), nil, at(70*time.Minute), false)
		if got.Reason != instance.EndFailed || got.InDoubt != test.want {
			t.Errorf("%s: got %+v, want a failure in doubt: %t", name, got, test.want)
		}
	}
}

// A failed instance ends for the reason that clients were told, and not before they
// were told that it failed.
func TestJudgeAgreesWithStatus(t *testing.T) {
	for name, change := range map[string]func(*corev1.Pod){
		"deployed": kubetest.All(), "no node": kubetest.Unscheduled, "starting": kubetest.Starting, "broken": kubetest.Broken,
		"no image": kubetest.StartingWith("ImagePullBackOff", ""), "lost": kubetest.NotReadySince(at(time.Hour)),
		"silent": kubetest.OnSilentNode(at(time.Hour)),
	} {
		pod := podWith(change)
		for after := time.Duration(0); after <= 3*time.Hour; after += 10 * time.Second {
			inst := instance.FromPod(pod, nil, at(after), kubetest.StartTimeout)
			got := rules.Judge(pod, nil, at(after), false)
			if got.Reason == instance.EndFailed && (inst.Status != instance.StatusFailed || got.Message != inst.Message || !strings.HasPrefix(got.Detail, inst.Reason)) {
				t.Fatalf("%s after %s: ends with %q, but its status is %+v", name, after, got.Message, inst)
			}
		}
		if got := rules.Judge(pod, nil, at(3*time.Hour), false); got.Action != End {
			t.Errorf("%s: still there after 3 hours: %+v", name, got)
		}
	}
}

func TestFixWrongTimes(t *testing.T) {
	const now = "2026-01-02T12:00:00.000Z"
	lastUse := map[string]any{instance.LastActivityAnnotation: now, instance.ActivitySourceAnnotation: nil}
	launch := map[string]any{instance.LaunchedAnnotation: now}
	both := maps.Clone(lastUse)
	maps.Copy(both, launch)
	for _, test := range []struct {
		name   string
		change func(*corev1.Pod)
		want   map[string]any
	}{
		{"nothing is wrong", kubetest.All(), nil},
		{"no launch time: that of an earlier version", kubetest.WithoutAnnotation(instance.LaunchedAnnotation), nil},
		{"clocks differ", kubetest.All(usedAt(time.Minute), launchedAt(time.Minute)), nil},
		{"no last use", kubetest.WithoutAnnotation(instance.LastActivityAnnotation), lastUse},
		{"last use in the future", usedAt(time.Hour), lastUse},
		{"launched in the future", launchedAt(time.Hour), launch},
		{"launch time unreadable", launched(""), launch},
		{"both are wrong", kubetest.All(used("?"), launched("?")), both},
	} {
		got, problem := rules.FixWrongTimes(podWith(test.change), kubetest.Noon, false)
		if !maps.Equal(got, test.want) || (problem != nil) != (len(test.want) > 0) {
			t.Errorf("%s: got %v, %v; want %v", test.name, got, problem, test.want)
		}
		for name, value := range test.want {
			if value != nil && !strings.Contains(problem.Error(), name) {
				t.Errorf("%s: the problem is %v, want %s in it", test.name, problem, name)
			}
		}
	}
	ageless := Rules{CullTimeout: time.Hour}
	if got, problem := ageless.FixWrongTimes(podWith(launched("?")), kubetest.Noon, false); problem != nil {
		t.Errorf("without any max age, the launch time is fixed: %v, %v", got, problem)
	}
}

// A mangled launch time is worth one more max age, and not more.
func TestFixedLaunchTimeExpires(t *testing.T) {
	pod := podWith(usedAt(5*time.Hour), launched("never"), maxAge("1h"))
	annotations, _ := rules.FixWrongTimes(pod, at(5*time.Hour), false)
	launched(annotations[instance.LaunchedAnnotation].(string))(pod)
	usedAt(6 * time.Hour)(pod)
	if got := rules.Judge(pod, nil, at(6*time.Hour-moment), false); got.Action != Keep {
		t.Errorf("a moment before its max age is over again, it is %+v", got)
	}
	if got := rules.Judge(pod, nil, at(6*time.Hour), false); got.Reason != instance.EndExpired {
		t.Errorf("after its max age, it is %+v, want it expired", got)
	}
}

// What has failed for good ends a minute after that, if an Event says when it was. What
// may yet start has the whole start timeout, also if an Event is far in the past.
func TestJudgeFinalFailure(t *testing.T) {
	missingSecret := kubetest.StartingWith("CreateContainerConfigError", `secret "missing" not found`)
	said := func(after time.Duration, message string) []*corev1.Event {
		pod := podWith(kubetest.All())
		return []*corev1.Event{{
			InvolvedObject: corev1.ObjectReference{UID: pod.UID, FieldPath: "spec.containers{notebook}"},
			Type:           corev1.EventTypeWarning, Reason: "Failed", Message: message, FirstTimestamp: metav1.NewTime(at(after)), LastTimestamp: metav1.NewTime(at(2 * time.Hour)),
		}}
	}
	ended := func(code int32) func(*corev1.Pod) { // and a helper runs on
		return func(p *corev1.Pod) {
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			p.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: code, Reason: "Error", FinishedAt: metav1.NewTime(at(30 * time.Second)),
			}}
			p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: "sync", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}})
			kubetest.NotReadySince(at(30 * time.Second))(p)
		}
	}
	for _, test := range []struct {
		name     string
		change   func(*corev1.Pod)
		warnings []*corev1.Event
		ends     time.Duration
		reason   instance.EndReason
	}{
		{"a missing Secret", missingSecret, said(10*time.Second, `Error: secret "missing" not found`), 70 * time.Second, instance.EndFailed},
		{"nothing says since when", missingSecret, nil, 6 * time.Minute, instance.EndFailed},
		{"an Event from before the pod stopped being Ready", kubetest.All(missingSecret, kubetest.NotReadySince(at(time.Hour))),
			said(0, `Error: secret "missing" not found`), 61 * time.Minute, instance.EndFailed},
		{"it may yet start", kubetest.StartingWith("CreateContainerConfigError", "failed to sync secret cache: timed out waiting for the condition"),
			said(0, "Error: failed to sync secret cache: timed out waiting for the condition"), 6 * time.Minute, instance.EndFailed},
		{"the application failed, a helper runs on", ended(3), nil, 90 * time.Second, instance.EndFailed},
		{"an unknown error again and again", kubetest.StartingWith("RunContainerError", "odd"), said(10*time.Second, "Error: odd"), 70 * time.Second, instance.EndFailed},
		{"the application completed, a helper runs on", ended(0), nil, 0, instance.EndCompleted},
	} {
		t.Run(test.name, func(t *testing.T) {
			pod := podWith(test.change)
			if got := rules.Judge(pod, test.warnings, at(test.ends-moment), false); test.ends > 0 && got.Action == End {
				t.Errorf("a moment too early: got %+v", got)
			}
			if got := rules.Judge(pod, test.warnings, at(test.ends), false); got.Action != End || got.Reason != test.reason {
				t.Errorf("got %+v, want End, %q", got, test.reason)
			}
			// A hold is for what may be in use. Without a time, only the start timeout counts.
			held := test.ends == 6*time.Minute
			if got := rules.Judge(pod, test.warnings, at(test.ends), true); (got.Action == Keep) != held {
				t.Errorf("during a hold: got %+v, want it kept: %t", got, held)
			}
		})
	}
}

// A node whose clock is far ahead keeps no failed instance.
func TestJudgeFailureInTheFuture(t *testing.T) {
	const ahead = 10 * time.Hour
	ended := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3, Reason: "Error", FinishedAt: metav1.NewTime(at(ahead))}}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	two := func(app, helper corev1.ContainerState) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			p.Status.ContainerStatuses[0].State = app
			p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: "sync", State: helper})
		}
	}
	crashes := func(p *corev1.Pod) {
		p.Status.StartTime = new(metav1.NewTime(at(ahead)))
		p.Status.ContainerStatuses[0].State = kubetest.Waiting("CrashLoopBackOff", "")
		p.Status.ContainerStatuses[0].LastTerminationState, p.Status.ContainerStatuses[0].RestartCount = ended, 9
	}
	failed := func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }
	for name, change := range map[string]func(*corev1.Pod){
		"its pod failed": kubetest.All(two(ended, running), failed),
		"its application failed, a helper runs on": two(ended, running),
		"a helper ended":          two(running, ended),
		"it ends again and again": crashes,
		"nothing says since when": kubetest.StartingWith("ImagePullBackOff", "manifest unknown"),
	} {
		for _, changed := range []time.Duration{0, ahead} { // when the pod stopped being Ready, by the node's clock
			pod := podWith(change, kubetest.NotReadySince(at(changed)), func(p *corev1.Pod) {
				if p.Status.StartTime != nil { // it never was
					p.Status.StartTime = new(metav1.NewTime(at(changed)))
				}
			})
			for after, want := range map[time.Duration]Action{FailedRetention - moment: Keep, rules.StartTimeout + FailedRetention: End} {
				if got := rules.Judge(pod, nil, at(after), false); got.Action != want || want == End && got.Reason != instance.EndFailed {
					t.Errorf("%s, changed after %s: after %s: got %+v", name, changed, after, got)
				}
			}
		}
	}
}
