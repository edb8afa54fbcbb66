//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestOtherReplicaKnowsAtOnce: the client that polls need not meet the replica
// that launched.
func TestOtherReplicaKnowsAtOnce(t *testing.T) {
	t.Parallel()
	replicas := suite.Replicas(t)
	for i := range 6 {
		one, other := replicas[i%2], replicas[1-i%2]
		instance := suite.LaunchAt(t, one.API, "echo", harness.LongTimeout)
		status := other.API.Status(t, "echo", instance.ID) // fails the test on 404
		assert.Equal(t, instance.ID, status.ID)
	}
}

// TestReplicasAnswerAlike asks both for everything there is to ask.
func TestReplicasAnswerAlike(t *testing.T) {
	t.Parallel()
	replicas := suite.Replicas(t)
	deployed := suite.Launch(t, "echo-strip", harness.LongTimeout).AwaitDeployed(t)
	culled := suite.Launch(t, "echo-strip", time.Second)
	culled.AwaitEnd(t, time.Minute, "Culled")

	for _, instance := range []*harness.Instance{deployed, culled} {
		alike(t, "status of "+instance.ID, func(api harness.API) any {
			return api.Status(t, instance.Template, instance.ID)
		})
	}
	tombstone := replicas[0].API.Status(t, culled.Template, culled.ID)
	require.Equal(t, "deleted", tombstone.Status)
	require.Equal(t, "Culled", tombstone.Reason)

	// This template is used by few tests, so that the list holds still.
	alike(t, "list of echo-strip", func(api harness.API) any { return api.List(t, "echo-strip") })
}

// alike waits until both replicas give the same answer: the watch that tells
// them is quick, but takes no time at all for neither.
func alike(t *testing.T, what string, ask func(harness.API) any) {
	t.Helper()
	replicas := suite.Replicas(t)
	harness.Until(t, 10*time.Second, what+" is the same from both replicas", func(context.Context) error {
		one, other := ask(replicas[0].API), ask(replicas[1].API)
		if !assert.ObjectsAreEqual(one, other) {
			return fmt.Errorf("one says %+v, the other %+v", one, other)
		}
		return nil
	})
}
