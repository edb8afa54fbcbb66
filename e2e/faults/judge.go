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
	Removal      time.Duration // from the end of the term to the end of the pod, on a busy machine
}

// lag is what the written time of a use can trail the use: docs/activity.md has the rule.
func (b Bounds) lag(timeout time.Duration) time.Duration {
	return max(timeout, b.MinTimeout)/12 + 2*time.Second
}

// due returns when the pod of an instance must be gone at the latest, if all is well since
// then. ok is false for one that the load still uses.
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

// Waiting returns the ids of all pods that must end because of something before now, and by
// when the last of them must. What is launched while one waits is not waited for.
//
// An instance whose launch was not answered must end, too: it counts as launched when its pod
// was first seen, with the longest of the load's timeouts.
func (l *Ledger) Waiting(b Bounds, longest time.Duration, well, before time.Time) (ids []string, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, pod := range l.pods {
		if !pod.Gone.IsZero() || pod.Seen.After(before) {
			continue
		}
		entry := Entry{ID: pod.ID, Plan: Idle, Timeout: longest, LastUse: pod.Seen}
		if known := l.entries[pod.ID]; known != nil {
			entry = *known
		}
		if due, ends := b.due(entry, well); ends {
			ids, until = append(ids, pod.ID), later(until, due)
		}
	}
	slices.Sort(ids)
	return ids, until
}

// Judge compares what the load knows with what became of the pods. late are the ids that
// Waiting still names once their time is over. endsAllowed says that the fault itself may end
// instances, as a drained node does. The pods of what was launched before settled have been seen.
func (l *Ledger) Judge(late []string, endsAllowed bool, settled time.Time) Findings {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := Findings{Never: len(late), Problems: slices.Clone(l.problems)}
	for _, id := range late {
		f.Problems = append(f.Problems, fmt.Sprintf("%s has not ended in time", l.describe(id)))
	}
	podOf := map[string][]*Pod{}
	for _, pod := range l.pods {
		podOf[pod.ID] = append(podOf[pod.ID], pod)
	}
	for id, entry := range l.entries {
		pods := podOf[id]
		switch {
		case len(pods) == 0 && entry.Launched.After(settled):
		case len(pods) == 0:
			f.Lost++
			f.Problems = append(f.Problems, fmt.Sprintf("%s was launched, and no pod has its id", l.describe(id)))
		case len(pods) > 1:
			f.Duplicated++
		case endedEarly(*entry, *pods[0]) && !endsAllowed:
			f.Early++
			f.Problems = append(f.Problems, fmt.Sprintf("%s was deleted at %s, its last use in time was at %s", l.describe(id),
				pods[0].Deleted.Format(time.TimeOnly), entry.InTime.Format(time.TimeOnly+".000")))
		}
	}
	f.Other = len(l.problems)
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
	if e.Plan == Stopped && !e.Left.IsZero() && !deleted.Before(e.Left) {
		return false
	}
	return deleted.Before(e.protectedUntil())
}
