package faults

import (
	"fmt"
	"slices"
	"strings"
)

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

// Failure is how a request failed.
type Failure struct {
	Kind   Kind
	Reason string // such as a status code
}

// Counts are the requests that were sent, and those that failed.
type Counts struct {
	Sent     int
	Failed   map[Failure]int
	Examples map[Failure][]string // of each, a few
}

// mostExamples is of how many failures of a kind it is told which they were.
const mostExamples = 5

// Add adds others to the counts.
func (c *Counts) Add(others Counts) {
	c.Sent += others.Sent
	for failure, n := range others.Failed {
		if c.Failed == nil {
			c.Failed, c.Examples = map[Failure]int{}, map[Failure][]string{}
		}
		c.Failed[failure] += n
		all := append(c.Examples[failure], others.Examples[failure]...)
		c.Examples[failure] = all[:min(mostExamples, len(all))]
	}
}

// String says how many requests failed, and why.
func (c Counts) String() string {
	var reasons []string
	failed := 0
	for failure, n := range c.Failed {
		failed += n
		reasons = append(reasons, fmt.Sprintf("%d %s: %s", n, failure.Kind, failure.Reason))
	}
	if failed == 0 {
		return "0"
	}
	slices.Sort(reasons)
	return fmt.Sprintf("%d (%s)", failed, strings.Join(reasons, "; "))
}

// Count notes a request, and how it failed. failure is "" if it did not. which says of a failure
// when and of what.
func (l *Ledger) Count(kind Kind, failure, which string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.Add(Counts{Sent: 1})
	if failure != "" {
		f := Failure{kind, failure}
		l.counts.Add(Counts{Failed: map[Failure]int{f: 1}, Examples: map[Failure][]string{f: {which}}})
	}
}

// TakeCounts returns the requests since the last call.
func (l *Ledger) TakeCounts() (since Counts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	since, l.counts = l.counts, Counts{}
	return since
}
