package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/bench/measure"
	"github.com/binder-project/binder-deploy-kubernetes/bench/report"
	"github.com/binder-project/binder-deploy-kubernetes/bench/service"
	"github.com/binder-project/binder-deploy-kubernetes/bench/world"
)

const (
	aloneLaunches = 4 // in a round
	coldLaunches  = 7 // in a round
	launches      = 1000
	clients       = 200
	// kubeletPeriod is how often the kubelet looks at its containers. A cold launch comes at
	// any time between two looks; the end of the one before it would always be at the same.
	kubeletPeriod = time.Second
)

// warmAlone compares a claim of a warm pod with the one write that it is.
func warmAlone(ctx context.Context, b *bench) ([]report.Line, error) {
	took, err := b.claims(ctx, 1, aloneLaunches)
	if err != nil {
		return nil, err
	}
	return []report.Line{compare("warm launch, one alone, p50", "ms", "one bare PATCH", quantiles(took, 0.5), 1, report.AtMost(1.3, "")).
		Because("a launch is a request to the service and a write of the service: each hop wakes processes that share two processors with the API server, the kubelet and the client")}, nil
}

// warmBurst compares as many claims at once as the pool has pods with as many writes.
func warmBurst(ctx context.Context, b *bench) ([]report.Line, error) {
	took, err := b.claims(ctx, world.PoolSize, 1)
	if err != nil {
		return nil, err
	}
	line := func(name string, q float64) report.Line {
		return compare("warm launch, 20 at once, "+name, "ms", "20 bare PATCHes at once", quantiles(took, q), 1, report.AtMost(2, ""))
	}
	return []report.Line{line("p50", 0.5), line("p95", 0.95)}, nil
}

// quantiles returns a quantile of what was measured in each round.
func quantiles(took [2][][]float64, q float64) measure.Rounds {
	rounds := make(measure.Rounds, len(took))
	for subject := range took {
		for _, round := range took[subject] {
			rounds[subject] = append(rounds[subject], measure.Quantile(round, q))
		}
	}
	return rounds
}

// claims measures n claims at once, and n writes at once to pods that nothing else changes, in
// turn: both several times in each round. Before each, the pool is full and the machine quiet.
// It returns how long each claim took in each round, and then how long each write.
func (b *bench) claims(ctx context.Context, n, times int) (took [2][][]float64, err error) {
	err = b.withPool(ctx, func(s *service.Service) error {
		claim := func() ([]float64, error) {
			took, err := atOnce(n, func(int) error { return s.LaunchAndWait(ctx, world.Warm) })
			return took, errors.Join(err, b.world.DeleteInstances(ctx))
		}
		write := func() ([]float64, error) { return b.barePatches(ctx, n) }
		var subjects []measure.Subject
		for i, once := range []func() ([]float64, error){claim, write} {
			subjects = append(subjects, measure.Subject{Name: []string{"claims", "writes"}[i], Run: func(ctx context.Context) (float64, error) {
				var round []float64
				for range times {
					if err := errors.Join(b.world.AwaitPool(ctx), awaitQuiet(ctx, quietTimeout)); err != nil {
						return 0, err
					}
					all, err := once()
					if err != nil {
						return 0, err
					}
					round = append(round, all...)
				}
				took[i] = append(took[i], round)
				return measure.Median(round), nil
			}})
		}
		_, err := measure.Alternate(ctx, b.rounds, true, subjects...)
		return err
	})
	if err == nil {
		took[0], took[1] = took[0][1:], took[1][1:] // the first round does not count
	}
	return took, err
}

// withPool calls measure with a replica whose pool is full, and with as many bare pods.
func (b *bench) withPool(ctx context.Context, measure func(s *service.Service) error) (err error) {
	if err := b.world.AddTemplate(ctx, world.Warm, world.PoolSize); err != nil {
		return err
	}
	s, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer func() {
		s.Stop()
		err = errors.Join(err, b.world.RemoveTemplate(ctx, world.Warm), b.world.DeletePods(ctx, world.BareNamespace, ""))
	}()
	b.say("   filling a pool of %d", world.PoolSize)
	if err := b.world.AwaitPool(ctx); err != nil {
		return err
	}
	if err := b.world.AddBarePods(ctx, world.PoolSize); err != nil {
		return err
	}
	return measure(s)
}

// barePatches sends what a claim sends to n pods at once.
func (b *bench) barePatches(ctx context.Context, n int) ([]float64, error) {
	pods := b.world.Client.CoreV1().Pods(world.BareNamespace)
	versions := make([]string, n)
	for i := range n {
		pod, err := pods.Get(ctx, world.BareName(i), metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("read a bare pod: %w", err)
		}
		versions[i] = pod.ResourceVersion
	}
	now := time.Now().UTC().Format(time.RFC3339Nano)
	figures, err := atOnce(n, func(i int) error {
		return patch(ctx, pods, world.BareName(i), map[string]any{
			"resourceVersion": versions[i],
			"labels":          map[string]any{"binder-project.org/pool": nil},
			"annotations": map[string]any{
				"binder-project.org/launched": now, "binder-project.org/last-activity": now, "binder-project.org/last-activity-source": "launch",
			},
		})
	})
	for i := range n {
		err = errors.Join(err, patch(ctx, pods, world.BareName(i), map[string]any{
			"labels": map[string]any{"binder-project.org/pool": "warm"},
			"annotations": map[string]any{
				"binder-project.org/launched": nil, "binder-project.org/last-activity": nil, "binder-project.org/last-activity-source": nil,
			},
		}))
	}
	return figures, err
}

