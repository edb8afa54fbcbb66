//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// restartWait bounds the time until the kubelet has restarted a killed replica.
// After the first restart the kubelet backs off for ten seconds.
const restartWait = time.Minute

// TestStateSurvivesCrash kills all replicas at once and checks that nothing is
// lost. It is not parallel, because other tests need the service.
func TestStateSurvivesCrash(t *testing.T) {
	used := suite.Launch(t, "echo", harness.LongTimeout).AwaitDeployed(t)
	alsoUsed := suite.Launch(t, "echo", harness.LongTimeout).AwaitDeployed(t)
	stopped := suite.Launch(t, "echo", harness.LongTimeout).AwaitDeployed(t)
	suite.API.Do(t, http.MethodDelete, "/applications/echo/"+stopped.ID, "", "Authorization", suite.API.Key()).
		Decode(t, &harness.Status{})
	stopped.AwaitEnd(t, removalMargin, "Stopped")

	instances := []*harness.Instance{used, alsoUsed, stopped}
	before := map[string]harness.Status{}
	for _, instance := range instances {
		before[instance.ID] = instance.Status(t)
	}
	require.Equal(t, "deployed", before[used.ID].Status)
	require.Equal(t, "deleted", before[stopped.ID].Status)

	killReplicas(t)

	for _, instance := range instances {
		assert.Equal(t, before[instance.ID], instance.Status(t))
	}
	code, page := visit(t, http.MethodGet, used.URL("/"), nil)
	assert.Equal(t, http.StatusOK, code, page)
	code, page = visit(t, http.MethodGet, stopped.URL("/"), nil)
	assert.Equal(t, http.StatusGone, code, page)
	suite.Launch(t, "echo", harness.LongTimeout).AwaitDeployed(t)
}

// TestReplicaThatLeavesTakesItsLeaseAlong deletes the leader's pod, as a drain does. The other
// replica must not wait for what it still had to write, and so its Lease must go with it.
func TestReplicaThatLeavesTakesItsLeaseAlong(t *testing.T) {
	leases := suite.Kube.Client.CoordinationV1().Leases(harness.Namespace)
	holders := func(ctx context.Context) (held []string, err error) {
		list, err := leases.List(ctx, metav1.ListOptions{LabelSelector: "binder-project.org/election=binder-deploy-kubernetes"})
		if err != nil {
			return nil, err
		}
		for _, lease := range list.Items {
			held = append(held, *lease.Spec.HolderIdentity)
		}
		return held, nil
	}
	suite.Replicas(t)
	leader, err := suite.Leader(t.Context())
	require.NoError(t, err)
	harness.Until(t, restartWait, "the leader has a Lease of its own", func(ctx context.Context) error {
		held, err := holders(ctx)
		if err == nil && !slices.Contains(held, leader) {
			err = fmt.Errorf("the replicas with a Lease are %q", held)
		}
		return err
	})

	require.NoError(t, suite.Kube.Client.CoreV1().Pods(harness.Namespace).Delete(t.Context(), leader, metav1.DeleteOptions{}))
	harness.Until(t, 2*restartWait, "another replica leads, and only the two that are there have a Lease", func(ctx context.Context) error {
		replicas, err := suite.ReadyReplicas(ctx)
		if err != nil {
			return err
		}
		var names []string
		for _, replica := range replicas {
			names = append(names, replica.Name)
		}
		held, err := holders(ctx)
		if err != nil {
			return err
		}
		leads, err := suite.Leader(ctx)
		if err == nil && (len(names) != 2 || !slices.Contains(names, leads) || !slices.Equal(slices.Sorted(slices.Values(names)), slices.Sorted(slices.Values(held)))) {
			err = fmt.Errorf("%q leads, the replicas are %q, and those with a Lease %q", leads, names, held)
		}
		return err
	})
	suite.AwaitAPI(t)
}

// killReplicas kills all replicas and waits until each has restarted and is ready.
func killReplicas(t *testing.T) {
	before := suite.Replicas(t)
	for _, replica := range before {
		require.NoError(t, replica.Kill())
	}
	harness.Until(t, restartWait, "all replicas have restarted", func(ctx context.Context) error {
		now := restarts(t)
		for _, replica := range before {
			if now[replica.Name] <= replica.Restarts {
				return fmt.Errorf("%s has not restarted", replica.Name)
			}
		}
		return nil
	})
	suite.AwaitAPI(t)
}
