package lifetime

import (
	"sync"
	"time"
)

const (
	// SettleTime is how long deletes are held back after one of the Causes. In that
	// time every replica that can reach the API server writes the uses that it could
	// not write before.
	SettleTime = 2 * time.Minute
	// clockStep is how far the wall clock may move against the monotonic clock
	// between two looks without being called a step. A clock that is slewed stays
	// below it.
	clockStep = time.Second
)

// Cause says why deletes are held back.
type Cause string

const (
	// CauseTermStarted: the last leader may have been cut off, or all replicas may
	// have been down.
	CauseTermStarted Cause = "this replica has begun to lead"
	// CauseContactLost: other replicas may be cut off from the API server as well.
	CauseContactLost Cause = "contact with the API server was lost"
	// CauseClockStepped: times that replicas wrote and the leader's clock disagree.
	CauseClockStepped Cause = "the wall clock was set, or the machine slept"
)

// Hold tells while deletes of instances that may be in use are held back. It holds
// them from a cause until SettleTime after it, and for as long as contact with the
// API server is lost. It is safe for concurrent use.
//
// All its times are of the monotonic clock, but for the wall times in Clocks.
type Hold struct {
	contactGap time.Duration

	mu      sync.Mutex
	since   time.Time // of the last cause; zero for none so far
	cause   Cause
	contact time.Time // when the API server was last reached
	looked  Clocks
}

// NewHold returns a Hold that calls contact lost when the API server was not
// reached for contactGap.
func NewHold(contactGap time.Duration) *Hold { return &Hold{contactGap: contactGap} }

// Clocks are both clocks at one moment: the wall clock, which times on pods are
// compared with and which can be set, and the monotonic clock, which only runs.
type Clocks struct{ Wall, Monotonic time.Time }

// steppedSince reports whether the wall clock was set since an earlier look, or
// the machine slept.
func (c Clocks) steppedSince(earlier Clocks) bool {
	byWall := c.Wall.Round(0).Sub(earlier.Wall.Round(0)) // Round strips the monotonic reading
	return (byWall - c.Monotonic.Sub(earlier.Monotonic)).Abs() > clockStep
}

// StartTerm begins a hold for a replica that has been elected.
func (h *Hold) StartTerm(now Clocks) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.since, h.cause = now.Monotonic, CauseTermStarted
	h.contact, h.looked = now.Monotonic, now
}

// Contact notes that the API server was reached.
func (h *Hold) Contact(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.noticeLostContact(now)
	h.contact = now
}

// Look compares the clocks with those at the last look, and begins a hold if the
// wall clock was set in between.
func (h *Hold) Look(now Clocks) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.steppedSince(h.looked) {
		h.since, h.cause = now.Monotonic, CauseClockStepped
	}
	h.looked = now
}

// Covers reports whether the delete of an instance with a Lag is held back. An
// instance is held for its own lag where that is shorter than SettleTime: its uses
// are written that often.
func (h *Hold) Covers(lag time.Duration, now time.Time) bool {
	began, cause := h.State(now)
	return cause != "" && now.Sub(began) < min(lag, SettleTime)
}

// State returns when the last hold began and why; the cause is "" if SettleTime
// has passed since.
func (h *Hold) State(now time.Time) (began time.Time, cause Cause) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.noticeLostContact(now)
	if h.cause == "" || now.Sub(h.since) >= SettleTime {
		return time.Time{}, ""
	}
	return h.since, h.cause
}

// noticeLostContact begins a hold now, again and again while contact is lost.
func (h *Hold) noticeLostContact(now time.Time) {
	if !h.contact.IsZero() && now.Sub(h.contact) > h.contactGap {
		h.since, h.cause = now, CauseContactLost
	}
}
