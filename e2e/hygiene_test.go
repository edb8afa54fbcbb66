//go:build e2e

package e2e

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestInstancePod checks that the pod has exactly the labels and annotations of the
// state contract, and no access that untrusted code should not have.
func TestInstancePod(t *testing.T) {
	t.Parallel()
	launched := time.Now()
	instance := suite.Launch(t, "echo", 0).AwaitDeployed(t)
	pod := instance.Pod(t)

	t.Run("labels", func(t *testing.T) {
		assert.Equal(t, []string{
			"app.kubernetes.io/managed-by", "binder-project.org/client", "binder-project.org/id", "binder-project.org/template", "binder-project.org/template-hash",
		}, slices.Sorted(maps.Keys(pod.Labels)))
		assert.Equal(t, "binder-deploy-kubernetes", pod.Labels["app.kubernetes.io/managed-by"])
		assert.Equal(t, instance.ID, pod.Labels["binder-project.org/id"])
		assert.Equal(t, "echo", pod.Labels["binder-project.org/template"])
		assert.NotEmpty(t, pod.Labels["binder-project.org/template-hash"])
	})
	t.Run("annotations", func(t *testing.T) {
		assert.Equal(t, []string{
			activityAnnotation, "binder-project.org/last-activity-source", "binder-project.org/launched",
			"binder-project.org/port", "binder-project.org/ready-when", "binder-project.org/template-name",
			"kubectl.kubernetes.io/default-container",
		}, slices.Sorted(maps.Keys(pod.Annotations)))
		assert.Equal(t, "echo", pod.Annotations["binder-project.org/template-name"])
		assert.Equal(t, "8888", pod.Annotations["binder-project.org/port"])
		last, err := time.Parse(time.RFC3339, pod.Annotations[activityAnnotation])
		require.NoError(t, err)
		assert.WithinRange(t, last, launched.Add(-time.Second), time.Now())
		assert.Equal(t, time.UTC, last.Location())
	})
	t.Run("no identity in the cluster", func(t *testing.T) {
		require.NotNil(t, pod.Spec.AutomountServiceAccountToken)
		assert.False(t, *pod.Spec.AutomountServiceAccountToken)
		assert.Empty(t, pod.Spec.Volumes)
		assert.Empty(t, pod.Spec.Containers[0].VolumeMounts)
		require.NotNil(t, pod.Spec.EnableServiceLinks)
		assert.False(t, *pod.Spec.EnableServiceLinks)
	})
	t.Run("readiness", func(t *testing.T) {
		probe := pod.Spec.Containers[0].ReadinessProbe
		require.NotNil(t, probe)
		require.NotNil(t, probe.TCPSocket)
		assert.Equal(t, 8888, probe.TCPSocket.Port.IntValue())
	})
	t.Run("environment", func(t *testing.T) {
		assert.Equal(t, map[string]string{
			"BINDER_ID": instance.ID, "BINDER_TEMPLATE": "echo", "BINDER_BASE_URL": "/user/" + instance.ID + "/",
		}, seenRequest(t, instance.URL("/")).Env)
		for _, variable := range pod.Spec.Containers[0].Env {
			assert.NotContains(t, variable.Value, suite.API.Key())
		}
	})
	assert.Equal(t, corev1.PodRunning, pod.Status.Phase)
}

// TestIDsAreUnguessable checks that ids are random, because an id is the only
// secret that protects an instance.
func TestIDsAreUnguessable(t *testing.T) {
	t.Parallel()
	one, other := suite.Launch(t, "echo", harness.LongTimeout), suite.Launch(t, "echo", harness.LongTimeout)
	assert.Regexp(t, `^[0-9a-f]{32}$`, one.ID)
	assert.NotEqual(t, one.ID[:8], other.ID[:8])
	assert.NotEqual(t, one.ID[24:], other.ID[24:])
}
