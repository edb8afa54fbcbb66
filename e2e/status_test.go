//go:build e2e

package e2e

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// soon is how long the kubelet may take to find out that a container cannot start, on a
// busy machine.
const soon = 50 * time.Second

// withHelper adds a container to the pods of a template, with the application's image
// and rights, that listens on no port.
func withHelper(change func(helper *corev1.Container)) func(*corev1.PodTemplate) {
	return func(template *corev1.PodTemplate) {
		spec := &template.Template.Spec
		helper := *spec.Containers[0].DeepCopy()
		helper.Name, helper.Ports = "helper", nil
		helper.Env = append(helper.Env, corev1.EnvVar{Name: "START_DELAY", Value: "1h"})
		change(&helper)
		spec.Containers = append(spec.Containers, helper)
	}
}

// pollStatus polls the status of an instance until last accepts it. It fails the test if
// that takes too long. It returns all different answers.
func pollStatus(t *testing.T, instance *harness.Instance, within time.Duration, last func(harness.Status) bool) (all []harness.Status) {
	t.Helper()
	for end := time.Now().Add(within); time.Now().Before(end); pause(t.Context(), 100*time.Millisecond) {
		status := suite.API.StatusWithKey(t, instance.Template, instance.ID)
		status.LastActivity, status.CullAt = time.Time{}, time.Time{}
		if len(all) == 0 || all[len(all)-1] != status {
			all = append(all, status)
		}
		if last(status) {
			return all
		}
	}
	t.Fatalf("within %s there were only %+v", within, all)
	return nil
}

// TestMissingImageStaysFailed checks that an image that does not exist fails the launch
// at once, that the failure stays while the kubelet goes on trying, and that the
// instance ends a minute after it failed.
func TestMissingImageStaysFailed(t *testing.T) {
	t.Parallel()
	registry := httptest.NewServer(http.NotFoundHandler()) // of images
	defer registry.Close()
	image := strings.Replace(registry.URL, "http://127.0.0.1", "localhost", 1) + "/missing:dev"
	suite.CopyTemplate(t, "missing-image", "image-not-found", func(template *corev1.PodTemplate) {
		template.Template.Spec.Containers[0].Image = image
	})
	instance := suite.Launch(t, "image-not-found", harness.LongTimeout)
	first := instance.AwaitStatus(t, soon, "failed")
	failed := time.Now()
	assert.Equal(t, "ErrImagePull", first.Reason)
	assert.Equal(t, "template", first.Fault)
	assert.Contains(t, first.Message, "The image "+image+" does not exist")
	assert.Empty(t, first.Detail, "it is for holders of the key")

	for _, status := range pollStatus(t, instance, harness.FailedRetention+removalMargin, func(s harness.Status) bool { return s.Status == "deleted" && s.Reason == "Failed" }) {
		if status.Status == "deleted" {
			continue
		}
		assert.Equal(t, "failed", status.Status)
		assert.Equal(t, first.Reason, status.Reason)
		assert.Equal(t, first.Message, status.Message)
		assert.Contains(t, status.Detail, "not found")
	}
	assert.Less(t, time.Since(failed), harness.FailedRetention+removalMargin)
}

// TestHelperThatCannotStart checks that an instance is never deployed while one of its
// containers cannot start, although its application listens, and that it fails at once.
func TestHelperThatCannotStart(t *testing.T) {
	t.Parallel()
	suite.CopyTemplate(t, "echo", "helper-without-secret", withHelper(func(helper *corev1.Container) {
		helper.EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "template-missing"}}}}
	}))
	instance := suite.Launch(t, "helper-without-secret", harness.LongTimeout)
	answer := suite.API.Do(t, http.MethodGet, "/applications/"+instance.Template+"/"+instance.ID, "", "Prefer", "wait=35") // this dials
	var waited harness.Status
	answer.Decode(t, &waited)
	assert.Equal(t, "failed", waited.Status)

	status := instance.AwaitStatus(t, soon, "failed")
	assert.Equal(t, "CreateContainerConfigError", status.Reason)
	assert.Contains(t, status.Message, "The container helper needs a Secret or ConfigMap")
	assert.Contains(t, suite.API.StatusWithKey(t, instance.Template, instance.ID).Detail, `secret "template-missing" not found`)
	code, page := visit(t, http.MethodGet, instance.URL("/"), nil)
	assert.Equal(t, http.StatusBadGateway, code, page)
}

