package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

const (
	// simulated and recorded are the templates of instances on the simulated node. The load does
	// not use them, because nothing runs in them. The ledger does not know those of simulated:
	// there can be too many.
	simulated     = "faults-simulated"
	recorded      = "faults-recorded"
	simulatedNode = "faults-simulated"
)

// simulation is a node of which nothing is real, with the instances of a template.
type simulation struct {
	world    *World
	template string
	pods     clientcorev1.PodInterface
	stop     func() (output string)
}

// simulate adds a node, and a process that acts as its kubelet.
func (w *World) simulate(ctx context.Context, template string) (*simulation, error) {
	stop, err := w.Suite.StartSimulation()
	if err != nil {
		return nil, err
	}
	s := &simulation{w, template, w.Suite.Kube.Client.CoreV1().Pods(harness.InstancesNamespace), stop}
	if err := w.Suite.CreateSimulatedNode(ctx, simulatedNode); err != nil {
		return nil, errors.Join(err, s.end(ctx))
	}
	return s, nil
}

// end removes the node and its pods, wherever they are in their lives. The API server would not
// delete thousands within the time of one request.
func (s *simulation) end(ctx context.Context) error {
	defer s.stop()
	pods, err := s.pods.List(ctx, s.selected())
	if err == nil {
		err = each(ctx, len(pods.Items), func(ctx context.Context, i int) error {
			return ignoreGone(s.pods.Delete(ctx, pods.Items[i].Name, *metav1.NewDeleteOptions(0)))
		})
	}
	return errors.Join(err, s.world.Suite.DeleteSimulatedNode(ctx, simulatedNode))
}

// selected selects what belongs to simulated instances.
func (s *simulation) selected() metav1.ListOptions {
	return metav1.ListOptions{LabelSelector: templateLabel + "=" + s.template}
}

// awaitGone waits until no instance is left, and complains if that takes too long.
func (s *simulation) awaitGone(ctx context.Context, within time.Duration) error {
	for until := time.Now().Add(within); ; {
		pods, err := s.pods.List(ctx, s.selected())
		if err != nil {
			return fmt.Errorf("list the instances: %w", err)
		}
		if len(pods.Items) == 0 {
			return nil
		}
		if time.Now().After(until) {
			s.world.Ledger.Complain("%d simulated instances are still there after %s", len(pods.Items), within)
			return nil
		}
		if !pause(ctx, time.Second) {
			return ctx.Err()
		}
	}
}

// await waits until each replica knows so many simulated instances, all deployed.
func (s *simulation) await(ctx context.Context, want int, within time.Duration) error {
	for until := time.Now().Add(within); ; pause(ctx, time.Second) {
		replicas, err := s.world.replicas(ctx)
		for _, replica := range replicas {
			err = errors.Join(err, knows(ctx, replica, want))
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(until) {
			return fmt.Errorf("not within %s: %w", within, err)
		}
	}
}

// knows returns nil if a replica knows so many simulated instances, all deployed.
func knows(ctx context.Context, replica harness.Replica, want int) error {
	// To compare thousands of statuses with docs/openapi.json takes long.
	answer, err := replica.API.OfOtherVersion().Try(ctx, http.MethodGet, "/applications/"+simulated, "", "Authorization", replica.API.Key())
	if err != nil {
		return err
	}
	var list []harness.Status
	if err := json.Unmarshal(answer.Body, &list); err != nil {
		return fmt.Errorf("%s answers with %d: %.300q", replica.Name, answer.Code, answer.Body)
	}
	statuses := map[string]int{}
	for _, status := range list {
		statuses[status.Status]++
	}
	// Those that have ended are known for an hour.
	if living := len(list) - statuses["deleted"]; living != want || statuses["deployed"] != want {
		return fmt.Errorf("%s knows %d simulated instances, %v, and not %d that are deployed", replica.Name, len(list), statuses, want)
	}
	return nil
}
