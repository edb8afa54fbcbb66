//go:build integration

package main

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
)

// wantGone checks that an instance's pod is gone, and the reason on its tombstone.
func (s *sandbox) wantGone(t testing.TB, id string, reason instance.EndReason) {
	t.Helper()
	if pod, exists := s.pod(t, id); exists {
		t.Errorf("pod %s is still there, deleted at %s", pod.Name, pod.DeletionTimestamp)
	}
	event, exists := s.tombstone(t, id)
	if !exists || event.Reason != string(reason) {
		t.Errorf("tombstone of %s: exists %t, reason %q; want %q", id, exists, event.Reason, reason)
	}
}

func TestIntegrationSweep(t *testing.T) {
	s := parallelSandbox(t)
	began := time.Now().Truncate(time.Millisecond)
	at := func(after time.Duration) time.Time { return began.Add(after) }
	clock := &movingClock{}
	clock.set(at(2 * time.Hour))
	r := s.startReplica(t, clock.now)
	culler := r.culler(t, time.Second, kubetest.NoLog())

	rows := []struct {
		name   string
		change func(*corev1.Pod)
		reason instance.EndReason // "" if it stays
	}{
		{"idle", func(*corev1.Pod) {}, instance.EndCulled},
		{"idle for its own timeout", kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "90m"), instance.EndCulled},
		{"used", kubetest.LastUsed(at(time.Hour + 30*time.Minute)), ""},
		{"used slightly in the future", kubetest.LastUsed(at(2*time.Hour + time.Second)), ""},
		{"long timeout", kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "24h"), ""},
		{"failed", kubetest.Broken, instance.EndFailed},
		{"completed", kubetest.Completed, instance.EndCompleted},
		{"no node", kubetest.Unscheduled, instance.EndFailed},
		{"no image", noImage, instance.EndFailed},
		{"mangled", mangled, ""},
		{"mangled and completed", kubetest.All(kubetest.Completed, mangled), instance.EndCompleted},
		{"without activity", kubetest.WithoutAnnotation(instance.LastActivityAnnotation), ""},
		{"used in the far future", kubetest.LastUsed(at(72 * time.Hour)), ""},
		{"of another manager", kubetest.WithLabel(instance.ManagedByLabel, "somebody-else"), ""},
		{"warm", kubetest.WithLabel(instance.PoolLabel, "warm"), ""},
	}
	repaired := map[string]bool{"mangled": true, "without activity": true, "used in the far future": true}
	pods := map[string]*corev1.Pod{}
	for n, row := range rows {
		pods[row.name] = s.createPod(t, kubetest.ID(n), row.change)
	}
	for n, row := range rows {
		if instance.IsInstance(pods[row.name]) && pods[row.name].Labels[instance.ManagedByLabel] == instance.ManagerName {
			r.awaitPod(t, s, kubetest.ID(n))
		}
	}
	culler.sweep(t.Context(), clock.now())
	for n, row := range rows {
		id := kubetest.ID(n)
		if row.reason != "" {
			s.wantGone(t, id, row.reason)
			continue
		}
		pod := s.wantAlive(t, id, pods[row.name].UID)
		last, err := instance.LastActivity(pod)
		switch {
		case repaired[row.name] && (err != nil || !last.Equal(clock.now())):
			t.Errorf("%s: the activity is %s, %v; want now", row.name, last, err)
		case !repaired[row.name] && pod.ResourceVersion != pods[row.name].ResourceVersion:
			t.Errorf("%s: the pod was changed", row.name)
		}
	}
	wantCounts(t, r.metrics, map[instance.EndReason]float64{instance.EndCulled: 2, instance.EndFailed: 3, instance.EndCompleted: 2}, 0, 3)

	// An instance whose time was fixed lives as if it had been used then.
	fixed := kubetest.ID(9)
	r.awaitPod(t, s, fixed)
	over := clock.now().Add(time.Hour + lifetime.Rules{}.Lag(time.Hour))
	clock.set(over.Add(-time.Millisecond))
	culler.sweep(t.Context(), clock.now())
	s.wantAlive(t, fixed, pods["mangled"].UID)
	clock.set(over)
	culler.sweep(t.Context(), clock.now())
	s.wantGone(t, fixed, instance.EndCulled)
}