// TestMissingConfigMap checks that a volume that cannot be mounted is named while the
// launch waits for it, and in the end.
func TestMissingConfigMap(t *testing.T) {
	t.Parallel()
	const says = "A ConfigMap, Secret or volume that the template needs, or a key of one, does not exist."
	suite.CopyTemplate(t, "echo", "configmap-missing", func(template *corev1.PodTemplate) {
		spec := &template.Template.Spec
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: "settings", VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "template-missing"}},
		}})
		spec.Containers[0].VolumeMounts = append(spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "settings", MountPath: "/settings"})
	})
	instance := suite.Launch(t, "configmap-missing", harness.LongTimeout)
	all := pollStatus(t, instance, soon, func(s harness.Status) bool { return s.Status == "deploying" && s.Message == says })
	assert.Contains(t, all[len(all)-1].Detail, `configmap "template-missing" not found`)
	failed := instance.AwaitStatus(t, harness.StartTimeout+removalMargin, "failed")
	assert.Equal(t, "StartTimeout", failed.Reason)
	assert.Equal(t, "template", failed.Fault)
	assert.Contains(t, failed.Message, says)
}

// TestApplicationThatEndsAtOnce checks that an application that ends at once with code 0,
// again and again, is named with its code.
func TestApplicationThatEndsAtOnce(t *testing.T) {
	t.Parallel()
	suite.CopyTemplate(t, "echo", "ends-at-once", func(template *corev1.PodTemplate) {
		app := &template.Template.Spec.Containers[0]
		app.Image, app.Command = "localhost/binder-jupyter:dev", []string{"/bin/true"}
	})
	instance := suite.Launch(t, "ends-at-once", harness.LongTimeout)
	pollStatus(t, instance, soon, func(s harness.Status) bool {
		return s.Status == "deploying" && strings.Contains(s.Message, "container app exited with code 0")
	})
	failed := instance.AwaitStatus(t, harness.StartTimeout+removalMargin, "failed")
	assert.Regexp(t, `container app exited with code 0`, failed.Message)
	assert.Equal(t, "template", failed.Fault)
}

// TestRestartIsInTheStatus checks that clients are told that the application was started again.
func TestRestartIsInTheStatus(t *testing.T) {
	t.Parallel()
	suite.CopyTemplate(t, "echo", "restarts", func(template *corev1.PodTemplate) {
		template.Template.Spec.RestartPolicy = corev1.RestartPolicyAlways
	})
	instance := suite.Launch(t, "restarts", harness.LongTimeout).AwaitDeployed(t)
	require.Zero(t, instance.Status(t).Restarts)
	visit(t, http.MethodGet, instance.URL("/exit?code=3"), nil)
	all := pollStatus(t, instance, soon, func(s harness.Status) bool { return s.Status == "deployed" && s.Restarts == 1 })
	last := all[len(all)-1]
	assert.Equal(t, "exited with code 3", last.RestartReason)
	assert.Equal(t, "The application was started again: it exited with code 3. Files outside volumes are gone.", last.Message)
}

// TestHelperRunsOn checks that an instance ends with its application, although another
// container runs on.
func TestHelperRunsOn(t *testing.T) {
	t.Parallel()
	suite.CopyTemplate(t, "echo-once", "helper-runs-on", withHelper(func(*corev1.Container) {}))
	instance := suite.Launch(t, "helper-runs-on", harness.LongTimeout).AwaitDeployed(t)
	visit(t, http.MethodGet, instance.URL("/exit?code=3"), nil)
	status := instance.AwaitStatus(t, soon, "failed")
	assert.Equal(t, "Error", status.Reason)
	assert.Contains(t, status.Message, "container app exited with code 3")
	assert.Equal(t, corev1.PodRunning, instance.Pod(t).Status.Phase)
}
