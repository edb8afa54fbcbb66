package faults

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
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
	InTime       time.Time     // when the last use was sent until which no pause was as long as Timeout
	Deployed     time.Time     // when that was first seen; zero if it was not
	Left         time.Time     // when the load stopped to use it, or was told that it is stopped; zero before
	Told         time.Time     // when the service first said that it has ended; zero if it has not
	TellsEnd     string        // the reason that the service gives
}

// protectedUntil returns until when an instance must not be culled.
func (e *Entry) protectedUntil() time.Time { return later(e.InTime, e.Deployed).Add(e.Timeout) }

// Pod is what the API server says of an instance's pod, from outside the service.
type Pod struct {
	UID, ID string
	Seen    time.Time // when it was first seen
	Deleted time.Time // when its deletion was asked for, to the second; zero if it was not
	Gone    time.Time // when the API server had no such pod any more; zero if it has
}

// Ledger is what the load did, and what it was answered. It can be used by several goroutines
// at the same time.
type Ledger struct {
	mu       sync.Mutex
	entries  map[string]*Entry
	pods     map[string]*Pod // by UID
	ranks    map[string]rank // by replica and id
	counts   map[Kind]*count
	problems []string
}

// rank is how far an instance was, as a replica told.
type rank struct {
	status string
	at     time.Time
}

// Kind is a kind of request.
type Kind string

const (
	Launches   Kind = "launch"
	Polls      Kind = "poll" // status and list
	Stops      Kind = "stop"
	Pages      Kind = "page"
	Uploads    Kind = "upload"
	Downloads  Kind = "download"
	WebSockets Kind = "websocket" // messages that were echoed
)

// Kinds lists every Kind, in the order of the report.
func Kinds() []Kind { return []Kind{Launches, Polls, Stops, Pages, Uploads, Downloads, WebSockets} }

// count is how many requests of a kind were sent, and why some failed.
type count struct {
	sent   int
	failed map[string]int
}

// NewLedger returns an empty Ledger.
func NewLedger() *Ledger {
	return &Ledger{entries: map[string]*Entry{}, pods: map[string]*Pod{}, ranks: map[string]rank{}, counts: map[Kind]*count{}}
}

// Count notes a request, and how it failed. failure is "" if it did not.
func (l *Ledger) Count(kind Kind, failure string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.counts[kind]
	if c == nil {
		c = &count{failed: map[string]int{}}
		l.counts[kind] = c
	}
	c.sent++
	if failure != "" {
		c.failed[failure]++
	}
}

// TakeCounts returns the requests since the last call, and what failed of them.
func (l *Ledger) TakeCounts() (sent, failed int, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var reasons []string
	for _, kind := range Kinds() {
		c := l.counts[kind]
		if c == nil {
			continue
		}
		sent += c.sent
		for reason, n := range c.failed {
			failed += n
			reasons = append(reasons, fmt.Sprintf("%d %s: %s", n, kind, reason))
		}
	}
	l.counts = map[Kind]*count{}
	slices.Sort(reasons)
	return sent, failed, strings.Join(reasons, "; ")
}

// Launched notes a launch that was answered with an id.
func (l *Ledger) Launched(entry Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.entries[entry.ID]; known {
		l.complain("the id of %s was given twice", entry.ID)
		return
	}
	entry.LastUse, entry.InTime = entry.Launched, entry.Launched
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

// UsedAt notes that a use which was sent at a time succeeded.
func (l *Ledger) UsedAt(id string, sent time.Time) {
	l.Change(id, func(e *Entry) {
		e.LastUse = later(e.LastUse, sent)
		// An instance that was idle for its timeout can be deleted at any moment, even while it
		// is being used again.
		if sent.Before(e.protectedUntil()) {
			e.InTime = later(e.InTime, sent)
		}
	})
}

// Entries returns copies of all entries, the oldest first.
func (l *Ledger) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	entries := make([]Entry, 0, len(l.entries))
	for _, entry := range l.entries {
		entries = append(entries, *entry)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Or(a.Launched.Compare(b.Launched), strings.Compare(a.ID, b.ID)) })
	return entries
}

// Forget drops problems, and instances whose pods are gone: they were judged in a round before.
func (l *Ledger) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.problems = nil
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
func (l *Ledger) SawPod(uid, id string, deleted time.Time, gone bool, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	pod := l.pods[uid]
	if pod == nil {
		for _, other := range l.pods {
			if other.ID == id && other.Gone.IsZero() {
				l.complain("two pods have the id of %s: %s and %s", id, other.UID, uid)
			}
		}
		pod = &Pod{UID: uid, ID: id, Seen: now}
		l.pods[uid] = pod
	}
	if pod.Deleted.IsZero() {
		pod.Deleted = deleted
	}
	if gone && pod.Gone.IsZero() {
		pod.Gone = now
		if pod.Deleted.IsZero() {
			pod.Deleted = now
		}
	}
}

// order is the order of statuses. A failed instance whose pod becomes Ready again is deployed
// again: docs/activity.md says when.
var order = []string{"pending", "deploying", "deployed", "failed", "deleted"}

// SawStatus notes what a replica says of an instance, and reports whether that is a step back.
func (l *Ledger) SawStatus(replica, id, status, reason string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := replica + " " + id
	before := l.ranks[key]
	if slices.Index(order, status) < slices.Index(order, before.status) && (before.status != "failed" || status != "deployed") {
		l.complain("%s went from %s to %s at %s", id, before.status, status, replica)
	}
	l.ranks[key] = rank{status, now}
	entry := l.entries[id]
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
