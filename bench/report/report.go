// Package report holds what a benchmark has found, and writes it as a table.
//
// It knows nothing of how a figure was measured.
package report

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Goal is the limit that a figure is held against. The zero value is no goal: the figure
// is only reported.
type Goal struct {
	Bound Bound
	Limit float64
	// Text is how the table words the goal, such as "≥ 0.90". Each is made by AtLeast or
	// AtMost.
	Text string
}

// Bound says on which side of a limit a figure must be.
type Bound int

// The bounds of a Goal.
const (
	None Bound = iota
	Lower
	Upper
)

// AtLeast is the goal of a figure that is good when it is large.
func AtLeast(limit float64, unit string) Goal {
	return Goal{Bound: Lower, Limit: limit, Text: strings.TrimSpace(fmt.Sprintf("≥ %g %s", limit, unit))}
}

// AtMost is the goal of a figure that is good when it is small.
func AtMost(limit float64, unit string) Goal {
	return Goal{Bound: Upper, Limit: limit, Text: strings.TrimSpace(fmt.Sprintf("≤ %g %s", limit, unit))}
}

// Line is one row of the table.
type Line struct {
	Metric string
	Ours   string // with its unit
	Peer   string // what it is compared with, and that figure with its unit; "" if nothing
	// Figure is what the goal is about: a ratio of ours to the peer's, or a figure of ours
	// in the goal's unit.
	Figure float64
	Low    float64 // the smallest figure of all rounds
	High   float64 // the largest
	Goal   Goal
	// Missed says why the goal is out of reach. It is printed only if it was missed.
	Missed string
	// Failed is why there are no figures. It is nil if there are.
	Failed error
}

// Because returns the line with the reason that is given if its goal is missed.
func (l Line) Because(reason string) Line {
	l.Missed = reason
	return l
}

// Met reports whether a figure is within its goal. A line without one has met it.
func (l Line) Met() bool {
	if l.Failed != nil {
		return false
	}
	switch l.Goal.Bound {
	case Lower:
		return l.Figure >= l.Goal.Limit
	case Upper:
		return l.Figure <= l.Goal.Limit
	}
	return true
}

// verdict is the last column of the table.
func (l Line) verdict() string {
	switch {
	case l.Failed != nil:
		return "not measured"
	case l.Goal.Bound == None:
		return "reported"
	case l.Met():
		return "met"
	}
	return "MISSED"
}

// figure is the column of figures: the median, and the range of all rounds if they differ.
func (l Line) figure() string {
	if l.Failed != nil {
		return ""
	}
	if l.Low == l.High {
		return number(l.Figure)
	}
	return fmt.Sprintf("%s (%s–%s)", number(l.Figure), number(l.Low), number(l.High))
}

func number(f float64) string {
	switch {
	case f >= 100 || f == float64(int64(f)):
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

// titles are the table's columns.
func titles() []string {
	return []string{"metric", "ours", "peer or limit", "figure (range of the rounds)", "goal", "verdict"}
}

// String is the line on its own.
func (l Line) String() string {
	text := l.Metric + ": " + l.Ours
	if l.Peer != "" {
		text += ", " + l.Peer
	}
	return text + ": " + l.figure() + "; goal " + cmp.Or(l.Goal.Text, "none") + ": " + l.verdict()
}

func (l Line) cells() []string {
	return []string{l.Metric, l.Ours, l.Peer, l.figure(), l.Goal.Text, l.verdict()}
}

// WriteText writes the table for a terminal.
func WriteText(w io.Writer, lines []Line) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, strings.Join(titles(), "\t"))
	for _, line := range lines {
		fmt.Fprintln(table, strings.Join(line.cells(), "\t"))
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	_, err := fmt.Fprintln(w, Summary(lines))
	return err
}

// WriteMarkdown writes the table, and why goals were missed.
func WriteMarkdown(w io.Writer, lines []Line) error {
	var text strings.Builder
	fmt.Fprintf(&text, "| %s |\n", strings.Join(titles(), " | "))
	text.WriteString(strings.Repeat("|---", len(titles())) + "|\n")
	for _, line := range lines {
		cells := line.cells()
		if !line.Met() {
			cells[len(cells)-1] = "**" + strings.ToLower(line.verdict()) + "**"
		}
		fmt.Fprintf(&text, "| %s |\n", strings.Join(cells, " | "))
	}
	fmt.Fprintf(&text, "\n%s\n", Summary(lines))
	for _, line := range lines {
		switch {
		case line.Failed != nil:
			fmt.Fprintf(&text, "\n- **%s**: %v\n", line.Metric, line.Failed)
		case !line.Met():
			fmt.Fprintf(&text, "\n- **%s**: %s\n", line.Metric, cmp.Or(line.Missed, "no reason is known: it was met when the row was written"))
		}
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// Summary counts the lines by their verdict.
func Summary(lines []Line) string {
	var met, missed, reported, failed int
	for _, line := range lines {
		switch {
		case line.Failed != nil:
			failed++
		case line.Goal.Bound == None:
			reported++
		case line.Met():
			met++
		default:
			missed++
		}
	}
	text := fmt.Sprintf("%d goals met, %d missed; %d figures without a goal", met, missed, reported)
	if failed > 0 {
		text += fmt.Sprintf("; %d rows not measured", failed)
	}
	return text
}
