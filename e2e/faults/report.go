package faults

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Line is a line of the report: what all rounds of a fault brought together.
type Line struct {
	Fault                         string
	Rounds                        int
	Held                          time.Duration // on average
	Counts                        Counts
	Instances                     []string // living ones before and after, of each round
	Lost, Duplicated, Early, Late int
	Other                         int // all other problems
	Closed, Cut                   int
	WellAfter                     time.Duration // the longest
}

// Add adds a round, and the problems that it had.
func (l *Line) Add(o Outcome, problems []string) {
	f := o.Findings
	l.Fault = o.Fault
	l.Held = (l.Held*time.Duration(l.Rounds) + o.Held) / time.Duration(l.Rounds+1)
	l.Rounds++
	l.Counts.Add(o.Counts)
	l.Instances = append(l.Instances, fmt.Sprintf("%d → %d", o.Before, o.After))
	l.Lost, l.Duplicated, l.Early, l.Late = l.Lost+f.Lost, l.Duplicated+f.Duplicated, l.Early+f.Early, l.Late+f.Never
	l.Other += max(0, len(problems)-f.Lost-f.Duplicated-f.Early-f.Never)
	l.Closed, l.Cut = l.Closed+o.Sockets.closed, l.Cut+len(o.Sockets.cut)
	l.WellAfter = max(l.WellAfter, o.WellAfter)
}

// reportHeader is the head of the report's table, as Markdown.
const reportHeader = `| fault | rounds | held | requests | failed | instances | lost | duplicated | ended early | never ended | other | WebSockets closed, cut | well after |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
`

// Write writes the line, as a row of the table.
func (l Line) Write(w io.Writer) error {
	_, err := fmt.Fprintf(w, "| %s | %d | %s | %d | %s | %s | %d | %d | %d | %d | %d | %d, %d | %s |\n", l.Fault, l.Rounds,
		l.Held.Round(100*time.Millisecond), l.Counts.Sent, l.Counts, strings.Join(l.Instances, ", "),
		l.Lost, l.Duplicated, l.Early, l.Late, l.Other, l.Closed, l.Cut, l.WellAfter.Round(100*time.Millisecond))
	return err
}
