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

// TestOtherReplicaKnowsAtOnce checks that a client can poll another replica right
// after a launch.
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

// TestReplicasGiveSameAnswers checks that both replicas give the same statuses and
// the same list.
func TestReplicasGiveSameAnswers(t *testing.T) {
	t.Parallel()
	replicas := suite.Replicas(t)
	deployed := suite.Launch(t, "echo-strip", harness.LongTimeout).AwaitDeployed(t)
	culled := suite.Launch(t, "echo-strip", time.Second)
	culled.AwaitEnd(t, time.Minute, "Culled")

	for _, instance := range []*harness.Instance{deployed, culled} {
		awaitSameAnswer(t, "status of "+instance.ID, func(api harness.API) any {
			return api.Status(t, instance.Template, instance.ID)
		})
	}
	tombstone := replicas[0].API.Status(t, culled.Template, culled.ID)
	require.Equal(t, "deleted", tombstone.Status)
	require.Equal(t, "Culled", tombstone.Reason)

	// Few tests use this template, so its list does not change meanwhile.
	awaitSameAnswer(t, "list of echo-strip", func(api harness.API) any { return api.List(t, "echo-strip") })
}

// awaitSameAnswer waits until both replicas give the same answer. Each replica's
// watch has a short delay.
func awaitSameAnswer(t *testing.T, what string, ask func(harness.API) any) {
	t.Helper()
	replicas := suite.Replicas(t)
	harness.Until(t, 10*time.Second, what+" is the same from both replicas", func(context.Context) error {
		one, other := ask(replicas[0].API), ask(replicas[1].API)
		if !assert.ObjectsAreEqual(one, other) {
			return fmt.Errorf("one reports %+v, the other %+v", one, other)
		}
		return nil
	})
}
