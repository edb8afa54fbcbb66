//go:build integration

package main

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/activity"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// movingClock is a clock that a test sets.
type movingClock struct{ at atomic.Pointer[time.Time] }

func (c *movingClock) set(at time.Time) { c.at.Store(&at) }
func (c *movingClock) now() time.Time   { return *c.at.Load() }

// flushAll lets several replicas write their activity at the same time.
func flushAll(ctx context.Context, trackers []*activity.Tracker) {
	var flushing sync.WaitGroup
	for _, tracker := range trackers {
		flushing.Go(func() { tracker.Flush(ctx) })
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
	var trackers []*activity.Tracker
	var gates []*gate
	for _, clock := range clocks {
		clock.set(began)
		g := newGate(http.MethodPatch, "/pods/")
		r := s.startReplica(t, clock.now, g.wrap)
		replicas, trackers, gates = append(replicas, r), append(trackers, r.tracker()), append(gates, g)
	}
	// Of every other instance, the first replica knows the later use.
	later := began.Add(20 * time.Second)
	for n := range pods {
		clocks[n%2].set(later)
		clocks[1-n%2].set(began.Add(10 * time.Second))
		for _, tracker := range trackers {
			tracker.Touch(kubetest.ID(n), instance.SourceHTTP)
		}
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		flushAll(t.Context(), trackers)
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
	// A replica that is refused decides anew, and may write once more.
	if codes[http.StatusOK] < pods || codes[http.StatusConflict] < pods {
		t.Fatalf("%d writes were taken and %d were conflicts, want at least %d each", codes[http.StatusOK], codes[http.StatusConflict], pods)
	}
	for n := range pods {
		for _, r := range replicas {
			r.awaitPod(t, s, kubetest.ID(n))
		}
	}
	flushAll(t.Context(), trackers)
	for n := range pods {
		pod, _ := s.pod(t, kubetest.ID(n))
		if at, err := instance.LastActivity(pod); err != nil || !at.Equal(later) {
			t.Errorf("instance %d: the activity is %s, %v; want the later %s", n, at, err, later)
		}
	}
}
