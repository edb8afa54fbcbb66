//go:build integration

package main

import (
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// After an outage the API server may be back a good while before the watches
// are. What a replica has written itself it then knows from the answer.
func TestIntegrationActivityIsWrittenWithoutTheWatch(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, nil)
	began := time.Now().Truncate(time.Millisecond)
	clock := &movingClock{}
	clock.set(began)
	id := kubetest.ID(1)
	s.createPod(t, id, kubetest.LastUsed(began))
	r := s.startReplica(t, clock.now)
	tracker := r.tracker()
	r.stop() // from here on the cache stands still

	for n := range 3 {
		used := began.Add(time.Duration(n+1) * lifetime.Period(time.Hour))
		clock.set(used)
		tracker.Touch(id, instance.SourceHTTP)
		tracker.Flush(t.Context())
		pod, _ := s.pod(t, id)
		if at, err := instance.LastActivity(pod); err != nil || !at.Equal(used) {
			t.Errorf("after write %d the activity is %s, %v; want %s", n+1, at, err, used)
		}
	}
	// Somebody else's later write still wins, and is not overwritten.
	later := clock.now().Add(time.Hour)
	s.touch(t, id, later)
	clock.set(clock.now().Add(2 * lifetime.Period(time.Hour)))
	tracker.Touch(id, instance.SourceHTTP)
	tracker.Flush(t.Context())
	pod, _ := s.pod(t, id)
	if at, err := instance.LastActivity(pod); err != nil || !at.Equal(later) {
		t.Errorf("the activity is %s, %v; want the other's later %s", at, err, later)
	}
}
