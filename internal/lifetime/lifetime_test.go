package lifetime_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	. "github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
)

// Clients are told when the culler ends an instance: at that moment and not before.
func TestCullAtIsWhenItEnds(t *testing.T) {
	const lastUse = 10*time.Hour + 123*time.Millisecond
	for _, test := range []struct {
		name   string
		change func(*corev1.Pod)
		now    time.Duration // since noon
	}{
		{"never used", kubetest.All(), 12 * time.Hour},
		{"used", usedAt(lastUse), 12 * time.Hour},
		{"own timeout", kubetest.All(usedAt(lastUse), timeout("90s")), 12 * time.Hour},
		{"own max age", kubetest.All(usedAt(lastUse), maxAge("11h")), 12 * time.Hour},
		{"the server's max age", usedAt(48 * time.Hour), 48 * time.Hour},
		{"used by a clock that is ahead", usedAt(12*time.Hour + time.Minute), 12 * time.Hour},
		{"claimed", kubetest.All(usedAt(lastUse), launchedAt(lastUse), maxAge("30m")), 12 * time.Hour},
		{"launch time unreadable", kubetest.All(usedAt(lastUse), launched("?")), 12 * time.Hour},
		{"not Ready for a minute", kubetest.All(usedAt(lastUse), kubetest.NotReadySince(at(lastUse-time.Minute))), lastUse},
	} {
		pod := podWith(test.change, kubetest.WithAnnotation(instance.ActivitySourceAnnotation, "http"))
		inst := instance.FromPod(pod, nil, at(test.now), kubetest.StartTimeout)
		rules.Describe(&inst, pod, at(test.now))
		if inst.CullAt.IsZero() || inst.LastActivity.IsZero() || inst.Source != instance.SourceHTTP {
			t.Errorf("%s: got %+v", test.name, inst)
			continue
		}
		if !instance.IsReady(pod) { // it is Ready again before that time
			kubetest.Pod("", inst.CullAt.Add(-time.Hour)).Status.DeepCopyInto(&pod.Status)
		}
		if got := rules.Judge(pod, nil, inst.CullAt.Add(-moment), false); got.Action == End {
			t.Errorf("%s: due at %s, a moment before it is %+v", test.name, inst.CullAt, got)
		}
		if got := rules.Judge(pod, nil, inst.CullAt, false); got.Action != End {
			t.Errorf("%s: due at %s, then it is %+v", test.name, inst.CullAt, got)
		}
	}
}

func TestDescribeLeavesZero(t *testing.T) {
	for name, change := range map[string]func(*corev1.Pod){
		"being deleted": kubetest.Deleting, "failed": kubetest.Broken, "completed": kubetest.Completed,
		"last use unreadable":    used("mangled"),
		"no last use":            kubetest.WithoutAnnotation(instance.LastActivityAnnotation),
		"last use in the future": usedAt(time.Hour),
	} {
		pod := podWith(change, kubetest.WithAnnotation(instance.ActivitySourceAnnotation, "http"))
		before := instance.FromPod(pod, nil, kubetest.Noon, kubetest.StartTimeout)
		inst := before
		if rules.Describe(&inst, pod, kubetest.Noon); inst != before {
			t.Errorf("%s: got %+v", name, inst)
		}
	}
}

// The sum of the longest possible timeout and its lag overflows a time.Duration.
func TestDueEndOfTheLongestTimeout(t *testing.T) {
	if end, _ := (Rules{CullTimeout: time.Hour}).DueEnd(podWith(timeout("2562047h")), kubetest.Noon, kubetest.Noon); end.Year() < 2300 {
		t.Errorf("it is due to end at %s", end)
	}
}

func TestOwnTimes(t *testing.T) {
	for _, test := range []struct {
		own                         string // of the pod
		server, maxAge, cullTimeout time.Duration
	}{
		{"", 0, 0, 0},
		{"", time.Hour, time.Hour, time.Hour},
		{"30m", 0, 30 * time.Minute, 30 * time.Minute},
		{"1.5s", time.Hour, 1500 * time.Millisecond, 1500 * time.Millisecond},
		{"2h", time.Hour, time.Hour, 2 * time.Hour},
		{"soon", 0, 0, 0},
		{"soon", time.Hour, time.Hour, time.Hour},
		{"3600", time.Hour, time.Hour, time.Hour},
		{"0s", 0, 0, 0},
		{"-1h", time.Hour, time.Hour, time.Hour},
	} {
		pod := podWith(timeout(test.own), maxAge(test.own))
		if got := (Rules{CullTimeout: test.server}).CullTimeoutOf(pod); got != test.cullTimeout {
			t.Errorf("own %q, server's %s: the cull timeout is %s, want %s", test.own, test.server, got, test.cullTimeout)
		}
		end, reason := (Rules{CullTimeout: 1000 * time.Hour, MaxAge: test.server}).DueEnd(podWith(maxAge(test.own)), kubetest.Noon, kubetest.Noon)
		if expires := reason == instance.EndExpired; expires != (test.maxAge > 0) || expires && !end.Equal(at(test.maxAge)) {
			t.Errorf("own %q, server's %s: it is due at %s as %s, want it to expire after %s", test.own, test.server, end, reason, test.maxAge)
		}
	}
}

// Activity is not written more often than the shortest cull timeout of a launch needs. The
// culler allows for that: a tiny timeout ends no instance whose use is still in memory.
func TestPeriodHasAFloor(t *testing.T) {
	floor := Rules{CullTimeout: time.Hour, StartTimeout: kubetest.StartTimeout, MinCullTimeout: time.Minute}
	for timeout, want := range map[time.Duration]time.Duration{
		time.Millisecond: 5 * time.Second, 59 * time.Second: 5 * time.Second, time.Minute: 5 * time.Second, time.Hour: 5 * time.Minute,
	} {
		if got := floor.Period(timeout); got != want {
			t.Errorf("the period of %s is %s, want %s", timeout, got, want)
		}
		pod := podWith(kubetest.WithAnnotation(instance.CullTimeoutAnnotation, timeout.String()))
		if got, _ := floor.DueEnd(pod, at(time.Hour), at(time.Hour)); !got.Equal(at(time.Hour + timeout + want + 2*FlushTick)) {
			t.Errorf("with a cull timeout of %s, the end is due at %s", timeout, got)
		}
	}
}
