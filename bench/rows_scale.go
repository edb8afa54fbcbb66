package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/binder-project/binder-deploy-kubernetes/bench/measure"
	"github.com/binder-project/binder-deploy-kubernetes/bench/peer"
	"github.com/binder-project/binder-deploy-kubernetes/bench/process"
	"github.com/binder-project/binder-deploy-kubernetes/bench/report"
	"github.com/binder-project/binder-deploy-kubernetes/bench/service"
)

const mebibyte = 1 << 20

// resident measures a replica that has nothing to do.
func resident(ctx context.Context, b *bench) ([]report.Line, error) {
	rounds, err := measure.Alternate(ctx, b.rounds, false, measure.Subject{Name: "ours", Run: func(ctx context.Context) (float64, error) {
		s, err := b.start(ctx)
		if err != nil {
			return 0, err
		}
		defer s.Stop()
		if err := sleep(ctx, settle); err != nil {
			return 0, err
		}
		bytes, err := s.ResidentMemory()
		return bytes / megabyte, err
	}})
	if err != nil {
		return nil, err
	}
	_, err = growth(ctx, b)
	return []report.Line{own("RSS at 0 instances", "MB", rounds[0], report.AtMost(38, "MB"))}, err
}

// growth notes what a replica costs with the instances that there are. With many, it
// returns what one of them costs.
func growth(ctx context.Context, b *bench) ([]report.Line, error) {
	s, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Stop()
	times, err := measure.Alternate(ctx, b.rounds, true,
		timed("list", func(ctx context.Context) error { return s.Read(ctx, "http://"+s.API+"/applications/") }),
		scrapes(s))
	if err != nil {
		return nil, err
	}
	heap, err := s.Scrape(ctx, true, "go_memstats_heap_alloc_bytes")
	if err != nil {
		return nil, err
	}
	bytes, err := s.ResidentMemory()
	if err != nil {
		return nil, err
	}
	g := report.Growth{
		Instances: len(b.world.IDs()), Heap: heap[0] / mebibyte, Resident: bytes / mebibyte, Start: s.Ready.Seconds(),
		List: measure.Median(times[0]), Scrape: measure.Median(times[1]),
	}
	b.growth = append(b.growth, g)
	return b.perInstance(g), nil
}

// perInstance returns what one instance costs, as far as there are figures to say so; and, of
// more instances, whether one costs as much as before.
func (b *bench) perInstance(g report.Growth) (lines []report.Line) {
	first := b.growth[0]
	if first.Instances != 0 || g.Instances < 10_000 {
		return nil
	}
	each := func(g report.Growth) float64 {
		return (g.Heap - first.Heap) * mebibyte / kibibyte / float64(g.Instances)
	}
	lines = append(lines, own(fmt.Sprintf("heap per instance, at %d", g.Instances), "KiB", []float64{each(g)}, report.AtMost(2, "KiB")))
	for _, earlier := range b.growth {
		if earlier.Instances >= 10_000 && earlier.Instances < g.Instances {
			lines = append(lines, own(fmt.Sprintf("the same, against that at %d: growth is linear", earlier.Instances), "×",
				[]float64{each(g) / each(earlier)}, report.AtMost(1.1, "×")))
		}
	}
	return lines
}

// start compares a replica's start with a process that lists the pods once.
func start(ctx context.Context, b *bench) ([]report.Line, error) {
	rounds, err := measure.Alternate(ctx, 4*b.rounds, true,
		measure.Subject{Name: "ours", Run: func(ctx context.Context) (float64, error) {
			s, err := b.start(ctx)
			if err != nil {
				return 0, err
			}
			s.Stop()
			return measure.Milliseconds(s.Ready), nil
		}},
		timed("LIST", func(ctx context.Context) error { return peer.List(ctx, b.kubeconfig) }))
	if err != nil {
		return nil, err
	}
	return []report.Line{compare("process start to ready, 10,000 instances", "ms", "a process with one LIST, protobuf", rounds, 1, report.AtMost(1.3, "× its time")).
		Because("the pods arrive one by one, so each is a message of its own, and a record is made of each: a fifth of the process's work, where it was profiled. The range shows how much the API server adds")}, nil
}

