// Package faults breaks things while the service is in use, and compares what clients have seen
// with what the service says. A Load launches, polls, visits, uploads and downloads, and notes
// in a Ledger what it was answered. A Fault breaks something, and mends it. Then the ledger is
// judged: nothing may be lost, be there twice, end early or never end.
//
// The package must know nothing of the service's code: it looks from outside.
package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// World is what faults are made in.
type World struct {
	Suite    *harness.Suite
	Cluster  Cluster
	Injector *Injector
	Ledger   *Ledger
	Load     *Load
	Root     string // of the repository

	mended time.Time // see Mended
	first  usages    // what each process has used at first
}

// Mended is told by a fault that what was broken works again from now on. Without it, that is so
// once the fault is made, held and undone.
func (w *World) Mended() { w.mended = time.Now() }

// Fault is something that breaks, and what the service promises all the same.
type Fault struct {
	Name string
	// Prepare makes what Make needs, before the fault's time counts; nil for nothing.
	Prepare func(ctx context.Context, w *World) error
	// Make breaks something, and returns how to mend it. A fault that mends itself, as a killed
	// process that is started again, has nothing to undo. What is returned with an error is
	// undone as well.
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
	// Renews says that times on pods may be wrong because of it: see Bounds.
	Renews bool
	// Closes says that WebSockets may be closed by a close frame, as before a replica ends.
	Closes bool
	// Unsure says that replicas may not hear of what changes in the cluster, Away that this lasts
	// for so long that they refuse visits of instances that may have ended, and Blind for how long
	// they need not notice it.
	Unsure, Away bool
	Blind        time.Duration
	// Forgets says that nobody may remember an instance that ends meanwhile, as when Events are
	// refused.
	Forgets bool
	// Short says that the fault is part of the short form of the suite.
	Short bool
}

// All returns every fault.
func All() []Fault {
	return slices.Concat(replicaFaults(), apiServerFaults(), nodeFaults(), quotaFaults(), clockFaults(), editFaults(), massFaults(), versionFaults())
}

// Outcome is what one round of a fault brought.
type Outcome struct {
	Fault          string
	Held           time.Duration
	Counts         Counts
	Before, After  int // living instances
	Sockets        sockets
	WellAfter      time.Duration
	Findings       Findings
	Process        string // what grew in the service's processes
	RepeatedInLogs string
}

// quiet is how long nothing may fail until all counts as well.
const quiet = 4 * time.Second

// Run makes a fault once, waits until all is well and all that must end has ended, and returns
// what came of it. The error is of the suite itself.
func (w *World) Run(ctx context.Context, fault Fault, random *rand.Rand) (o Outcome, err error) {
	if fault.Prepare != nil {
		if err := fault.Prepare(ctx, w); err != nil {
			return o, fmt.Errorf("prepare the fault: %w", err)
		}
	}
	if _, err := w.awaitWell(ctx, time.Now(), time.Now().Add(2*time.Minute)); err != nil {
		return o, fmt.Errorf("before the fault: %w", err)
	}
	pause(ctx, time.Duration(random.Int64N(int64(2*time.Second))))
	w.Ledger.Forget()
	w.Ledger.TakeCounts()
	w.Load.TakeSockets()
	processes := w.processes(ctx)
	o = Outcome{Fault: fault.Name, Before: w.Ledger.Alive()}
	o.Held = fault.Hold
	if fault.Hold > 0 {
		o.Held += time.Duration(random.Int64N(int64(time.Second)))
	}
	logs, err := w.Suite.LogSizes()
	if err != nil {
		return o, err
	}
	began := time.Now()
	w.mended = time.Time{}
	defer w.expect(fault, began)()
	undo, err := fault.Make(ctx, w, random)
	if err != nil {
		if undo != nil {
			err = errors.Join(err, undo(context.WithoutCancel(ctx)))
		}
		return o, fmt.Errorf("make the fault: %w", err)
	}
	pause(ctx, o.Held)
	if undo != nil {
		if err := undo(context.WithoutCancel(ctx)); err != nil {
			return o, fmt.Errorf("undo the fault: %w", err)
		}
	}
	undone := time.Now()
	mended := w.undone(fault, began, undone)
	well, err := w.awaitWell(ctx, mended, undone.Add(fault.Within+quiet))
	if err != nil {
		w.Ledger.Complain("it was not well after %s: %v", fault.Within, err)
		well = time.Now()
	}
	o.WellAfter = max(0, well.Sub(mended))
	well = later(well, undone)
	bounds := boundsOf(fault)
	w.awaitEnds(ctx, bounds, well)
	o.After = w.Ledger.Alive()
	o.Counts = w.Ledger.TakeCounts()
	o.Sockets = w.Load.TakeSockets()
	o.Process = w.grown(processes, w.processes(ctx))
	o.Findings = w.Ledger.Judge(bounds, well, time.Now(), fault.Ends)
	o.RepeatedInLogs = w.repeatedInLogs(logs)
	return o, nil
}

