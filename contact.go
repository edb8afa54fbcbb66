package main

import (
	"sync"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/leader"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
)

// contactGap is how long a leader may write nothing to its Lease, which it does
// every retryPeriod, before it counts as cut off from the API server.
const contactGap = 2 * leader.RetryPeriod

// outageAllowance is how long after the leader the other replicas may come to
// reach the API server again, and write what fell due meanwhile: a write that
// hangs is given up, and the next one done.
const outageAllowance = 2 * kube.WriteTimeout

// outage is a time in which a leader was cut off from the API server. Its zero
// value is none.
type outage struct{ from, until time.Time }

// wait is how long after an outage annotations may be further behind than they
// ever are, by the lag. It is no longer than the outage was, and some, so that
// nothing lives for ever where the API server is away for a moment now and then.
func (o outage) wait(lag time.Duration) time.Duration {
	return min(lag, o.until.Sub(o.from)+outageAllowance)
}

// contact remembers when a leader was last cut off from the API server, also for
// too short a time to lose the lead. Its zero value is ready to use.
type contact struct {
	mu      sync.Mutex
	written time.Time // the last write of the Lease
	last    outage
}

// note notes that the Lease was written.
func (c *contact) note(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = c.asOf(now)
	c.written = now
}

// lastOutage is when the leader was last cut off: until now, if it is; the zero
// outage if it never was, or does not stand for election.
func (c *contact) lastOutage(now time.Time) outage {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asOf(now)
}

// asOf is the last outage. What is left of the time to write after the one before
// is added to it.
func (c *contact) asOf(now time.Time) outage {
	if c.written.IsZero() || now.Sub(c.written) <= contactGap {
		return c.last
	}
	from := c.written
	if left := c.last.until.Sub(c.last.from) - from.Sub(c.last.until); left > 0 {
		from = from.Add(-left)
	}
	return outage{from, now}
}

// forget forgets the last outage: for who begins to lead, and waits anyway. That he
// wrote nothing while others led was none.
func (c *contact) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = outage{}
}