func patch(ctx context.Context, pods corev1.PodInterface, name string, metadata map[string]any) error {
	body, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return fmt.Errorf("encode a patch: %w", err)
	}
	if _, err := pods.Patch(ctx, name, types.MergePatchType, body, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("patch %s: %w", name, err)
	}
	return nil
}

// cold compares a launch without a pool, until the answer has a location, with a pod from
// its creation until a watch says that it is Ready.
func cold(ctx context.Context, b *bench) (lines []report.Line, err error) {
	if err := b.world.AddTemplate(ctx, world.Cold, 0); err != nil {
		return nil, err
	}
	s, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		s.Stop()
		err = errors.Join(err, b.world.RemoveTemplate(ctx, world.Cold))
	}()
	times, err := measure.Alternate(ctx, coldLaunches*b.rounds, true,
		measure.Subject{Name: "ours", Run: func(ctx context.Context) (float64, error) {
			if err := errors.Join(awaitQuiet(ctx, quietTimeout), sleep(ctx, rand.N(kubeletPeriod))); err != nil {
				return 0, err
			}
			took, err := atOnce(1, func(int) error { return s.LaunchAndWait(ctx, world.Cold) })
			return took[0], errors.Join(err, b.world.EndInstances(ctx))
		}},
		measure.Subject{Name: "bare pod", Run: func(ctx context.Context) (float64, error) {
			if err := errors.Join(awaitQuiet(ctx, quietTimeout), sleep(ctx, rand.N(kubeletPeriod))); err != nil {
				return 0, err
			}
			return b.world.BareCold(ctx)
		}})
	if err != nil {
		return nil, err
	}
	for _, of := range []struct {
		name    string
		q, goal float64
	}{{"p50", 0.5, 1.05}, {"p95", 0.95, 0.4}} {
		ours, bare := measure.Quantile(times[0], of.q), measure.Quantile(times[1], of.q)
		line := ratios([]float64{ours / bare})
		line.Metric, line.Goal = "cold launch, "+of.name, report.AtMost(of.goal, "")
		line.Ours, line.Peer = format(ours, "ms"), "bare pod, create to Ready: "+format(bare, "ms")
		lines = append(lines, line.Because("a bare pod waits for the kubelet's next probe, a second later at most, which the service does not; the rest is the kubelet's start of the pod, the same for both"))
	}
	return lines, nil
}

// thousand compares launches of pods that stay pending with bare creates.
func thousand(ctx context.Context, b *bench) ([]report.Line, error) {
	rounds, err := measure.Alternate(ctx, b.rounds, true,
		measure.Subject{Name: "ours", Run: func(ctx context.Context) (float64, error) {
			s, err := b.start(ctx)
			if err != nil {
				return 0, err
			}
			rate, err := crowd(func(int) error { _, err := s.Launch(ctx, world.Template); return err })
			s.Stop() // before it sees them end, and remembers them
			return rate, errors.Join(err, b.world.DeleteInstances(ctx))
		}},
		measure.Subject{Name: "bare creates", Run: func(ctx context.Context) (float64, error) {
			pods := b.world.Client.CoreV1().Pods(world.BareNamespace)
			rate, err := crowd(func(i int) error {
				_, err := pods.Create(ctx, b.world.BarePending(fmt.Sprintf("pending-%d", i)), metav1.CreateOptions{})
				return err
			})
			return rate, errors.Join(err, b.world.DeletePods(ctx, world.BareNamespace, ""))
		}})
	if err != nil {
		return nil, err
	}
	return []report.Line{compare("1,000 launches, 200 clients at once", "launches/s", "bare creates", rounds, 1, report.AtLeast(0.9, "")).
		Because("by its profile a launch costs the service some 0.7 ms of processor time, half of it client-go's (the create, and the watch that delivers the pod), and the API server sends the event; a bare create needs neither, and all share two processors")}, nil
}

// crowd lets the clients do something as often as there are launches. It returns the rate.
func crowd(do func(i int) error) (float64, error) {
	var next atomic.Int64
	var group errgroup.Group
	began := time.Now()
	for range clients {
		group.Go(func() error {
			for i := next.Add(1); i <= launches; i = next.Add(1) {
				if err := do(int(i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := group.Wait()
	return launches / time.Since(began).Seconds(), err
}

// atOnce calls do n times at once, and returns how long each took in milliseconds.
func atOnce(n int, do func(i int) error) ([]float64, error) {
	took := make([]float64, n)
	start := make(chan struct{})
	var group errgroup.Group
	for i := range n {
		group.Go(func() error {
			<-start
			began := time.Now()
			err := do(i)
			took[i] = measure.Milliseconds(time.Since(began))
			return err
		})
	}
	close(start)
	return took, group.Wait()
}
