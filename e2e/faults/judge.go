package faults

import (
	"fmt"
	"slices"
	"time"
)

// Bounds are what the service promises about ends, as it runs in the suite.
type Bounds struct {
	MinTimeout   time.Duration // --min-cull-timeout
	StartTimeout time.Duration // --start-timeout
	Retention    time.Duration // how long a failed instance is kept
	Settle       time.Duration // the longest hold of deletes once all is well
	Removal      time.Duration // from the end of the term until the service deletes the pod, on a busy machine
	Grace        time.Duration // from then on until the node has ended it
	// Renews says that times on pods may have been wrong until all was well. The service
	// replaces those by now, so an instance that is not used lives for its timeout again.
	Renews bool
}

// lag is what the written time of a use can trail the use: docs/activity.md has the rule.
func (b Bounds) lag(timeout time.Duration) time.Duration {
	return max(timeout, b.MinTimeout)/12 + 2*time.Second
}

// due returns when the pod of an instance must be deleted at the latest, if all is well since
// a time. ok is false for one that the load still uses.
func (b Bounds) due(e Entry, well time.Time) (due time.Time, ok bool) {
	switch {
	case e.Plan == Used && e.Left.IsZero():
		return time.Time{}, false
	case e.Plan == Stopped && !e.Left.IsZero():
		return later(e.Left, well).Add(b.Removal), true
	}
	idle := later(e.LastUse, e.Deployed)
	if e.Deployed.IsZero() {
		idle = idle.Add(b.StartTimeout + b.Retention)
	}
	hold := min(b.Settle, b.lag(e.Timeout))
	if b.Renews {
		idle = later(idle, well.Add(hold))
	}
	return later(idle.Add(e.Timeout+b.lag(e.Timeout)), well.Add(hold)).Add(b.Removal), true
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Findings are how many instances met which fate, with a sentence for each problem.
type Findings struct {
	Lost       int // launched, but nothing is known of them
	Duplicated int // ids with two pods, or given twice
	Early      int // ended although they were used within their timeout
	Never      int // not gone in time
	Other      int // statuses that went back, answers that did not agree, and the like
	Problems   []string
}

// Alive returns how many instances of the ledger have a pod that nobody has deleted.
func (l *Ledger) Alive() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	alive := 0
	for _, pod := range l.pods {
		if pod.Deleted.IsZero() && l.entries[pod.ID] != nil {
			alive++
		}
	}
	return alive
}

// Waiting returns until when one of the pods that were there when all was well again must be gone;
// zero if none must. What is launched while one waits is not waited for.
func (l *Ledger) Waiting(b Bounds, well time.Time) (until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, pod := range l.pods {
		if due, ends := l.due(b, pod, well); ends && pod.Gone.IsZero() && !pod.Seen.After(well) {
			until = later(until, b.gone(pod, due, well))
		}
	}
	return until
}

// gone returns when a pod must be gone that must be deleted when it is due.
func (b Bounds) gone(pod *Pod, due, well time.Time) time.Time {
	if pod.Deleted.IsZero() {
		return due
	}
	return later(pod.Deleted, well).Add(b.Grace)
}

// orNow is when something was, or now if it was not yet.
func orNow(when, now time.Time) time.Time {
	if when.IsZero() {
		return now
	}
	return when
}

// due is Bounds.due for a pod. The lock must be held.
//
// An instance whose launch was not answered must end, too: it counts as launched when its pod
// was first seen.
func (l *Ledger) due(b Bounds, pod *Pod, well time.Time) (due time.Time, ends bool) {
	entry := Entry{ID: pod.ID, Plan: Idle, Timeout: pod.Timeout, LastUse: pod.Seen}
	if known := l.entries[pod.ID]; known != nil {
		entry = *known
	}
	if entry.Edited { // whoever edits it sees to its end
		return time.Time{}, false
	}
	return b.due(entry, well)
}

// Judge compares what the load knows with what became of the pods until now, if all is well since
// a time. endsAllowed says that the fault itself may end instances, as a drained node does. The
// problems that it tells are forgotten.
func (l *Ledger) Judge(b Bounds, well, now time.Time, endsAllowed bool) Findings {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := Findings{Problems: l.problems, Other: len(l.problems)}
	l.problems = nil
	for _, pod := range l.pods {
		due, ends := l.due(b, pod, well)
		switch {
		case !ends || pod.Seen.After(well):
		case orNow(pod.Deleted, now).After(due):
			f.Never++
			f.Problems = append(f.Problems, fmt.Sprintf("%s has not ended by %s", l.describe(pod.ID), due.Format(time.TimeOnly)))
		case orNow(pod.Gone, now).After(b.gone(pod, due, well)):
			f.Never++
			f.Problems = append(f.Problems, fmt.Sprintf("%s was deleted at %s, and its pod is still there", l.describe(pod.ID), pod.Deleted.Format(time.TimeOnly)))
		}
	}
	podOf := map[string][]*Pod{}
	for _, pod := range l.pods {
		podOf[pod.ID] = append(podOf[pod.ID], pod)
	}
	for id, entry := range l.entries {
		pods := podOf[id]
		switch {
		case entry.Edited: // whoever edits it sees to its end
		case len(pods) == 0 && entry.Launched.After(well): // its pod may not have been seen yet
		case len(pods) == 0:
			f.Lost++
			f.Problems = append(f.Problems, fmt.Sprintf("%s was launched, and no pod has its id", l.describe(id)))
		case len(pods) > 1:
			f.Duplicated++
			f.Problems = append(f.Problems, fmt.Sprintf("%s has had %d pods", l.describe(id), len(pods)))
		case endedEarly(*entry, *pods[0]) && !endsAllowed:
			f.Early++
			_, inTime := entry.protected()
			f.Problems = append(f.Problems, fmt.Sprintf("%s was deleted at %s, its last use in time was at %s", l.describe(id),
				pods[0].Deleted.Format(time.TimeOnly), inTime.Format(time.TimeOnly+".000")))
		}
	}
	slices.Sort(f.Problems)
	return f
}

func (l *Ledger) describe(id string) string {
	entry := l.entries[id]
	if entry == nil {
		return id + ", whose launch was not answered,"
	}
	told := "nothing"
	if !entry.Told.IsZero() {
		told = fmt.Sprintf("%s at %s", entry.TellsEnd, entry.Told.Format(time.TimeOnly))
	}
	return fmt.Sprintf("%s (%s, timeout %s, launched at %s, told of its end: %s)", id, entry.Plan, entry.Timeout,
		entry.Launched.Format(time.TimeOnly), told)
}

// endedEarly reports whether a pod was deleted within the timeout after the last use that
// succeeded, and not because the load stopped it. Kubernetes writes the time of a deletion in
// whole seconds.
func endedEarly(e Entry, pod Pod) bool {
	if pod.Deleted.IsZero() {
		return false
	}
	deleted := pod.Deleted.Add(time.Second)
	if !e.Asked.IsZero() && !deleted.Before(e.Asked) {
		return false
	}
	until, _ := e.protected()
	return deleted.Before(until)
}
