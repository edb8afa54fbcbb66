package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

const (
	massSize  = 500
	crowdSize = 10_000
	// massTimeout is the timeout that all instances of a mass get at the same moment. They end
	// together once it and the lag have passed, and all must be gone massRemoval later, or later
	// still where a write takes long.
	massTimeout = 20 * time.Second
	massRemoval = 45 * time.Second
	// writesToEnd is how many writes the end of a simulated instance is: its tombstone, its
	// deletion, the status that says that it has ended, and its removal.
	writesToEnd = 4
	// writers is how many requests are under way at a time: fewer than the service writes at a
	// time, so that none is refused as too many.
	writers = 12
)

// massFaults are about many instances. The node has no room for so many, so they are simulated.
func massFaults() []Fault {
	return []Fault{
		{
			Name: "500 instances end at once", Make: endAtOnce, Within: 15 * time.Second,
			Harmless: []Kind{Launches, Polls, Stops, Pages, Uploads, Downloads, WebSockets},
		},
		{Name: "the leader is killed while 300 visitors wait for 50 places", Make: killLeaderOfQueue, Within: time.Minute, Cuts: true, Short: true},
		{Name: "the leader of 10,000 instances is killed", Make: killLeaderOfMany, Hold: 45 * time.Second, Within: 90 * time.Second, Cuts: true},
	}
}

// endAtOnce launches many instances, and lets the timeouts of all end at the same moment.
func endAtOnce(ctx context.Context, w *World, _ *rand.Rand) (undo func(context.Context) error, err error) {
	s, err := w.simulate(ctx, simulated)
	if err != nil {
		return nil, err
	}
	ids, err := s.launch(ctx, massSize)
	if err != nil {
		return s.end, err
	}
	if err := s.await(ctx, massSize, 2*time.Minute); err != nil {
		return s.end, err
	}
	began := time.Now()
	used := began.Add(20 * time.Second) // by then, all say so
	change, err := json.Marshal(map[string]any{"metadata": metadata{"annotations": map[string]string{
		cullTimeout: massTimeout.String(), lastActivity: used.UTC().Format(time.RFC3339),
	}}})
	if err != nil {
		return s.end, err
	}
	if err := each(ctx, len(ids), func(ctx context.Context, i int) error {
		_, err := s.pods.Patch(ctx, harness.PodName(ids[i]), types.MergePatchType, change, metav1.PatchOptions{})
		return err
	}); err != nil {
		return s.end, fmt.Errorf("give all the same timeout: %w", err)
	}
	if late := time.Since(used); late > 0 {
		return s.end, fmt.Errorf("the instances got their timeout %s too late", late)
	}
	removal := massRemoval + writesToEnd*time.Since(began)
	return s.end, s.awaitEnds(ctx, used.Truncate(time.Second).Add(massTimeout), removal)
}

// awaitEnds waits until all instances have ended, which none may before a time, and complains
// about those that have not in time, or have ended for another reason than that nobody has
// used them.
func (s *simulation) awaitEnds(ctx context.Context, earliest time.Time, removal time.Duration) error {
	ledger := s.world.Ledger
	until := earliest.Add(boundsOf(Fault{}).lag(massTimeout) + removal)
	for {
		asked := time.Now()
		pods, err := s.pods.List(ctx, s.selected())
		if err != nil {
			return fmt.Errorf("list the instances: %w", err)
		}
		switch {
		case asked.Before(earliest) && len(pods.Items) < massSize:
			ledger.Complain("%d of %d instances have ended before their timeout", massSize-len(pods.Items), massSize)
			return nil
		case len(pods.Items) == 0:
			return s.checkTombstones(ctx)
		case asked.After(until):
			ledger.Complain("%d of %d instances that ended at once are still there after %s", len(pods.Items), massSize, asked.Sub(earliest).Round(time.Second))
			return nil
		}
		pause(ctx, time.Second)
	}
}

func (s *simulation) checkTombstones(ctx context.Context) error {
	events, err := s.world.Suite.Kube.Client.CoreV1().Events(harness.InstancesNamespace).List(ctx, s.selected())
	if err != nil {
		return fmt.Errorf("list the tombstones: %w", err)
	}
	reasons := map[string]int{}
	for _, event := range events.Items {
		reasons[event.Reason]++
	}
	// Those of a round before are there for an hour.
	if reasons["Culled"] < massSize || reasons["Culled"]%massSize != 0 {
		s.world.Ledger.Complain("%d instances have ended because they were not used, but there are tombstones %v", massSize, reasons)
	}
	return nil
}

// killLeaderOfMany kills the leader of a crowd of instances. Afterwards the API must know as
// many as before, and none may have ended.
func killLeaderOfMany(ctx context.Context, w *World, random *rand.Rand) (undo func(context.Context) error, err error) {
	s, err := w.simulate(ctx, simulated)
	if err != nil {
		return nil, err
	}
	if err := s.crowd(ctx, random); err != nil {
		return s.end, err
	}
	if _, err := killLeader(ctx, w, random); err != nil {
		return s.end, err
	}
	return func(ctx context.Context) error {
		if err := s.await(ctx, crowdSize, time.Minute); err != nil {
			w.Ledger.Complain("after the leader was killed: %v", err)
		}
		return s.end(ctx)
	}, nil
}

// crowd launches an instance and copies its pod, until there is a crowd that each replica knows.
func (s *simulation) crowd(ctx context.Context, random *rand.Rand) error {
	ids, err := s.launch(ctx, 1)
	if err != nil {
		return err
	}
	if err := s.await(ctx, 1, time.Minute); err != nil {
		return err
	}
	original, err := s.pods.Get(ctx, harness.PodName(ids[0]), metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read an instance's pod: %w", err)
	}
	copies := make([]*corev1.Pod, crowdSize-1)
	for i := range copies {
		copies[i] = copyOf(original, fmt.Sprintf("%016x%016x", random.Uint64(), random.Uint64()))
	}
	if err := each(ctx, len(copies), func(ctx context.Context, i int) error {
		return retry.RetryOnConflict(retry.DefaultBackoff, func() error { // at the quota
			_, err := s.pods.Create(ctx, copies[i], metav1.CreateOptions{})
			return err
		})
	}); err != nil {
		return fmt.Errorf("copy an instance: %w", err)
	}
	return s.await(ctx, crowdSize, 15*time.Minute)
}

// copyOf returns a pod like that of an instance, with another id.
func copyOf(original *corev1.Pod, id string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: harness.PodName(id), Labels: map[string]string{}, Annotations: original.Annotations,
	}, Spec: *original.Spec.DeepCopy()}
	for key, value := range original.Labels {
		pod.Labels[key] = value
	}
	pod.Labels[idLabel] = id
	return pod
}

// each calls do with the numbers below n, several at a time, until one fails.
func each(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for i := range n {
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return do(ctx, i)
		})
	}
	return group.Wait()
}

// launch launches instances that are simulated, and returns their ids.
func (s *simulation) launch(ctx context.Context, n int) (ids []string, err error) {
	ids = make([]string, n)
	body := fmt.Sprintf(`{"template-name": %q, "cull-timeout": %d}`, simulated, harness.LongTimeout.Milliseconds())
	return ids, each(ctx, n, func(ctx context.Context, i int) error {
		answer, err := s.world.Load.try(ctx, http.MethodPost, "/applications/", body)
		if failure := failureOf(answer.Code, err); failure != "" {
			return fmt.Errorf("launch a simulated instance: %s %s", failure, answer.Body)
		}
		var launched harness.Status
		err = json.Unmarshal(answer.Body, &launched)
		ids[i] = launched.ID
		return err
	})
}
