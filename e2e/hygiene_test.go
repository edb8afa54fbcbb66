//go:build e2e

package e2e

import (
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
			"binder-project.org/token", "kubectl.kubernetes.io/default-container",
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
		seen := seenRequest(t, instance.URL("/"), "X-Binder-Token", "forged")
		token := pod.Annotations["binder-project.org/token"]
		assert.Regexp(t, `^[0-9a-f]{32}$`, token)
		assert.Equal(t, []string{token}, seen.Headers["X-Binder-Token"], "the proxy must show the token")
		assert.Equal(t, map[string]string{
			"BINDER_ID": instance.ID, "BINDER_TEMPLATE": "echo", "BINDER_BASE_URL": "/user/" + instance.ID + "/", "BINDER_TOKEN": token,
		}, seen.Env)
		for _, variable := range pod.Spec.Containers[0].Env {
			assert.NotContains(t, variable.Value, suite.API.Key())
		}
	})
	assert.Equal(t, corev1.PodRunning, pod.Status.Phase)
}

// TestEventsHaveNoIDs checks that the text of Events has no ids. The labels of tombstones
// have them.
func TestEventsHaveNoIDs(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo", harness.LongTimeout).AwaitDeployed(t)
	suite.API.Do(t, http.MethodDelete, "/applications/echo/"+instance.ID, "", "Authorization", suite.API.Key()).Decode(t, &harness.Status{})
	events, err := suite.Kube.Client.CoreV1().Events(harness.InstancesNamespace).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	ofPod := 0
	for _, event := range events.Items {
		if event.InvolvedObject.Name == instance.PodName() {
			ofPod++
		}
		for _, text := range []string{event.Name, event.InvolvedObject.Name, event.Reason, event.Message} {
			assert.NotContains(t, text, instance.ID)
		}
	}
	assert.Greater(t, ofPod, 1, "want the kubelet's Events and the tombstone")
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
