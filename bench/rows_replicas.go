package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/binder-project/binder-deploy-kubernetes/bench/measure"
	"github.com/binder-project/binder-deploy-kubernetes/bench/report"
	"github.com/binder-project/binder-deploy-kubernetes/bench/service"
)

const (
	fanOutWrites = 500
	// fanOutEvery bounds the rate of writes, so that the time in which they are made depends
	// little on how many replicas there are.
	fanOutEvery   = time.Second / 200
	fanOutAtOnce  = 16
	fanOutIdle    = 2 * time.Second
	fanOutSettle  = time.Second / 2
	fanOutTimeout = time.Minute
	milliseconds  = 1000 // in a second
)

// fanOut is what fanOutWrites writes of pods cost while a number of replicas watch.
type fanOut struct {
	replicas       float64
	server         float64 // milliseconds of CPU of the API server
	events, volume float64 // watch events of pods that it has sent, and their bytes
	each           float64 // milliseconds of CPU of one replica
	took           float64 // milliseconds
}

// replicas measures what each replica costs the API server, and what it costs itself, when
// pods change. It starts them one after the other, then stops them, and so on in each round.
func replicas(ctx context.Context, b *bench) ([]report.Line, error) {
	var running []*service.Service
	defer func() { stopAll(running) }()
	var subjects []measure.Subject
	counts := []int{0, 1, 2, 4}
	found := make([][]fanOut, len(counts))
	for i, count := range counts {
		subjects = append(subjects, measure.Subject{Name: fmt.Sprint(count, " replicas"), Run: func(ctx context.Context) (took float64, err error) {
			if running, err = b.scale(ctx, running, count); err != nil {
				return 0, err
			}
			if err := sleep(ctx, settle); err != nil {
				return 0, err
			}
			idle, err := b.fanOut(ctx, running, func(ctx context.Context) error { return sleep(ctx, fanOutIdle) })
			if err != nil {
				return 0, err
			}
			cost, err := b.fanOut(ctx, running, b.useAll)
			cost.server -= idle.server / idle.took * cost.took
			cost.each -= idle.each / idle.took * cost.took
			found[i] = append(found[i], cost)
			return cost.took, err
		}})
	}
	if _, err := measure.Alternate(ctx, b.rounds, false, subjects...); err != nil {
		return nil, err
	}
	return fanOutLines(found), nil
}

// scale starts or stops replicas until there are count.
func (b *bench) scale(ctx context.Context, running []*service.Service, count int) ([]*service.Service, error) {
	for len(running) > count {
		running[len(running)-1].Stop()
		running = running[:len(running)-1]
	}
	for len(running) < count {
		s, err := b.start(ctx)
		if err != nil {
			return running, err
		}
		running = append(running, s)
	}
	return running, nil
}

func stopAll(running []*service.Service) {
	for _, s := range running {
		s.Stop()
	}
}

// fanOut returns what it costs to do something while replicas run.
func (b *bench) fanOut(ctx context.Context, running []*service.Service, do func(ctx context.Context) error) (cost fanOut, err error) {
	ctx, cancel := context.WithTimeout(ctx, fanOutTimeout)
	defer cancel()
	if err := sleep(ctx, fanOutSettle); err != nil {
		return cost, err
	}
	before, err := b.fanOutState(ctx, running)
	if err != nil {
		return cost, err
	}
	began := time.Now()
	if err := do(ctx); err != nil {
		return cost, err
	}
	if err := sleep(ctx, fanOutSettle); err != nil { // until the last event has come
		return cost, err
	}
	took := measure.Milliseconds(time.Since(began))
	after, err := b.fanOutState(ctx, running)
	return fanOut{
		replicas: before.replicas, server: after.server - before.server, events: after.events - before.events,
		volume: after.volume - before.volume, each: after.each - before.each, took: took,
	}, err
}

// fanOutState reads all counters, the API server's first.
func (b *bench) fanOutState(ctx context.Context, running []*service.Service) (fanOut, error) {
	text, err := b.world.Client.CoreV1().RESTClient().Get().AbsPath("/metrics").SetHeader("Accept", "text/plain").DoRaw(ctx)
	if err != nil {
		return fanOut{}, fmt.Errorf("read the API server's metrics: %w", err)
	}
	processor, err := service.Sums(text, "", "", "process_cpu_seconds_total")
	if err != nil {
		return fanOut{}, fmt.Errorf("of the API server: %w", err)
	}
	events, err := service.Sums(text, "resource", "pods", "apiserver_watch_events_total", "apiserver_watch_events_sizes")
	if err != nil {
		return fanOut{}, fmt.Errorf("of the API server: %w", err)
	}
	state := fanOut{replicas: float64(len(running)), server: processor[0] * milliseconds, events: events[0], volume: events[1]}
	for _, s := range running {
		own, err := s.Scrape(ctx, false, "process_cpu_seconds_total")
		if err != nil {
			return fanOut{}, err
		}
		state.each += own[0] * milliseconds / float64(len(running))
	}
	return state, nil
}

// useAll writes that instances are used, one after the other, until there are fanOutWrites.
func (b *bench) useAll(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fanOutAtOnce)
	tick := time.NewTicker(fanOutEvery)
	defer tick.Stop()
	for i := range fanOutWrites {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		group.Go(func() error { return b.world.Use(ctx, b.world.IDs()[i%len(b.world.IDs())]) })
	}
	return group.Wait()
}

// fanOutLines says what one more replica adds, of figures by the number of replicas and the
// round.
func fanOutLines(found [][]fanOut) []report.Line {
	server := func(f fanOut) float64 { return f.server * 1000 / fanOutWrites }
	var alone, each, added []float64
	for _, f := range found[0] {
		alone = append(alone, server(f))
	}
	for _, f := range slices.Concat(found[1:]...) {
		each = append(each, f.each*1000/fanOutWrites)
	}
	for round := range found[0] {
		var of []fanOut
		for _, rounds := range found {
			of = append(of, rounds[round])
		}
		added = append(added, slope(of, server))
	}
	// What a replica adds is little beside what the writes cost, so the figure is that of
	// all rounds together.
	all := slices.Concat(found...)
	adds := ratios(added)
	adds.Metric, adds.Figure = "1,000 writes of pods, CPU of the API server that each replica adds", slope(all, server)
	adds.Ours, adds.Peer = format(adds.Figure, "ms"), "without a replica: "+format(measure.Median(alone), "ms")
	sent := slope(all, func(f fanOut) float64 { return f.events })
	events := own("watch events to each replica", "a write", []float64{sent / fanOutWrites}, report.Goal{})
	events.Peer = "of " + format(slope(all, func(f fanOut) float64 { return f.volume })/sent/kibibyte, "KiB")
	return []report.Line{adds, events, own("1,000 events of pods, CPU of a replica", "ms", each, report.Goal{})}
}

// slope returns by how much a cost grows with each replica: that of the line which is next
// to all figures, by least squares.
func slope(of []fanOut, cost func(fanOut) float64) float64 {
	var sumX, sumY, sumXX, sumXY float64
	for _, f := range of {
		x, y := f.replicas, cost(f)
		sumX, sumY, sumXX, sumXY = sumX+x, sumY+y, sumXX+x*x, sumXY+x*y
	}
	n := float64(len(of))
	return (n*sumXY - sumX*sumY) / (n*sumXX - sumX*sumX)
}
