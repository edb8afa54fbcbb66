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

// removalMargin covers the sweep, the delete and a busy machine.
const removalMargin = time.Minute

// TestRegistryThatDoesNotAnswer checks that a launch whose image is on a registry that
// does not answer goes on until the start timeout, and says what it waits for.
func TestRegistryThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "missing-image", harness.LongTimeout)
	status := instance.AwaitStatus(t, harness.StartTimeout+removalMargin, "failed")
	assert.Equal(t, "StartTimeout", status.Reason)
	assert.Contains(t, status.Message, "The image localhost/binder-missing:dev cannot be downloaded at the moment")
	assert.Equal(t, "cluster", status.Fault)
	assert.Empty(t, status.Location)
	code, page := visit(t, http.MethodGet, instance.URL("/"), nil)
	assert.Equal(t, http.StatusBadGateway, code, page)
}

// TestNeverReady checks that an instance that never becomes ready fails after the
// start timeout and is later removed.
func TestNeverReady(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo-late", harness.LongTimeout)
	instance.AwaitStatus(t, harness.StartTimeout, "deploying")

	failed := instance.AwaitStatus(t, harness.StartTimeout+removalMargin, "failed")
	assert.GreaterOrEqual(t, time.Since(instance.Launched), harness.StartTimeout-time.Second)
	assert.Equal(t, "StartTimeout", failed.Reason)
	assert.Contains(t, failed.Message, "The container runs, but nothing listens on port 8888 of the pod's address.")
	assert.Equal(t, "template", failed.Fault)
	assert.Empty(t, failed.Location)

	deleted := instance.AwaitEnd(t, harness.FailedRetention+removalMargin, "Failed")
	assert.Equal(t, failed.Message, deleted.Message)
	assert.Empty(t, deleted.Detail, "it is for holders of the key")
	assert.Contains(t, suite.API.StatusWithKey(t, instance.Template, instance.ID).Detail, "StartTimeout")
}

// TestCompletedInstanceEnds checks that an instance that exits with 0 leaves only
// its tombstone.
func TestCompletedInstanceEnds(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo-once", harness.LongTimeout).AwaitDeployed(t)
	visit(t, http.MethodGet, instance.URL("/exit?code=0"), nil)
	instance.AwaitEnd(t, removalMargin, "Completed")
}

// TestCrashedInstanceFails checks that an instance that exits with an error has
// failed, and that its message has the exit code.
func TestCrashedInstanceFails(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo-once", harness.LongTimeout).AwaitDeployed(t)
	b := openBrowser(t) // now: a failed instance does not stay for long
	visit(t, http.MethodGet, instance.URL("/exit?code=3"), nil)
	status := instance.AwaitStatus(t, removalMargin, "failed")
	assert.Contains(t, status.Message, "container app exited with code 3")
	assert.Contains(t, status.Message, "The container's last output:\necho: /user/[id]/exit asks it to exit")
	assert.Equal(t, "Error", status.Reason)
	assert.Empty(t, status.Location)
	b.open(browserHost + "/user/" + instance.ID + "/")
	b.awaitHeading("echo-once failed")
	assert.Contains(t, b.text("pre"), "asks it to exit")
	b.screenshot("failed")
	b.wantAccessible()
	b.wantNoPageErrors()
	instance.AwaitEnd(t, harness.FailedRetention+removalMargin, "Failed")
}

// TestPodDeletedByHand checks that a pod deleted with kubectl leaves a tombstone.
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
