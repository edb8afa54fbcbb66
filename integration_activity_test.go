//go:build integration

package main

import (
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// movingClock is a clock that a test sets.
type movingClock struct{ at atomic.Pointer[time.Time] }

func (c *movingClock) set(at time.Time) { c.at.Store(&at) }
func (c *movingClock) now() time.Time   { return *c.at.Load() }

// atOnce is a period that makes every activity due.
func atOnce(time.Duration) time.Duration { return 0 }

// flushAll lets several replicas write their activity at the same time.
func flushAll(replicas []*Activity, flush func(*Activity)) {
	var flushing sync.WaitGroup
	for _, a := range replicas {
		flushing.Go(func() { flush(a) })
	}
	flushing.Wait()
}

// Two replicas write one instance's activity at the same moment. One of them is
// refused and decides anew: the later time stays, whichever came first.
func TestIntegrationActivityLaterTimeWins(t *testing.T) {
	t.Parallel()
	const pods = 8
	s := newSandbox(t, nil)
	began := time.Now().Truncate(time.Millisecond)
	for n := range pods {
		s.createPod(t, kubetest.ID(n), kubetest.LastUsed(began))
	}
	clocks := []*movingClock{{}, {}}
	var replicas []*replica
	var activities []*Activity
	var gates []*gate
	for _, clock := range clocks {
		clock.set(began)
		g := newGate(http.MethodPatch, "/pods/")
		r := s.startReplica(t, clock.now, g.wrap)
		replicas, activities, gates = append(replicas, r), append(activities, r.activity()), append(gates, g)
	}
	// Of every other instance, the first replica knows the later use.
	later := began.Add(20 * time.Second)
	for n := range pods {
		clocks[n%2].set(later)
		clocks[1-n%2].set(began.Add(10 * time.Second))
		for _, a := range activities {
			a.Touch(kubetest.ID(n), instance.SourceHTTP)
		}
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		flushAll(activities, func(a *Activity) { a.flush(t.Context(), atOnce, flushSpell) })
	}()
	for _, g := range gates { // both have decided before either has written
		g.awaitHeld(t, pods)
	}
	for _, g := range gates {
		g.open()
	}
	receive(t, written)
	codes := map[int]int{}
	for _, r := range replicas {
		for _, code := range []int{http.StatusOK, http.StatusConflict} {
			codes[code] += r.traffic.count(http.MethodPatch, "/pods/", code)
		}
	}
	if codes[http.StatusOK] != pods || codes[http.StatusConflict] != pods {
		t.Fatalf("%d writes were taken and %d were conflicts, want %d each", codes[http.StatusOK], codes[http.StatusConflict], pods)
	}
	for range 2 { // for who was refused to write anew, and then to see that it is written
		for n := range pods {
			for _, r := range replicas {
				r.awaitPod(t, s, kubetest.ID(n))
			}
		}
		flushAll(activities, func(a *Activity) { a.flush(t.Context(), atOnce, flushSpell) })
	}
	for n := range pods {
		pod, _ := s.pod(t, kubetest.ID(n))
		if at, err := instance.LastActivity(pod); err != nil || !at.Equal(later) {
			t.Errorf("instance %d: the activity is %s, %v; want the later %s", n, at, err, later)
		}
	}
	for i, a := range activities {
		if left := a.snapshot(); len(left) > 0 {
			t.Errorf("replica %d still has %v to write", i, left)
		}
	}
}

// However many requests and replicas, an instance's pod is written once a
// period: a twelfth of its timeout.
func TestIntegrationActivityIsCoalesced(t *testing.T) {
	t.Parallel()
	const (
		timeout = 12 * time.Minute
		period  = time.Minute
		span    = 20 * period // in the test's own time
		step    = 5 * time.Second
	)
	s := newSandbox(t, nil)
	began := time.Now().Truncate(time.Millisecond)
	clock := &movingClock{}
	clock.set(began)
	id := kubetest.ID(1)
	s.createPod(t, id, kubetest.LastUsed(began), kubetest.WithAnnotation(instance.CullTimeoutAnnotation, timeout.String()))
	replicas := []*replica{s.startReplica(t, clock.now), s.startReplica(t, clock.now)}
	activities := []*Activity{replicas[0].activity(), replicas[1].activity()}
	patches := func(code int) int {
		return replicas[0].traffic.count(http.MethodPatch, "/pods/", code) + replicas[1].traffic.count(http.MethodPatch, "/pods/", code)
	}

	var gaps []time.Duration
	last, tried := began, 0
	for now := began.Add(step); !now.After(began.Add(span)); now = now.Add(step) {
		clock.set(now)
		for range 3 {
			for _, a := range activities {
				a.Touch(id, instance.SourceHTTP)
			}
		}
		taken := patches(http.StatusOK)
		flushAll(activities, func(a *Activity) { a.flush(t.Context(), flushPeriod, flushSpell) })
		if patches(0) == tried {
			continue
		}
		tried = patches(0)
		if n := patches(http.StatusOK) - taken; n != 1 {
			t.Errorf("after %s: written %d times at once, want once", now.Sub(began), n)
		}
		gaps, last = append(gaps, now.Sub(last)), now
		for _, r := range replicas { // in real time, a watch takes less than a tick
			r.awaitPod(t, s, id)
		}
	}
	if most := int(span / period); len(gaps) > most || len(gaps) < most-1 {
		t.Errorf("written %d times in %s, want %d", len(gaps), span, most)
	}
	if short := slices.Min(gaps); short < period {
		t.Errorf("only %s between two writes, want at least %s", short, period)
	}
	// What counts for the culler is never older than it allows for.
	pod, _ := s.pod(t, id)
	if at, err := instance.LastActivity(pod); err != nil || clock.now().Sub(at) > flushLag(timeout) {
		t.Errorf("the activity is %s behind, %v; want at most %s", clock.now().Sub(at), err, flushLag(timeout))
	}
}
