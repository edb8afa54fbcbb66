//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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
