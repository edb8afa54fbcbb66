package faults

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// Plan is what the load does with an instance, and so how the instance must end.
type Plan string

const (
	Used    Plan = "used"    // used all the time: lives until the load leaves it
	Idle    Plan = "idle"    // not used once it is deployed: culled
	Stopped Plan = "stopped" // stopped through the API
)

// Entry is what the load knows of one instance by itself.
type Entry struct {
	ID, Template string
	Plan         Plan
	Timeout      time.Duration // its cull timeout
	Launched     time.Time     // before the launch was sent
	LastUse      time.Time     // when the last use that succeeded was sent; at first, Launched
	Uses         []span        // the uses that succeeded, by when they were sent
	Deployed     time.Time     // when that was first seen; zero if it was not
	Ready        time.Time     // since when its pod was Ready for the first time, to the second; zero if it was not
	Asked        time.Time     // when the load first asked for its end; zero before. The answer may yet come
	Left         time.Time     // when the load stopped to use it, or was told that it is stopped; zero before
	Told         time.Time     // when the service first said that it has ended; zero if it has not
	TellsEnd     string        // the reason that the service gives
	Restarts     bool          // whether it may stop being Ready because of the fault, and so be deploying again
	// Edited says that somebody has changed its pod by hand: it may end, or be hidden, at any
	// time. Unwanted says that the load must stop using it.
	Edited, Unwanted bool
}

func (e *Entry) copied() Entry {
	c := *e
	c.Uses = slices.Clone(e.Uses)
	return c
}

// span is a series of uses, of which each is less than a timeout after the one before.
type span struct{ first, last time.Time }

// used notes a use.
func (e *Entry) used(sent time.Time) {
	e.LastUse = later(e.LastUse, sent)
	if n := len(e.Uses); n > 0 && sent.Sub(e.Uses[n-1].last) < e.Timeout {
		e.Uses[n-1].last = later(e.Uses[n-1].last, sent)
	} else {
		e.Uses = append(e.Uses, span{sent, sent})
	}
}

// protected returns until when an instance must not be culled, and the last use that counts for
// that: one that was idle for its timeout can be deleted at any moment, even while it is being used
// again. The timeout runs from when its pod was Ready, which the load can see late; or from the end
// of the start timeout, if that was earlier: docs/activity.md says so.
func (e *Entry) protected() (until, lastInTime time.Time) {
	usable := e.Deployed
	if ready := e.Ready; !ready.IsZero() && (ready.Before(usable) || usable.IsZero()) {
		usable = ready
	}
	if latest := e.Launched.Add(harness.StartTimeout); usable.After(latest) {
		usable = latest
	}
	lastInTime = e.Launched
	until = later(lastInTime, usable).Add(e.Timeout)
	for _, uses := range e.Uses {
		if uses.first.Before(until) {
			lastInTime = uses.last
			until = later(until, lastInTime.Add(e.Timeout))
		}
	}
	return until, lastInTime
}

// Pod is what the API server says of an instance's pod, from outside the service.
type Pod struct {
	UID, ID string
	Timeout time.Duration // its cull timeout
	Seen    time.Time     // when it was first seen
	Ready   time.Time     // since when it was Ready for the first time, to the second; zero if it was not
	Deleted time.Time     // when its deletion was asked for, to the second; zero if it was not
	Gone    time.Time     // when the API server had no such pod any more; zero if it has
	Warm    bool          // it waited in the pool before
}

// Ledger is what the load did, and what it was answered. It can be used by several goroutines
// at the same time.
type Ledger struct {
	mu       sync.Mutex
	entries  map[string]*Entry
	pods     map[string]*Pod // by UID
	ranks    map[string]rank // by replica and id
	counts   Counts
	problems []string
	excused  []string // reasons for which launches may fail
	claimed  int      // warm pods that have become instances
}

// rank is how far an instance was, as a replica told.
type rank struct {
	status string
	at     time.Time
}

// NewLedger returns an empty Ledger.
func NewLedger() *Ledger {
	return &Ledger{entries: map[string]*Entry{}, pods: map[string]*Pod{}, ranks: map[string]rank{}}
}

// Launched notes a launch that was answered with an id.
func (l *Ledger) Launched(entry Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.entries[entry.ID]; known {
		l.complain("the id of %s was given twice", entry.ID)
		return
	}
	entry.LastUse = entry.Launched
	for _, pod := range l.pods {
		if pod.ID == entry.ID {
			entry.Ready = pod.Ready
		}
	}
	l.entries[entry.ID] = &entry
}

// Change changes what is known of an instance.
func (l *Ledger) Change(id string, change func(*Entry)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if entry := l.entries[id]; entry != nil {
		change(entry)
	}
}