// expect tells the load what the fault may cause, until end.
func (w *World) expect(fault Fault, began time.Time) (end func()) {
	if fault.Unsure {
		w.Load.unsure.Store(&unsure{since: began, away: fault.Away, blind: fault.Blind})
	}
	if fault.Forgets {
		w.Load.forgets.Store(&span{first: began})
	}
	return func() { w.Load.unsure.Store(nil) } // what was forgotten stays so
}

// undone tells the load that a fault is over, and returns since when all should be well.
func (w *World) undone(fault Fault, began, undone time.Time) (mended time.Time) {
	if fault.Forgets {
		w.Load.forgets.Store(&span{began, undone})
	}
	if fault.Unsure {
		w.Load.unsure.Store(&unsure{began, undone, fault.Away, fault.Blind})
	}
	if w.mended.IsZero() {
		return undone
	}
	return w.mended
}

// awaitWell waits until nothing has failed for a while after a time, and both replicas are
// ready. It returns since when.
func (w *World) awaitWell(ctx context.Context, from, until time.Time) (since time.Time, err error) {
	for pause(ctx, 200*time.Millisecond) {
		_, err := w.replicas(ctx)
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

// awaitEnds waits until the instances of before that must end are gone, or should be.
func (w *World) awaitEnds(ctx context.Context, b Bounds, well time.Time) {
	for pause(ctx, 200*time.Millisecond) && time.Now().Before(w.Ledger.Waiting(b, well)) {
		continue
	}
}

// boundsOf returns what e2e/manifests sets, and the fault.
func boundsOf(fault Fault) Bounds {
	b := Bounds{
		MinTimeout: time.Second, StartTimeout: harness.StartTimeout, Retention: harness.FailedRetention,
		Settle: 2 * time.Minute, Removal: 15 * time.Second, Grace: catchUp, Renews: fault.Renews,
	}
	if fault.Away { // much has waited for the API server
		b.Removal = time.Minute
	}
	return b
}

// Problems returns what must not have been, a sentence each.
func (o Outcome) Problems(fault Fault) []string {
	problems := o.Findings.Problems
	if len(o.Sockets.cut) > 0 && !fault.Cuts {
		problems = append(problems, fmt.Sprintf("WebSockets were cut without a close frame: %s", strings.Join(o.Sockets.cut, "; ")))
	}
	if o.Sockets.closed > 0 && !fault.Cuts && !fault.Closes && !fault.Away {
		problems = append(problems, fmt.Sprintf("%d WebSockets were closed", o.Sockets.closed))
	}
	for _, kind := range fault.Harmless {
		for failure, n := range o.Counts.Failed {
			if failure.Kind == kind && !strings.HasSuffix(failure.Reason, mayHaveEnded) && !strings.HasSuffix(failure.Reason, notYetKnown) {
				problems = append(problems, fmt.Sprintf("%d requests failed that must not, %s: %s: %s", n, kind, failure.Reason, strings.Join(o.Counts.Examples[failure], "; ")))
			}
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
