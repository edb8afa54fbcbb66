package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/binder-project/binder-deploy-kubernetes/bench/measure"
	"github.com/binder-project/binder-deploy-kubernetes/bench/report"
	"github.com/binder-project/binder-deploy-kubernetes/bench/service"
)

// How often activity is written follows from the cull timeout, and nothing else. So 1,000
// instances with a tenth of the timeout cause as many writes as 10,000 with the whole, and
// the benchmark does not take an hour.
const (
	activityTimeout = 6 * time.Minute
	activityWarmUp  = time.Minute
	activityTime    = 2 * time.Minute
	activityPart    = 10 * time.Second
)

// activity counts the writes that the use of all instances causes.
func activity(ctx context.Context, b *bench) ([]report.Line, error) {
	gateway, err := startGateway(b.world.Config, b.dir)
	if err != nil {
		return nil, err
	}
	defer gateway.Close()
	s, err := service.Start(ctx, service.Options{
		Binary: b.binary, Kubeconfig: gateway.kubeconfig, Dir: b.dir, Flags: []string{"--cull-timeout=" + activityTimeout.String()},
	})
	if err != nil {
		return nil, err
	}
	defer s.Stop()
	using, stop := context.WithCancel(ctx)
	group, using := errgroup.WithContext(using)
	defer func() {
		stop()
		_ = group.Wait() // it was stopped
	}()
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: len(b.world.IDs())}}
	for i, id := range b.world.IDs() {
		first := pollEvery * time.Duration(i) / time.Duration(len(b.world.IDs()))
		group.Go(func() error {
			return every(using, first, pollEvery, func() error { return poll(using, client, s.InstanceURL(id)) }, nil)
		})
	}
	if err := sleep(using, activityWarmUp); err != nil {
		return nil, fmt.Errorf("keep the instances busy: %w", context.Cause(using))
	}
	writes, err := countWrites(using, gateway)
	if err != nil {
		return nil, err
	}
	return activityLines(writes), nil
}

// countWrites returns how many pods were patched in each part of the time.
func countWrites(ctx context.Context, g *gateway) ([]float64, error) {
	const patches = http.MethodPatch + " pods"
	g.reset()
	var writes []float64
	seen := 0
	for range int(activityTime / activityPart) {
		if err := sleep(ctx, activityPart); err != nil {
			return nil, fmt.Errorf("keep the instances busy: %w", context.Cause(ctx))
		}
		count := g.counts()[patches]
		writes = append(writes, float64(count-seen))
		seen = count
	}
	return writes, nil
}

func activityLines(writes []float64) []report.Line {
	var sum float64
	for _, count := range writes {
		sum += count
	}
	perMinute := sum / activityTime.Minutes()
	most := measure.Quantile(writes, 1) / (sum / float64(len(writes)))
	rate := own("patches a minute, 10,000 active instances, 1 h timeout", "a minute", []float64{perMinute}, report.AtMost(2000, "a minute"))
	rate.Peer = "measured with 1,000 and 6 min"
	return []report.Line{
		rate,
		own("the most of them in 10 s, of the mean", "×", []float64{most}, report.AtMost(1.5, "× the mean")),
	}
}
