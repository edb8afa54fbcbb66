//go:build e2e

package e2e

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestRegistryTemplate launches a template from the registry. Its pod must meet the
// namespace's pod security standard.
func TestRegistryTemplate(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, harness.RegistryTemplate, harness.LongTimeout).AwaitDeployed(t)
	status := instance.Status(t)
	assert.Equal(t, harness.RegistryTemplate, status.TemplateName)
	assert.Equal(t, instance.Location(), status.Location)
	code, page := visit(t, http.MethodGet, instance.URL("/"), nil)
	assert.Equal(t, http.StatusOK, code, page)

	pod := instance.Pod(t)
	container := pod.Spec.Containers[0]
	assert.Equal(t, "localhost/binder-echo:dev", container.Image)
	assert.Equal(t, corev1.PullIfNotPresent, container.ImagePullPolicy, "Kubernetes' default for a tag other than latest")
	assert.Equal(t, []string{"/echo"}, container.Command)
	assert.Equal(t, "64Mi", container.Resources.Limits.Memory().String())
	assert.Equal(t, "100m", container.Resources.Requests.Cpu().String(), "less than the limit")
	require.NotNil(t, pod.Spec.AutomountServiceAccountToken)
	assert.False(t, *pod.Spec.AutomountServiceAccountToken)
	assert.Equal(t, harness.RegistryTemplate, pod.Annotations["binder-project.org/template-name"])
	found := false
	for _, listed := range suite.API.List(t, harness.RegistryTemplate) {
		found = found || listed.ID == instance.ID
	}
	assert.True(t, found, "the template's list does not contain the instance")
}

// TestRegistryFailures checks that a failing registry neither launches an instance
// nor crashes a replica.
func TestRegistryFailures(t *testing.T) {
	t.Parallel()
	before := restarts(t)
	for _, test := range []struct {
		template string
		code     int
		kind     string
	}{
		{"nobody-knows-it", http.StatusNotFound, "registryError"},
		{harness.RegistryBroken, http.StatusServiceUnavailable, "registryError"},
		{harness.RegistryNonsense, http.StatusServiceUnavailable, "registryError"},
		{harness.RegistryErrorBody, http.StatusServiceUnavailable, "registryError"},
		{harness.RegistryCut, http.StatusServiceUnavailable, "registryError"},
		{harness.RegistrySlow, http.StatusServiceUnavailable, "registryError"},
		{harness.RegistryBadLimit, http.StatusInternalServerError, "badKubeRequest"},
	} {
		t.Run(test.template, func(t *testing.T) {
			began := time.Now()
			answer := suite.API.Do(t, http.MethodPost, "/applications/"+test.template, "")
			answer.WantError(t, test.code, test.kind)
			assert.Less(t, time.Since(began), 10*time.Second)
			assert.Equal(t, test.code == http.StatusServiceUnavailable, answer.Header.Get("Retry-After") != "")
			assert.Empty(t, suite.API.List(t, test.template))
		})
	}
	assert.Equal(t, before, restarts(t), "a replica has crashed")
}
