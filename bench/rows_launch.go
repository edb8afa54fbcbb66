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
	aloneLaunches = 5 // for each round of others, as each of these is a round of its own
	coldLaunches  = 7 // the same
	launches      = 1000
	clients       = 200
	// kubeletPeriod is how often the kubelet looks at its containers. A cold launch comes at
	// any time between two looks; the end of the one before it would always be at the same.
	kubeletPeriod = time.Second
	// claimDeadline is the activeDeadlineSeconds that a claim sets: --max-age, and the hour after
	// which the kubelet ends what is left of an instance.
	claimDeadline int64 = 13 * 60 * 60
	// fieldManager is who writes, as the service says of itself.
	fieldManager = "binder-bench"
)

// warmAlone compares a claim of a warm pod with the one write that it is.
func warmAlone(ctx context.Context, b *bench) ([]report.Line, error) {
	took, err := b.claims(ctx, 1, aloneLaunches*b.rounds)
	if err != nil {
		return nil, err
	}
	alone := quantiles(took, 1) // each round has one
	return []report.Line{compareQuantiles("warm launch, one alone, p50", "one bare PATCH", alone[0], alone[1], 0.5, 1.3).
		Because("a launch is a request to the service and a write of the service: each hop wakes processes that share two processors with the API server, the kubelet and the client")}, nil
}

// warmBurst compares as many claims at once as the pool has pods with as many writes.
func warmBurst(ctx context.Context, b *bench) ([]report.Line, error) {
	took, err := b.claims(ctx, world.PoolSize, b.rounds)
	if err != nil {
		return nil, err
	}
	line := func(name string, q float64) report.Line {
		return compare("warm launch, 20 at once, "+name, "ms", "20 bare PATCHes at once", quantiles(took, q), 1, report.AtMost(2, "")).
			Because("the pool is filled again only when the claims have passed, so what is left is the same as for one alone, and what 20 writes at once wait for each other: look at the range")
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

// compareQuantiles makes the line of a quantile of ours, of all times in milliseconds, held
// against the same quantile of a peer's.
func compareQuantiles(metric, peerName string, ours, peer []float64, q, goal float64) report.Line {
	own, other := measure.Quantile(ours, q), measure.Quantile(peer, q)
	line := ratios([]float64{own / other})
	line.Metric, line.Goal = metric, report.AtMost(goal, "")
	line.Ours, line.Peer = format(own, "ms"), peerName+": "+format(other, "ms")
	return line
}

// claims measures n claims at once, and n writes at once to pods that nothing else changes, in
// turn. Before each, the pool is full and the machine quiet. It returns how long each claim
// took in each round, and then how long each write.
func (b *bench) claims(ctx context.Context, n, rounds int) (took [2][][]float64, err error) {
	err = b.withPool(ctx, func(s *service.Service) error {
		claim := func() ([]float64, error) {
			took, err := atOnce(n, func(int) error { return s.LaunchAndWait(ctx, world.Warm) })
			return took, errors.Join(err, b.world.DeleteInstances(ctx))
		}
		var versions []string
		read := func() (err error) { versions, err = b.bareVersions(ctx, n); return err }
		deadline := claimDeadline
		write := func() ([]float64, error) {
			deadline-- // the API server accepts no later one
			return b.barePatches(ctx, versions, deadline)
		}
		subject := func(i int, name string, prepare func() error, once func() ([]float64, error)) measure.Subject {
			return measure.Subject{Name: name, Run: func(ctx context.Context) (float64, error) {
				if err := errors.Join(b.world.AwaitPool(ctx), awaitQuiet(ctx, quietTimeout), prepare(), awaitQuiet(ctx, quietTimeout)); err != nil {
					return 0, err
				}
				all, err := once()
				took[i] = append(took[i], all)
				return 0, err
			}}
		}
		_, err := measure.Alternate(ctx, rounds, true, subject(0, "claims", func() error { return nil }, claim), subject(1, "writes", read, write))
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

// bareVersions reads the versions of n pods. It is some time before they are written to: what
// answers a request right after another is still awake.
func (b *bench) bareVersions(ctx context.Context, n int) ([]string, error) {
	versions := make([]string, n)
	for i := range n {
		pod, err := b.world.Client.CoreV1().Pods(world.BareNamespace).Get(ctx, world.BareName(i), metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("read a bare pod: %w", err)
		}
		versions[i] = pod.ResourceVersion
	}
	return versions, nil
}

// barePatches sends what a claim sends to pods of these versions at once. The deadline, in
// seconds, must be earlier than the one before: pods keep it.
func (b *bench) barePatches(ctx context.Context, versions []string, deadline int64) ([]float64, error) {
	pods, n := b.world.Client.CoreV1().Pods(world.BareNamespace), len(versions)
	now := time.Now().UTC().Format(time.RFC3339Nano)
	figures, err := atOnce(n, func(i int) error {
		return patch(ctx, pods, world.BareName(i), map[string]any{
			"resourceVersion": versions[i],
			"labels":          map[string]any{"binder-project.org/pool": nil},
			"annotations": map[string]any{
				"binder-project.org/launched": now, "binder-project.org/last-activity": now, "binder-project.org/last-activity-source": "launch",
			},
		}, map[string]any{"activeDeadlineSeconds": deadline})
	})
	for i := range n {
		err = errors.Join(err, patch(ctx, pods, world.BareName(i), map[string]any{
			"labels": map[string]any{"binder-project.org/pool": "warm"},
			"annotations": map[string]any{
				"binder-project.org/launched": nil, "binder-project.org/last-activity": nil, "binder-project.org/last-activity-source": nil,
			},
		}, nil))
	}
	return figures, err
}

func patch(ctx context.Context, pods corev1.PodInterface, name string, metadata, spec map[string]any) error {
	change := map[string]any{"metadata": metadata}
	if spec != nil {
		change["spec"] = spec
	}
	body, err := json.Marshal(change)
	if err != nil {
		return fmt.Errorf("encode a patch: %w", err)
	}
	if _, err := pods.Patch(ctx, name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: fieldManager}); err != nil {
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
		lines = append(lines, compareQuantiles("cold launch, "+of.name, "bare pod, create to Ready", times[0], times[1], of.q, of.goal).
			Because("a bare pod waits for the kubelet's next probe, a second later at most, which the service does not; the rest is the kubelet's start of the pod, the same for both"))
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
				_, err := pods.Create(ctx, b.world.BarePending(fmt.Sprintf("pending-%d", i)), metav1.CreateOptions{FieldManager: fieldManager})
				return err
			})
			return rate, errors.Join(err, b.world.DeletePods(ctx, world.BareNamespace, ""))
		}})
	if err != nil {
		return nil, err
	}
	return []report.Line{compare("1,000 launches, 200 clients at once", "launches/s", "bare creates", rounds, 1, report.AtLeast(0.9, "")).
		Because("where it was profiled, all processors were busy in both: with launches, a seventh of their time was the service's, half of that in client-go (the create, and the watch that delivers the pod), and the API server and the clients had the hop to it and the events of the watch on top")}, nil
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
