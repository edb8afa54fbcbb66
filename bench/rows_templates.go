package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/bench/measure"
	"github.com/binder-project/binder-deploy-kubernetes/bench/report"
)

const (
	manyTemplates = 500
	removeTimeout = time.Minute
)

// templates measures what a template costs each replica that nothing is launched from.
func templates(ctx context.Context, b *bench) (lines []report.Line, err error) {
	without, err := b.startsOf(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		removing, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
		defer cancel()
		err = errors.Join(err, b.world.RemoveTemplates(removing))
	}()
	size, err := b.world.AddTemplates(ctx, manyTemplates)
	if err != nil {
		return nil, err
	}
	with, err := b.startsOf(ctx)
	if err != nil {
		return nil, err
	}
	var each []float64
	for _, heap := range with.heaps {
		each = append(each, (heap-measure.Median(without.heaps))/manyTemplates/kibibyte)
	}
	memory := own(fmt.Sprintf("heap per template, of %d", manyTemplates), "KiB each", each, report.Goal{})
	memory.Peer = "one in protobuf: " + format(float64(size)/kibibyte, "KiB")
	ready := own("process start to ready with them", "ms", with.times, report.Goal{})
	ready.Peer = "without: " + format(measure.Median(without.times), "ms")
	return []report.Line{memory, ready}, nil
}

// starts are the figures of replicas that were started one after the other.
type starts struct {
	heaps []float64 // bytes in use after a collection of garbage
	times []float64 // milliseconds from the start of the process to ready
}

// startsOf starts a replica, as many times as there are rounds. It starts one more before,
// which does not count.
func (b *bench) startsOf(ctx context.Context) (found starts, err error) {
	for round := range b.rounds + 1 {
		s, err := b.start(ctx)
		if err != nil {
			return found, err
		}
		heap, err := s.Scrape(ctx, true, "go_memstats_heap_alloc_bytes")
		s.Stop()
		if err != nil {
			return found, err
		}
		if round > 0 {
			found.heaps = append(found.heaps, heap[0])
			found.times = append(found.times, measure.Milliseconds(s.Ready))
		}
	}
	return found, nil
}
