package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// replicaFaults are what can happen to the service's own processes.
func replicaFaults() []Fault {
	return []Fault{
		{Name: "the leader is killed", Make: killLeader, Within: time.Minute, Cuts: true, Short: true},
		{Name: "the leader is killed in the middle of 200 launches", Make: killLeaderAmidLaunches, Within: time.Minute, Cuts: true},
		{Name: "every replica is killed in turn", Make: killInTurn, Within: time.Minute, Cuts: true},
		{Name: "all replicas are killed at once", Make: killAll, Within: 90 * time.Second, Cuts: true, Short: true},
		{
			// What it was asked meanwhile, it answers at once when it goes on: before it hears what it has missed.
			Name: "the leader stands still for 40 s", Make: freezeLeader, Hold: 40 * time.Second, Within: time.Minute, Cuts: true, Unsure: true,
		},
		{
			Name: "rolling update", Make: roll, Within: time.Minute, Closes: true, Short: true,
			Harmless: []Kind{Launches, Polls, Stops, Pages, Uploads, Downloads},
		},
	}
}

// replicas returns the replicas, the leader first. It is an error if not both are ready.
func (w *World) replicas(ctx context.Context) ([]harness.Replica, error) {
	ready, err := w.Suite.ReadyReplicas(ctx)
	if err != nil {
		return nil, err
	}
	if len(ready) < 2 {
		return nil, fmt.Errorf("%d replicas are ready", len(ready))
	}
	leader, err := w.Suite.Leader(ctx)
	if err != nil {
		return nil, err
	}
	for i := range ready {
		if ready[i].Name == leader {
			ready[0], ready[i] = ready[i], ready[0]
			return ready, nil
		}
	}
	return nil, fmt.Errorf("the leader %s is not ready", leader)
}

func killLeader(ctx context.Context, w *World, _ *rand.Rand) (func(context.Context) error, error) {
	replicas, err := w.replicas(ctx)
	if err != nil {
		return nil, err
	}
	return nil, replicas[0].Kill()
}

// killLeaderAmidLaunches kills the leader while clients launch more instances than the node can
// start at a time, so these are simulated.
func killLeaderAmidLaunches(ctx context.Context, w *World, random *rand.Rand) (func(context.Context) error, error) {
	s, err := w.simulate(ctx, recorded)
	if err != nil {
		return nil, err
	}
	undo := func(ctx context.Context) error {
		return errors.Join(s.awaitGone(ctx, 2*time.Minute), s.end(ctx))
	}
	replicas, err := w.replicas(ctx)
	if err != nil {
		return undo, err
	}
	const clients, each = 20, 10
	var launches sync.WaitGroup
	defer launches.Wait()
	var begun, ended atomic.Int64
	for range clients {
		launches.Go(func() {
			for range each {
				begun.Add(1)
				w.Load.launch(ctx, recorded, Idle, shortTimeout)
				ended.Add(1)
			}
		})
	}
	amid := 20 + random.Int64N(clients*each-2*20)
	for begun.Load() < amid && pause(ctx, time.Millisecond) {
		continue
	}
	if ended.Load() == clients*each {
		return undo, errors.New("all launches had ended before the leader was killed")
	}
	defer w.Mended()
	return undo, replicas[0].Kill()
}

func killInTurn(ctx context.Context, w *World, random *rand.Rand) (func(context.Context) error, error) {
	return killEach(ctx, w, func() { pause(ctx, 15*time.Second+time.Duration(random.Int64N(int64(5*time.Second)))) })
}

// killEach kills all replicas, the leader first, and does something after each.
func killEach(ctx context.Context, w *World, after func()) (func(context.Context) error, error) {
	replicas, err := w.replicas(ctx)
	if err != nil {
		return nil, err
	}
	for _, replica := range replicas {
		if err := replica.Kill(); err != nil {
			return nil, err
		}
		w.Mended()
		after()
	}
	return nil, nil
}

func killAll(ctx context.Context, w *World, _ *rand.Rand) (func(context.Context) error, error) {
	return killEach(ctx, w, func() {})
}

func freezeLeader(ctx context.Context, w *World, _ *rand.Rand) (func(context.Context) error, error) {
	replicas, err := w.replicas(ctx)
	if err != nil {
		return nil, err
	}
	leader := replicas[0]
	return func(context.Context) error { return leader.Signal(syscall.SIGCONT) }, leader.Signal(syscall.SIGSTOP)
}

// roll restarts the Deployment's pods, as kubectl rollout restart does, and waits until that
// is done.
func roll(ctx context.Context, w *World, _ *rand.Rand) (func(context.Context) error, error) {
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}`, time.Now().Format(time.RFC3339Nano))
	return w.changeReplicas(ctx, patch)
}

// changeReplicas patches the template of the replicas' pods. It returns a function that waits
// until all replicas are replaced.
func (w *World) changeReplicas(ctx context.Context, patch string) (wait func(context.Context) error, err error) {
	deployments := w.Suite.Kube.Client.AppsV1().Deployments(harness.Namespace)
	changed, err := deployments.Patch(ctx, "binder-deploy-kubernetes", types.StrategicMergePatchType, []byte(`{"spec":{"template":`+patch+`}}`), metav1.PatchOptions{})
	if err != nil {
		return nil, fmt.Errorf("change the replicas: %w", err)
	}
	return func(ctx context.Context) error { return w.Suite.AwaitRollout(ctx, changed.Generation) }, nil
}
