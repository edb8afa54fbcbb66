package main

import (
	"context"
	"sync"
	"time"

	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// contactGap is how long a leader may write nothing to its Lease, which it does
// every retryPeriod, before it counts as cut off from the API server.
const contactGap = 2 * retryPeriod

// contact remembers when a leader was last cut off from the API server, also for
// too short a time to lose the lead. Its zero value is ready to use.
type contact struct {
	mu       sync.Mutex
	written  time.Time // the last write of the Lease
	regained time.Time // the end of the last gap; zero if there was none
}

// note notes that the Lease was written.
func (c *contact) note(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.written.IsZero() && now.Sub(c.written) > contactGap {
		c.regained = now
	}
	c.written = now
}

// cutOffUntil is when the leader was last cut off: now, if it is; zero if it
// never was, or does not stand for election.
func (c *contact) cutOffUntil(now time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.written.IsZero() && now.Sub(c.written) > contactGap {
		return now
	}
	return c.regained
}

// notedLock is a lock that tells of each write of its Lease.
type notedLock struct {
	resourcelock.Interface
	written func()
}

func (l notedLock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.tell(l.Interface.Create(ctx, record))
}

func (l notedLock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.tell(l.Interface.Update(ctx, record))
}

func (l notedLock) tell(err error) error {
	if err == nil {
		l.written()
	}
	return err
}
