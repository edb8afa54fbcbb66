package faults

import (
	"fmt"
	"io"
	"time"
)

// WriteHeader writes the head of the report's table, as Markdown.
func WriteHeader(w io.Writer) {
	fmt.Fprintln(w, "| fault | round | held | requests | failed | instances before, after | lost | duplicated | ended early | never ended | other | WebSockets closed, cut | well after |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|---|---|---|")
}

// Write writes one line of the report.
func (o Outcome) Write(w io.Writer) {
	failed := fmt.Sprint(o.Failed)
	if o.Why != "" {
		failed += " (" + o.Why + ")"
	}
	fmt.Fprintf(w, "| %s | %d | %s | %d | %s | %d, %d | %d | %d | %d | %d | %d | %d, %d | %s |\n", o.Fault, o.Round,
		o.Held.Round(100*time.Millisecond), o.Sent, failed, o.Before, o.After,
		o.Findings.Lost, o.Findings.Duplicated, o.Findings.Early, o.Findings.Never, o.Findings.Other,
		o.Closed, o.Cut, o.WellAfter.Round(100*time.Millisecond))
}
