//go:build e2e

package e2e

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// removalMargin is for the sweep, the delete and a busy machine.
const removalMargin = 30 * time.Second

// TestImageThatCannotBePulled fails as soon as the kubelet has tried twice, and
// is not waited for until the start timeout.
func TestImageThatCannotBePulled(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "missing-image", harness.LongTimeout)
	status := instance.AwaitStatus(t, harness.StartTimeout, "failed")
	assert.Equal(t, "ImagePullBackOff", status.Reason)
	assert.Contains(t, status.Message, "localhost/binder-missing:dev")
	assert.Empty(t, status.Location)
	code, page := visit(t, http.MethodGet, instance.URL("/"), nil)
	assert.Equal(t, http.StatusBadGateway, code, page)
}

// TestNeverReady fails when the start timeout is over, is shown as failed for a
// while, and is then removed: an orphan must not live for ever.
func TestNeverReady(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo-late", harness.LongTimeout)
	instance.AwaitStatus(t, harness.StartTimeout, "deploying")

	failed := instance.AwaitStatus(t, harness.StartTimeout+removalMargin, "failed")
	assert.GreaterOrEqual(t, time.Since(instance.Launched), harness.StartTimeout-time.Second)
	assert.Equal(t, "StartTimeout", failed.Reason)
	assert.NotEmpty(t, failed.Message)
	assert.Empty(t, failed.Location)

	deleted := instance.AwaitEnd(t, harness.FailedRetention+removalMargin, "Failed")
	assert.Contains(t, deleted.Message, "StartTimeout")
}

// TestCompletedInstanceEnds: a container that is over with its work leaves
// nothing behind but its tombstone.
func TestCompletedInstanceEnds(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo-once", harness.LongTimeout).AwaitDeployed(t)
	visit(t, http.MethodGet, instance.URL("/exit?code=0"), nil)
	instance.AwaitEnd(t, removalMargin, "Gone")
}

// TestBrokenInstanceFails: one that breaks down is failed, with the exit code.
func TestBrokenInstanceFails(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo-once", harness.LongTimeout).AwaitDeployed(t)
	visit(t, http.MethodGet, instance.URL("/exit?code=3"), nil)
	status := instance.AwaitStatus(t, removalMargin, "failed")
	assert.Contains(t, status.Message, "3")
	assert.NotEmpty(t, status.Reason)
	assert.Empty(t, status.Location)
	instance.AwaitEnd(t, harness.FailedRetention+removalMargin, "Failed")
}

// TestPodDeletedByHand: what kubectl took away is over, and known to be.
func TestPodDeletedByHand(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo", harness.LongTimeout).AwaitDeployed(t)
	err := suite.Kube.Client.CoreV1().Pods(harness.InstancesNamespace).
		Delete(t.Context(), instance.PodName(), metav1.DeleteOptions{})
	assert.NoError(t, err)
	instance.AwaitEnd(t, removalMargin, "Gone")
	code, page := visit(t, http.MethodGet, instance.URL("/"), nil)
	assert.Equal(t, http.StatusGone, code, page)
}
