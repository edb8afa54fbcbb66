package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"

	"github.com/binder-project/binder-deploy-kubernetes/internal/pool"
)

func TestPlanPool(t *testing.T) {
	template := poolTemplate("jupyter", "3")
	hash := podtemplate.Hash(template)
	old := poolTemplate("jupyter", "3")
	old.Template.Spec.Containers[0].Image = "app:0"
	now := poolNoon
	pod := func(n int, age time.Duration, changes ...func(*corev1.Pod)) *corev1.Pod {
		return poolPod(t, template, n, now.Add(-age), changes...)
	}
	failing := func(count int, ago time.Duration) pool.PoolFailures {
		return pool.PoolFailures{hash, count, now.Add(-ago)}
	}

	for _, test := range []struct {
		name     string
		size     int
		pods     []*corev1.Pod
		creating int
		failures pool.PoolFailures

		create int
		remove []string // "<n> <reason>"
		count  int      // of failures, after it
	}{
		{name: "empty", size: 3, create: 3},
		{name: "full", size: 2, pods: []*corev1.Pod{pod(1, time.Hour), pod(2, 48*time.Hour)}},
		{name: "one claimed", size: 2, pods: []*corev1.Pod{pod(1, time.Hour)}, create: 1},
		{name: "created ones count before they are seen", size: 3, pods: []*corev1.Pod{pod(1, time.Hour)}, creating: 2},
		{name: "starting ones count", size: 2, pods: []*corev1.Pod{pod(1, time.Second, poolStarting), pod(2, time.Minute, poolStarting)}},
		{name: "deleted ones do not", size: 2, pods: []*corev1.Pod{pod(1, time.Hour), pod(2, time.Hour, poolDeleting)}, create: 1},
		{name: "no pool", size: 0, pods: []*corev1.Pod{pod(1, time.Hour), pod(2, time.Second, poolStarting)},
			remove: []string{"1 more than the pool's size", "2 more than the pool's size"}},
		{name: "too many: the one that starts goes", size: 2,
			pods:   []*corev1.Pod{pod(1, time.Minute, poolStarting), pod(2, time.Hour), pod(3, time.Second)},
			remove: []string{"1 more than the pool's size"}},
		{name: "too many: the youngest goes", size: 2,
			pods:   []*corev1.Pod{pod(1, time.Minute), pod(2, time.Hour), pod(3, 2*time.Hour)},
			remove: []string{"1 more than the pool's size"}},
		{name: "of an earlier version", size: 2, pods: []*corev1.Pod{poolPod(t, old, 1, now.Add(-time.Hour)), pod(2, time.Hour)},
			create: 1, remove: []string{"1 of an earlier version of the template"}},
		{name: "failed", size: 1, pods: []*corev1.Pod{pod(1, time.Hour, poolPhase(corev1.PodFailed))},
			remove: []string{"1 failed"}, count: 1},
		{name: "completed", size: 1, pods: []*corev1.Pod{pod(1, time.Hour, poolPhase(corev1.PodSucceeded))},
			remove: []string{"1 failed"}, count: 1},
		{name: "does not start", size: 1, pods: []*corev1.Pod{pod(1, poolStartTimeout, poolStarting)},
			remove: []string{"1 failed"}, count: 1},
		{name: "may still start", size: 1, pods: []*corev1.Pod{pod(1, poolStartTimeout-time.Second, poolStarting)}},
		{name: "breaks down again and again", size: 1, pods: []*corev1.Pod{pod(1, time.Hour, poolRestarted(3))},
			remove: []string{"1 failed"}, count: 1},
		{name: "was started again once", size: 1, pods: []*corev1.Pod{pod(1, time.Hour, poolRestarted(1))}},
		{name: "several failures at once are one", size: 2,
			pods:   []*corev1.Pod{pod(1, time.Hour, poolPhase(corev1.PodFailed)), pod(2, time.Hour, poolPhase(corev1.PodFailed))},
			remove: []string{"1 failed", "2 failed"}, count: 1},
		{name: "failed during the pause", size: 2, pods: []*corev1.Pod{pod(1, time.Minute, poolPhase(corev1.PodFailed))},
			failures: failing(2, 9*time.Second), remove: []string{"1 failed"}, count: 2},
		{name: "failed after the pause", size: 2, pods: []*corev1.Pod{pod(1, time.Minute, poolPhase(corev1.PodFailed))},
			failures: failing(2, 10*time.Second), remove: []string{"1 failed"}, count: 3},

		{name: "pause", size: 2, failures: failing(1, 4*time.Second), count: 1},
		{name: "the pause is over", size: 2, failures: failing(1, 5*time.Second), create: 2, count: 1},
		{name: "a pause keeps nothing from being deleted", size: 1, pods: []*corev1.Pod{pod(1, time.Hour), pod(2, time.Minute)},
			failures: failing(1, time.Second), remove: []string{"2 more than the pool's size"}, count: 1},
		{name: "failures of another version", size: 2, failures: pool.PoolFailures{"another", 9, now}, create: 2},
		{name: "ready ones from before the failure prove nothing", size: 2, pods: []*corev1.Pod{pod(1, time.Hour)},
			failures: failing(4, time.Minute), create: 1, count: 4},
		{name: "ready since, for the length of the pause", size: 2, pods: []*corev1.Pod{pod(1, 11*time.Second)},
			failures: failing(2, 12*time.Second), create: 1},
		{name: "ready since, but not for long", size: 2, pods: []*corev1.Pod{pod(1, 9*time.Second)},
			failures: failing(2, 12*time.Second), create: 1, count: 2},
		{name: "failures long ago", size: 2, failures: failing(9, 16*time.Minute), create: 2},
		{name: "failures not so long ago", size: 2, failures: failing(9, 14*time.Minute), create: 2, count: 9},
	} {
		t.Run(test.name, func(t *testing.T) {
			view := pool.PoolView{Size: test.size, Hash: hash, Pods: test.pods, Creating: test.creating, Failures: test.failures}
			plan := pool.PlanPool(view, now, poolStartTimeout)
			var removed []string
			for _, r := range plan.Remove {
				var n int
				if _, err := fmt.Sscanf(r.Pod.Labels[instance.IDLabel], "%x", &n); err != nil {
					t.Fatal(err)
				}
				removed = append(removed, fmt.Sprint(n, " ", r.Reason))
			}
			if plan.Create != test.create || !slices.Equal(removed, test.remove) || plan.Failures.Count != test.count {
				t.Errorf("creates %d, removes %q, failures %d; want %d, %q, %d",
					plan.Create, removed, plan.Failures.Count, test.create, test.remove, test.count)
			}
		})
	}
}

func TestPoolPausesGrow(t *testing.T) {
	var failures pool.PoolFailures
	now := poolNoon
	for _, want := range []time.Duration{5, 10, 20, 40, 80, 160, 300, 300, 300} {
		failures = failures.And(now)
		if got := failures.Pause(); got != want*time.Second {
			t.Errorf("after %d failures the pause is %s, want %s", failures.Count, got, want*time.Second)
		}
		now = now.Add(failures.Pause())
		if failures.Paused(now) || !failures.Paused(now.Add(-time.Millisecond)) {
			t.Errorf("after %d failures the pause does not end in time", failures.Count)
		}
	}
}
