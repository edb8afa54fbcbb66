package pool

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func TestPlanPool(t *testing.T) {
	const hash, startTimeout = "0123456789", kubetest.StartTimeout // the hash of kubetest.Pod
	now := kubetest.Noon
	// pod is the nth warm pod, which was created and became ready a while ago.
	pod := func(n int, age time.Duration, changes ...func(*corev1.Pod)) *corev1.Pod {
		return kubetest.Pod(kubetest.ID(n), now.Add(-age), changes...)
	}
	restarted := func(times int32) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.Status.ContainerStatuses[0].RestartCount = times }
	}
	outdated := kubetest.WithLabel(instance.TemplateHashLabel, "another")
	failing := func(count int, ago time.Duration) failures { return failures{hash, count, now.Add(-ago)} }
	type pods = []*corev1.Pod

	for _, test := range []struct {
		name     string
		size     int
		pods     pods
		failures failures

		create int
		remove []string // "<n> <reason>"
		count  int      // of failures, afterwards
		again  time.Duration
	}{
		{name: "empty", size: 3, create: 3, again: resync},
		{name: "full", size: 2, pods: pods{pod(1, time.Hour), pod(2, 48*time.Hour)}, again: resync},
		{name: "one claimed", size: 2, pods: pods{pod(1, time.Hour)}, create: 1, again: resync},
		{name: "starting pods count", size: 2, pods: pods{pod(1, time.Second, kubetest.Starting), pod(2, time.Minute, kubetest.Starting)}, again: resync},
		{name: "pods being deleted do not", size: 2, pods: pods{pod(1, time.Hour), pod(2, time.Hour, kubetest.Deleting)}, create: 1, again: resync},
		{name: "neither pool nor pods"},
		{name: "no pool", pods: pods{pod(1, time.Hour), pod(2, time.Second, kubetest.Broken)}, failures: failing(3, 0),
			remove: []string{"1 " + removeSurplus, "2 " + removeSurplus}},
		{name: "too many: the starting one goes", size: 2,
			pods:   pods{pod(1, time.Minute, kubetest.Starting), pod(2, time.Hour), pod(3, time.Second)},
			remove: []string{"1 " + removeSurplus}, again: resync},
		{name: "too many: the youngest goes", size: 2, pods: pods{pod(1, time.Minute), pod(2, time.Hour), pod(3, 2*time.Hour)},
			remove: []string{"1 " + removeSurplus}, again: resync},
		{name: "of an earlier version", size: 2, pods: pods{pod(1, time.Hour, outdated), pod(2, time.Hour)},
			create: 1, remove: []string{"1 " + removeOutdated}, again: resync},
		{name: "failed", size: 1, pods: pods{pod(1, time.Hour, kubetest.Broken)},
			remove: []string{"1 failed"}, count: 1, again: firstPause},
		{name: "completed", size: 1, pods: pods{pod(1, time.Hour, kubetest.Completed)},
			remove: []string{"1 failed"}, count: 1, again: firstPause},
		{name: "does not start", size: 1, pods: pods{pod(1, startTimeout, kubetest.Starting)},
			remove: []string{"1 failed"}, count: 1, again: firstPause},
		{name: "may still start", size: 1, pods: pods{pod(1, startTimeout-time.Second, kubetest.Starting)}, again: time.Second},
		{name: "crashes again and again", size: 1, pods: pods{pod(1, time.Hour, restarted(3))},
			remove: []string{"1 failed"}, count: 1, again: firstPause},
		{name: "restarted once", size: 1, pods: pods{pod(1, time.Hour, restarted(1))}, again: resync},
		{name: "several failures at once are one", size: 2, pods: pods{pod(1, time.Hour, kubetest.Broken), pod(2, time.Hour, kubetest.Broken)},
			remove: []string{"1 failed", "2 failed"}, count: 1, again: firstPause},
		{name: "failed during the pause", size: 2, pods: pods{pod(1, time.Minute, kubetest.Broken)}, failures: failing(2, 9*time.Second),
			remove: []string{"1 failed"}, count: 2, again: time.Second},
		{name: "failed after the pause", size: 2, pods: pods{pod(1, time.Minute, kubetest.Broken)}, failures: failing(2, 10*time.Second),
			remove: []string{"1 failed"}, count: 3, again: 20 * time.Second},

		{name: "paused", size: 2, failures: failing(1, 4*time.Second), count: 1, again: time.Second},
		{name: "the pause is over", size: 2, failures: failing(1, 5*time.Second), create: 2, count: 1, again: resync},
		{name: "paused, but too many", size: 1, pods: pods{pod(1, time.Hour), pod(2, time.Minute)}, failures: failing(1, time.Second),
			remove: []string{"2 " + removeSurplus}, count: 1, again: resync},
		{name: "failures of another version", size: 2, failures: failures{"another", 9, now}, create: 2, again: resync},
		{name: "ready before the failure proves nothing", size: 2, pods: pods{pod(1, time.Hour)}, failures: failing(4, time.Minute),
			create: 1, count: 4, again: resync},
		{name: "ready since, for the length of the pause", size: 2, pods: pods{pod(1, 10*time.Second)}, failures: failing(2, 12*time.Second),
			create: 1, again: resync},
		{name: "ready since, but not for long", size: 2, pods: pods{pod(1, 9*time.Second)}, failures: failing(2, 12*time.Second),
			create: 1, count: 2, again: time.Second},
		{name: "ready since, but of an earlier version", size: 1, pods: pods{pod(1, 10*time.Second, outdated)}, failures: failing(2, 12*time.Second),
			create: 1, remove: []string{"1 " + removeOutdated}, count: 2, again: resync},
		{name: "failures long ago", size: 2, failures: failing(9, 16*time.Minute), create: 2, again: resync},
		{name: "failures not so long ago", size: 2, failures: failing(9, 14*time.Minute), create: 2, count: 9, again: resync},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := planPool(view{size: test.size, hash: hash, pods: test.pods, failures: test.failures}, now, startTimeout)
			var removed []string
			for _, r := range got.remove {
				n := slices.IndexFunc(test.pods, func(pod *corev1.Pod) bool { return pod.Name == r.pod.Name }) + 1
				removed = append(removed, fmt.Sprint(n, " ", r.reason))
			}
			if got.create != test.create || !slices.Equal(removed, test.remove) || got.failures.count != test.count || got.lookAgain != test.again {
				t.Errorf("creates %d, removes %q, has %d failures, looks again after %s; want %d, %q, %d, %s", got.create, removed,
					got.failures.count, got.lookAgain, test.create, test.remove, test.count, test.again)
			}
		})
	}
}

func TestPausesGrow(t *testing.T) {
	var f failures
	now := kubetest.Noon
	for _, want := range []time.Duration{5, 10, 20, 40, 80, 160, 300, 300, 300} {
		f = f.withOneMore(now)
		if got := f.pause(); got != want*time.Second {
			t.Errorf("after %d failures the pause is %s, want %s", f.count, got, want*time.Second)
		}
		now = now.Add(f.pause())
		if f.paused(now) || !f.paused(now.Add(-time.Millisecond)) {
			t.Errorf("after %d failures the pause does not end in time", f.count)
		}
	}
}

// BenchmarkPlanPool measures a look at a pool that is full. There is one after each claim.
func BenchmarkPlanPool(b *testing.B) {
	for _, size := range []int{20, 1000} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			v := newCourse(size).view
			b.ReportAllocs()
			for b.Loop() {
				planPool(v, kubetest.Noon, kubetest.StartTimeout)
			}
		})
	}
}
