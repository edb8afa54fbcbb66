//go:build integration

package main

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
)

// wantGone checks that an instance's pod is no more, and why.
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
	t.Parallel()
	s := newSandbox(t, nil)
	began := time.Now().Truncate(time.Millisecond)
	at := func(after time.Duration) time.Time { return began.Add(after) }
	clock := &movingClock{}
	clock.set(at(2 * time.Hour))
	r := s.startReplica(t, clock.now)
	culler := r.culler(t)

	rows := []struct {
		name   string
		change func(*corev1.Pod)
		reason instance.EndReason // "" for what stays
	}{
		{"idle", func(*corev1.Pod) {}, instance.EndCulled},
		{"idle for its own timeout", kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "90m"), instance.EndCulled},
		{"used", kubetest.LastUsed(at(time.Hour + 30*time.Minute)), ""},
		{"used a moment ahead of our clock", kubetest.LastUsed(at(2*time.Hour + time.Second)), ""},
		{"has a day", kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "24h"), ""},
		{"broke down", kubetest.Broken, instance.EndFailed},
		{"completed", kubetest.Completed, instance.EndGone},
		{"got no node", kubetest.Unscheduled, instance.EndFailed},
		{"got no image", noImage, instance.EndFailed},
		{"mangled", kubetest.WithAnnotation(instance.LastActivityAnnotation, "yesterday"), ""},
		{"mangled and completed", func(pod *corev1.Pod) { kubetest.Completed(pod); pod.Annotations[instance.LastActivityAnnotation] = "" }, instance.EndGone},
		{"without activity", func(pod *corev1.Pod) { delete(pod.Annotations, instance.LastActivityAnnotation) }, ""},
		{"from the future", kubetest.LastUsed(at(72 * time.Hour)), ""},
		{"somebody else's", kubetest.WithLabel(instance.ManagedByLabel, "somebody-else"), ""},
		{"nobody's yet", kubetest.WithLabel(instance.PoolLabel, "warm"), ""},
	}
	repaired := map[string]bool{"mangled": true, "without activity": true, "from the future": true}
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
			t.Errorf("%s: the activity is %s, %v; want that it counts as now", row.name, last, err)
		case !repaired[row.name] && pod.ResourceVersion != pods[row.name].ResourceVersion:
			t.Errorf("%s: the pod was written to", row.name)
		}
	}
	for reason, want := range map[instance.EndReason]float64{instance.EndCulled: 2, instance.EndFailed: 3, instance.EndGone: 2, instance.EndStopped: 0} {
		if got := metric(t, r.metrics, "binder_culls_total", string(reason)); got != want {
			t.Errorf("counted are %v ends for %s, want %v", got, reason, want)
		}
	}
	if got := metric(t, r.metrics, "binder_activity_unreadable_total"); got != 3 {
		t.Errorf("counted are %v unreadable activities, want 3", got)
	}

	// What was mended lives for as long as if it had been used then, and is not
	// kept for ever.
	mangled := kubetest.ID(9)
	r.awaitPod(t, s, mangled)
	over := clock.now().Add(time.Hour + lifetime.Lag(time.Hour))
	clock.set(over.Add(-time.Millisecond))
	culler.sweep(t.Context(), clock.now())
	s.wantAlive(t, mangled, pods["mangled"].UID)
	clock.set(over)
	culler.sweep(t.Context(), clock.now())
	s.wantGone(t, mangled, instance.EndCulled)
}

// Two replicas believe that they lead, judge at the same time, and delete by what
// they saw then. In between some instances are used after all, and one makes
// place for another of its name.
func TestIntegrationTwoCullersAtOnce(t *testing.T) {
	t.Parallel()
	const (
		idle  = 3
		used  = 4
		other = idle + used
		all   = kube.Writers // so that none waits for another
	)
	s := newSandbox(t, nil)
	began := time.Now().Truncate(time.Millisecond)
	now := began.Add(2 * time.Hour)
	pods := make([]*corev1.Pod, all)
	for n := range pods {
		pods[n] = s.createPod(t, kubetest.ID(n))
	}
	var replicas []*replica
	var gates []*gate
	var cullers []*Culler
	var sweeping sync.WaitGroup
	for range 2 {
		g := newGate(http.MethodDelete, "/pods/")
		r := s.startReplica(t, kubetest.ClockAt(now), g.wrap)
		replicas, gates, cullers = append(replicas, r), append(gates, g), append(cullers, r.culler(t))
	}
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
	if got := deletes(http.StatusOK); got != idle {
		t.Errorf("%d deletes were taken, want %d", got, idle)
	}
	// Whoever comes second finds nothing, or a conflict if that is at the same time.
	if got, want := deletes(http.StatusNotFound)+deletes(http.StatusConflict), 2*all-idle; got != want {
		t.Errorf("%d deletes were refused, want %d", got, want)
	}
	for _, r := range replicas {
		if got := metric(t, r.metrics, "binder_cull_errors_total"); got != 0 {
			t.Errorf("counted are %v errors; that somebody was faster is none", got)
		}
	}

	// Once they have seen it, they do not even try.
	for n := range pods {
		for _, r := range replicas {
			r.awaitPod(t, s, kubetest.ID(n))
		}
	}
	before := deletes(0)
	for _, culler := range cullers {
		culler.sweep(t.Context(), now)
	}
	if got := deletes(0) - before; got != 0 {
		t.Errorf("%d deletes of what is in use", got)
	}
	wantEnds()
}

// Two that lead see each other's deletes, and those of others: every instance
// is remembered, once, and for what ended it.
func TestIntegrationCullersRememberWhy(t *testing.T) {
	t.Parallel()
	const culled = 6
	s := newSandbox(t, nil)
	began := time.Now()
	var ahead atomic.Int64 // of the real time: a clock that goes on
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var leading sync.WaitGroup
	defer leading.Wait()
	defer cancel()
	for n := range culled {
		// Of a short timeout, for after the jump of the clock below a culler waits
		// for as long as activity may take to be written.
		s.createPod(t, kubetest.ID(n), kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "1ms"))
	}
	const outside = culled
	s.createPod(t, kubetest.ID(outside), kubetest.LastUsed(began.Add(2*time.Hour)))
	for range 2 {
		r := s.startReplica(t, now)
		culler := r.culler(t)
		r.awaitPod(t, s, kubetest.ID(outside))
		leading.Go(func() { culler.Run(ctx) })
		kubetest.Eventually(t, "the culler leads", culler.leading.Load)
	}
	s.deletePod(t, kubetest.ID(outside))
	ahead.Store(int64(2 * time.Hour))
	for n := range culled {
		eventuallyWithin(t, kubetest.Patience, "an idle instance is deleted", func() bool { _, exists := s.pod(t, kubetest.ID(n)); return !exists })
	}
	eventuallyWithin(t, kubetest.Patience, "what was deleted from outside is remembered", func() bool {
		_, exists := s.tombstone(t, kubetest.ID(outside))
		return exists
	})
	s.wantGone(t, kubetest.ID(outside), instance.EndGone)
	// A third that knows nothing of this sees the deletes as somebody else's,
	// for certain.
	for n := range culled {
		event, _ := s.tombstone(t, kubetest.ID(n))
		late := kubetest.Pod(kubetest.ID(n), began)
		late.UID = event.InvolvedObject.UID
		if err := s.remover().Remember(t.Context(), late, "deleted from outside"); err != nil {
			t.Fatal(err)
		}
		s.wantGone(t, kubetest.ID(n), instance.EndCulled)
	}
}