// cullerPass runs the benchmark of the culler itself, whose figures are of one instance.
func cullerPass(ctx context.Context, b *bench) ([]report.Line, error) {
	output, err := process.Output(ctx, "go", "-C", filepath.Clean(b.root), "test", "-run=^$", "-bench=^BenchmarkJudgeAll$", "-benchmem",
		"-count="+strconv.Itoa(b.rounds), ".")
	if err != nil {
		return nil, err
	}
	pass := regexp.MustCompile(`([0-9.]+) ns/instance.* ([0-9]+) allocs/op`)
	var times, allocations []float64
	for _, found := range pass.FindAllStringSubmatch(output, -1) {
		time, errTime := strconv.ParseFloat(found[1], 64)
		count, errCount := strconv.ParseFloat(found[2], 64)
		if errTime != nil || errCount != nil {
			return nil, fmt.Errorf("read the benchmark's output: %q", found[0])
		}
		times, allocations = append(times, time/1000), append(allocations, count/50_000)
	}
	if len(times) != b.rounds {
		return nil, fmt.Errorf("the benchmark of the culler printed %d results, not %d:\n%s", len(times), b.rounds, output)
	}
	return []report.Line{
		own("one culler pass over 50,000, none due", "µs each", times, report.AtMost(0.6, "µs each")),
		own("its allocations", "an instance", allocations, report.AtMost(0.001, "an instance")),
	}, nil
}

// The traffic of an active instance: a page polls, and a kernel sends.
const (
	pollEvery     = 10 * time.Second
	frameEvery    = time.Second
	processorTime = 30 * time.Second
)

// processor measures what the traffic of all instances costs one replica.
func processor(ctx context.Context, b *bench) ([]report.Line, error) {
	s, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Stop()
	traffic, stop := context.WithCancel(ctx)
	group, traffic := errgroup.WithContext(traffic)
	defer func() {
		stop()
		_ = group.Wait() // it was stopped
	}()
	if err := b.visitAll(traffic, group, s); err != nil {
		return nil, err
	}
	before, err := s.Scrape(ctx, false, "process_cpu_seconds_total")
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := sleep(traffic, processorTime); err != nil {
		return nil, fmt.Errorf("keep the instances busy: %w", context.Cause(traffic))
	}
	after, err := s.Scrape(ctx, false, "process_cpu_seconds_total")
	if err != nil {
		return nil, err
	}
	share := (after[0] - before[0]) / time.Since(began).Seconds()
	line := own("CPU of one replica at 1,000 active instances", "of one processor", []float64{share}, report.Goal{})
	line.Peer = "a poll each 10 s and a WebSocket frame each second, of each"
	return []report.Line{line}, nil
}

// visitAll lets a visitor use each instance until ctx is done.
func (b *bench) visitAll(ctx context.Context, group *errgroup.Group, s *service.Service) error {
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: len(b.world.IDs())}}
	for i, id := range b.world.IDs() {
		sockets, err := open(ctx, socketURL(s, id), 1)
		if err != nil {
			return err
		}
		start := frameEvery * time.Duration(i) / time.Duration(len(b.world.IDs())) // so that they take turns
		group.Go(func() error {
			return every(ctx, start, frameEvery, func() error { return echo(ctx, sockets[0]) }, sockets[0])
		})
		group.Go(func() error {
			return every(ctx, 10*start, pollEvery, func() error { return poll(ctx, client, s.InstanceURL(id)) }, nil)
		})
	}
	return nil
}

// every calls do once in a period, after a first wait, until ctx is done. It closes the
// socket at the end, if there is one.
func every(ctx context.Context, first, period time.Duration, do func() error, socket *websocket.Conn) error {
	if socket != nil {
		defer socket.CloseNow()
	}
	if sleep(ctx, first) != nil {
		return nil
	}
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		if err := do(); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// poll asks for a page as a visitor does.
func poll(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return nil
}
