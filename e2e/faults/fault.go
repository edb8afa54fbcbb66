// Package faults breaks things while the service is in use, and compares what clients have seen
// with what the service says. A Load launches, polls, visits, uploads and downloads, and notes
// in a Ledger what it was answered. A Fault breaks something, and mends it. Then the ledger is
// judged: nothing may be lost, be there twice, end early or never end.
//
// The package must know nothing of the service's code: it looks from outside.
package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// World is what faults are made in.
type World struct {
	Suite   *harness.Suite
	Cluster Cluster
	Between *Between
	Ledger  *Ledger
	Load    *Load
}

// Fault is something that breaks, and what the service promises all the same.
type Fault struct {
	Name string
	// Make breaks something, and returns how to mend it. A fault that mends itself, as a killed
	// process that is started again, has nothing to undo.
	Make func(ctx context.Context, w *World, random *rand.Rand) (undo func(context.Context) error, err error)
	// Hold is how long it stays broken; each round adds up to a second.
	Hold time.Duration
	// Within is how long it may take after that until all is well again.
	Within time.Duration
	// Harmless are the kinds of requests of which none may fail.
	Harmless []Kind
	// Ends says that the fault itself may end instances, as a drained node does.
	Ends bool
	// Cuts says that WebSockets may be cut without a close frame, as by a process that is killed.
	Cuts bool
	// Short says that the fault is part of the short form of the suite.
	Short bool
}

// All returns every fault.
func All() []Fault { return slices.Concat(replicaFaults(), apiServerFaults()) }

// Outcome is what one round of a fault brought.
type Outcome struct {
	Fault          string
	Round          int
	Held           time.Duration
	Sent, Failed   int
	Why            string // the failures, counted
	Before, After  int    // living instances
	Closed, Cut    int    // WebSockets, with and without a close frame
	WellAfter      time.Duration
	Findings       Findings
	Process        string // what grew in the service's processes
	RepeatedInLogs string
}

// quiet is how long nothing may fail until all counts as well.
const quiet = 4 * time.Second

// Run makes a fault once, waits until all is well and all that must end has ended, and returns
// what came of it. The error is of the suite itself.
func (w *World) Run(ctx context.Context, fault Fault, round int, random *rand.Rand) (o Outcome, err error) {
	if _, err := w.awaitWell(ctx, time.Now(), time.Now().Add(2*time.Minute)); err != nil {
		return o, fmt.Errorf("before the fault: %w", err)
	}
	pause(ctx, time.Duration(random.Int64N(int64(2*time.Second))))
	w.Ledger.Forget()
	w.Ledger.TakeCounts()
	w.Load.TakeSockets()
	processes := w.processes(ctx)
	o = Outcome{Fault: fault.Name, Round: round, Before: w.Ledger.Alive()}
	o.Held = fault.Hold
	if fault.Hold > 0 {
		o.Held += time.Duration(random.Int64N(int64(time.Second)))
	}
	began := time.Now()
	undo, err := fault.Make(ctx, w, random)
	if err != nil {
		return o, fmt.Errorf("make the fault: %w", err)
	}
	pause(ctx, o.Held)
	if undo != nil {
		if err := undo(context.WithoutCancel(ctx)); err != nil {
			return o, fmt.Errorf("undo the fault: %w", err)
		}
	}
	undone := time.Now()
	well, err := w.awaitWell(ctx, undone, undone.Add(fault.Within+quiet))
	if err != nil {
		w.Ledger.Complain("it was not well after %s: %v", fault.Within, err)
		well = time.Now()
	}
	o.WellAfter = max(0, well.Sub(undone))
	late := w.awaitEnds(ctx, well)
	o.Findings = w.Ledger.Judge(late, fault.Ends, well)
	o.After = w.Ledger.Alive()
	o.Sent, o.Failed, o.Why = w.Ledger.TakeCounts()
	o.Closed, o.Cut = w.Load.TakeSockets()
	o.Process = processes.grown(w.processes(ctx))
	o.RepeatedInLogs = w.repeatedInLogs(ctx, began)
	return o, nil
}

// awaitWell waits until nothing has failed for a while after a time, and both replicas are
// ready. It returns since when.
func (w *World) awaitWell(ctx context.Context, from, until time.Time) (since time.Time, err error) {
	for pause(ctx, 200*time.Millisecond) {
		replicas, err := w.replicas(ctx)
		if err == nil && len(replicas) < 2 {
			err = fmt.Errorf("%d replicas are ready", len(replicas))
		}
		if err != nil {
			from = time.Now()
		}
		since, well := w.Load.Well(from, quiet)
		switch {
		case err == nil && well:
			return since, nil
		case time.Now().After(until):
			return since, fmt.Errorf("something still fails, or nothing was tried (replicas: %v): %s", err, w.Load.describeLast())
		}
	}
	return time.Time{}, ctx.Err()
}

// awaitEnds waits for the instances of before that must end, and returns those that have not
// in time.
func (w *World) awaitEnds(ctx context.Context, well time.Time) (late []string) {
	for pause(ctx, 200*time.Millisecond) {
		ids, until := w.Ledger.Waiting(w.bounds(), usedTimeout, well, well)
		if len(ids) == 0 || time.Now().After(until) {
			return ids
		}
	}
	return nil
}

// bounds are what e2e/manifests sets.
func (w *World) bounds() Bounds {
	return Bounds{
		MinTimeout: time.Second, StartTimeout: harness.StartTimeout, Retention: harness.FailedRetention,
		Settle: 2 * time.Minute, Removal: 15 * time.Second,
	}
}

// Problems returns what must not have been, a sentence each.
func (o Outcome) Problems(fault Fault) []string {
	problems := o.Findings.Problems
	if o.Cut > 0 && !fault.Cuts {
		problems = append(problems, fmt.Sprintf("%d WebSockets were cut without a close frame", o.Cut))
	}
	for _, kind := range fault.Harmless {
		if strings.Contains(o.Why, " "+string(kind)+":") {
			problems = append(problems, fmt.Sprintf("requests failed that must not (%s): %s", kind, o.Why))
		}
	}
	if o.Process != "" {
		problems = append(problems, o.Process)
	}
	if o.RepeatedInLogs != "" {
		problems = append(problems, o.RepeatedInLogs)
	}
	return problems
}
