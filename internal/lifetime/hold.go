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

// Cause says why deletes are held back, in words for logs.
type Cause string

// Label returns the cause as the value of a metric's label.
func (c Cause) Label() string {
	switch c {
	case CauseTermStarted:
		return "term_started"
	case CauseContactLost:
		return "contact_lost"
	case CauseClockStepped:
		return "clock_stepped"
	}
	return ""
}

// Causes lists every Cause.
func Causes() []Cause { return []Cause{CauseTermStarted, CauseContactLost, CauseClockStepped} }

// Why deletes are held back.
const (
	// CauseTermStarted is the start of a term. The last leader may have been cut off,
	// or all replicas may have been down.
	CauseTermStarted Cause = "this replica has begun to lead"
	// CauseContactLost is an API server that does not answer. Other replicas may be
	// cut off from it too.
	CauseContactLost Cause = "contact with the API server was lost"
	// CauseClockStepped is a step of the leader's clock. The times that replicas wrote
	// and its clock may disagree.
	CauseClockStepped Cause = "the wall clock was set, or the machine slept"
)

// Hold says when deletes of instances that may be in use are held back: from a Cause
// until SettleTime after it, and for as long as contact with the API server is lost. It
// is safe for concurrent use.
//
// All its times are of the monotonic clock, except for the wall times in Clocks.
type Hold struct {
	contactGap time.Duration

	mu      sync.Mutex
	since   time.Time // when the last cause was seen
	cause   Cause     // "" if there was none yet
	contact time.Time // when the API server was last reached; zero before the first time
	looked  Clocks    // at the last look
}

// NewHold returns a Hold that calls contact lost once the API server was not reached for
// longer than contactGap. Until the first term or contact, nothing is held.
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

// StartTerm begins a hold as this replica begins to lead.
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

// Covers reports whether the delete of an instance with this Lag is held back. One with
// a Lag shorter than SettleTime is held for its Lag only. In that time every use that
// is due is written, so waiting longer is useless.
func (h *Hold) Covers(lag time.Duration, now time.Time) bool {
	began, cause := h.State(now)
	return cause != "" && now.Sub(began) < lag
}

// State returns when the hold began and why. The cause is "" if nothing is held: there
// was no cause yet, or SettleTime has passed since.
func (h *Hold) State(now time.Time) (began time.Time, cause Cause) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.noticeLostContact(now)
	if h.cause == "" || now.Sub(h.since) >= SettleTime {
		return time.Time{}, ""
	}
	return h.since, h.cause
}

// noticeLostContact begins a hold now if contact is lost. It does so at each call, so
// the hold lasts until SettleTime after contact has returned. The lock must be held.
func (h *Hold) noticeLostContact(now time.Time) {
	if !h.contact.IsZero() && now.Sub(h.contact) > h.contactGap {
		h.since, h.cause = now, CauseContactLost
	}
}