// Entry returns a copy of what is known of an instance, which is nothing if it was not launched.
func (l *Ledger) Entry(id string) (entry Entry) {
	l.Change(id, func(e *Entry) { entry = e.copied() })
	return entry
}

// Knows reports whether an instance was launched, and not forgotten since.
func (l *Ledger) Knows(id string) bool { return l.Entry(id).ID != "" }

// UsedAt notes that a use which was sent at a time succeeded.
func (l *Ledger) UsedAt(id string, sent time.Time) {
	l.Change(id, func(e *Entry) { e.used(sent) })
}

// Entries returns copies of all entries, the oldest first.
func (l *Ledger) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	entries := make([]Entry, 0, len(l.entries))
	for _, entry := range l.entries {
		entries = append(entries, entry.copied())
	}
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Or(a.Launched.Compare(b.Launched), strings.Compare(a.ID, b.ID)) })
	return entries
}

// Excuse lets launches fail for one of these reasons, because of the fault of this round.
func (l *Ledger) Excuse(reasons ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.excused = append(l.excused, reasons...)
}

// Excused reports whether launches may fail for a reason.
func (l *Ledger) Excused(reason string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.excused, reason)
}

// Forget drops what was excused in a round before, and instances whose pods are gone: they were
// judged in it.
func (l *Ledger) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.excused = nil
	for _, entry := range l.entries {
		entry.Restarts = false
	}
	for uid, pod := range l.pods {
		if !pod.Gone.IsZero() {
			delete(l.pods, uid)
			delete(l.entries, pod.ID)
		}
	}
	for key := range l.ranks {
		if _, id, _ := strings.Cut(key, " "); l.entries[id] == nil {
			delete(l.ranks, key)
		}
	}
}

// SawPod notes what the API server says of a pod. gone says that it has no such pod any more.
func (l *Ledger) SawPod(said Pod, gone bool, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	pod := l.pods[said.UID]
	if pod == nil {
		for _, other := range l.pods {
			if other.ID == said.ID && other.Gone.IsZero() {
				l.complain("two pods have the id of %s: %s and %s", said.ID, other.UID, said.UID)
			}
		}
		pod = &Pod{UID: said.UID, ID: said.ID, Timeout: said.Timeout, Seen: now, Warm: said.Warm}
		l.pods[said.UID] = pod
		if pod.Warm {
			l.claimed++
		}
	}
	if pod.Ready.IsZero() {
		pod.Ready = said.Ready
		if entry := l.entries[pod.ID]; entry != nil {
			entry.Ready = said.Ready
		}
	}
	if pod.Deleted.IsZero() {
		pod.Deleted = said.Deleted
	}
	if gone && pod.Gone.IsZero() {
		pod.Gone = now
		if pod.Deleted.IsZero() {
			pod.Deleted = now
		}
	}
}

// Saw reports whether a pod was seen, by its UID.
func (l *Ledger) Saw(uid string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pods[uid] != nil
}

// Claimed returns how many warm pods have become instances so far.
func (l *Ledger) Claimed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.claimed
}

// Deleted returns when the pod of an instance was deleted; zero if it was not.
func (l *Ledger) Deleted(id string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, pod := range l.pods {
		if pod.ID == id {
			return pod.Deleted
		}
	}
	return time.Time{}
}

// order is the order of statuses. A failed instance whose pod becomes Ready again is deployed
// again: docs/activity.md says when.
var order = []string{"pending", "deploying", "deployed", "failed", "deleted"}

// SawStatus notes what a replica says of an instance, and reports whether that is a step back.
func (l *Ledger) SawStatus(replica, id, status, reason string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := replica + " " + id
	before, entry := l.ranks[key], l.entries[id]
	restarts := entry != nil && entry.Restarts && before.status == "deployed" && status == "deploying"
	back := slices.Index(order, status) < slices.Index(order, before.status) && (before.status != "failed" || status != "deployed")
	if back && !restarts && (entry == nil || !entry.Edited) {
		l.complain("%s went from %s to %s at %s", id, before.status, status, replica)
	}
	l.ranks[key] = rank{status, now}
	switch {
	case entry == nil:
	case status == "deployed" && entry.Deployed.IsZero():
		entry.Deployed = now
	case status == "deleted" && entry.Told.IsZero():
		entry.Told, entry.TellsEnd = now, reason
	}
}

// Complain notes something that must not be.
func (l *Ledger) Complain(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.complain(format, args...)
}

func (l *Ledger) complain(format string, args ...any) {
	l.problems = append(l.problems, fmt.Sprintf(format, args...))
}