// Two replicas both lead, judge at the same time, and delete what they judged. In between,
// some instances are used and one is replaced by a pod of the same name.
func TestIntegrationTwoCullersAtOnce(t *testing.T) {
	t.Parallel()
	const (
		idle  = 3
		used  = 4
		other = idle + used
		all   = kube.Writers // deletes at the same time
	)
	s := newSandbox(t, nil)
	began := time.Now().Truncate(time.Millisecond)
	now := began.Add(2 * time.Hour)
	pods := make([]*corev1.Pod, all)
	for n := range pods {
		pods[n] = s.createPod(t, kubetest.ID(n))
	}
	replicas, gates := s.startReplicas(t, func(int) func() time.Time { return kubetest.ClockAt(now) }, http.MethodDelete, "/pods/")
	var cullers []*Culler
	for _, r := range replicas {
		cullers = append(cullers, r.culler(t, time.Second, kubetest.NoLog()))
	}
	var sweeping sync.WaitGroup
	for _, culler := range cullers {
		sweeping.Go(func() { culler.sweep(t.Context(), now) })
	}
	for _, g := range gates {
		g.awaitHeld(t, all)
	}
	for n := idle; n < other; n++ {
		s.touch(t, kubetest.ID(n), now)
	}
	s.deletePod(t, kubetest.ID(other))
	pods[other] = s.createPod(t, kubetest.ID(other), kubetest.LastUsed(now))
	for _, g := range gates {
		g.open()
	}
	sweeping.Wait()

	wantEnds := func() {
		t.Helper()
		for n, pod := range pods {
			if n < idle {
				s.wantGone(t, kubetest.ID(n), instance.EndCulled)
			} else {
				s.wantAlive(t, kubetest.ID(n), pod.UID)
			}
		}
	}
	wantEnds()
	deletes := func(code int) int {
		return replicas[0].traffic.count(http.MethodDelete, "/pods/", code) + replicas[1].traffic.count(http.MethodDelete, "/pods/", code)
	}
	wantEqual(t, "successful deletes", deletes(http.StatusOK), idle)
	// The later replica finds no pod, or meets a conflict.
	wantEqual(t, "refused deletes", deletes(http.StatusNotFound)+deletes(http.StatusConflict), 2*all-idle)
	for _, r := range replicas {
		wantEqual(t, "failed deletes", metric(t, r.metrics, "binder_cull_errors_total"), 0)
	}

	// Once the replicas have seen the changes, they delete nothing.
	s.awaitPods(t, replicas, len(pods))
	before := deletes(0)
	for _, culler := range cullers {
		culler.sweep(t.Context(), now)
	}
	wantEqual(t, "more deletes", deletes(0)-before, 0)
	wantEnds()
}

// Two leaders see each other's deletes and those of others. Each tombstone has the true
// reason.
func TestIntegrationCullersRememberWhy(t *testing.T) {
	t.Parallel()
	const culled = 6
	s := newSandbox(t, nil)
	began := time.Now()
	var ahead atomic.Int64 // of the clock
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	for n := range culled {
		// After the clock is set below, the culler holds deletes back for the lag of the
		// timeout.
		s.createPod(t, kubetest.ID(n), kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "1ms"))
	}
	const outside = culled
	s.createPod(t, kubetest.ID(outside), kubetest.LastUsed(began.Add(2*time.Hour)))
	for range 2 {
		r := s.startReplica(t, now)
		culler := testCuller{r.culler(t, time.Second, kubetest.NoLog()), r.metrics, nil, &atomic.Bool{}}
		noError(t, registerCollectors(r.metrics, r.Cache, culler.Culler))
		r.awaitPod(t, s, kubetest.ID(outside))
		culler.startLeading(t)
		kubetest.Eventually(t, "the culler leads", func() bool { return metric(t, r.metrics, "binder_deletes_held") == 1 })
	}
	s.deletePod(t, kubetest.ID(outside))
	ahead.Store(int64(2 * time.Hour))
	for n := range culled {
		eventuallyWithin(t, kubetest.Patience, "an idle instance is deleted", func() bool { _, exists := s.pod(t, kubetest.ID(n)); return !exists })
	}
	eventuallyWithin(t, kubetest.Patience, "the delete by others is remembered", func() bool {
		_, exists := s.tombstone(t, kubetest.ID(outside))
		return exists
	})
	s.wantGone(t, kubetest.ID(outside), instance.EndGone)
	// A third replica, to which they are deletes by others, does not replace the reasons.
	for n := range culled {
		event, _ := s.tombstone(t, kubetest.ID(n))
		late := kubetest.Pod(kubetest.ID(n), began)
		late.UID = event.InvolvedObject.UID
		s.remember(t, late, instance.End{Reason: instance.EndGone, Message: "deleted from outside"})
		s.wantGone(t, kubetest.ID(n), instance.EndCulled)
	}
}
