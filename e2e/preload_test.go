//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// preloadWait bounds a preload. A failed pull is retried after ten seconds.
const preloadWait = time.Minute

// preloadStatus is the answer to GET /preload/{template}.
type preloadStatus struct {
	Name      string    `json:"name"`
	StartTime time.Time `json:"start-time"`
	Status    string    `json:"status"`
	Done      int       `json:"nodes-done"`
	ToDo      int       `json:"nodes-to-do"`
	Reason    string    `json:"reason"`
	Message   string    `json:"message"`
}

func preload(t *testing.T, api harness.API, template string) {
	t.Helper()
	var answer struct {
		Template struct{ Name string }
	}
	api.Do(t, http.MethodPost, "/preload/"+template, "", "Authorization", api.Key()).Decode(t, &answer)
	assert.Equal(t, template, answer.Template.Name)
}

func preloadOf(t *testing.T, api harness.API, template string) (p preloadStatus) {
	t.Helper()
	api.Do(t, http.MethodGet, "/preload/"+template, "", "Authorization", api.Key()).Decode(t, &p)
	return p
}

// awaitPreload waits until both replicas report an accepted status of a preload.
func awaitPreload(t *testing.T, template, what string, accept func(preloadStatus) bool) (p preloadStatus) {
	t.Helper()
	for _, replica := range suite.Replicas(t) {
		harness.Until(t, preloadWait, "preload of "+template+": "+what, func(context.Context) error {
			if p = preloadOf(t, replica.API, template); !accept(p) {
				return fmt.Errorf("%s reports %+v", replica.Name, p)
			}
			return nil
		})
	}
	return p
}

func runsImage(image string) func(*corev1.PodTemplate) {
	return func(template *corev1.PodTemplate) { template.Template.Spec.Containers[0].Image = image }
}

// TestPreload follows a preload on a real node from start to end.
func TestPreload(t *testing.T) {
	t.Parallel()
	const template = "preloaded"
	completed := func(p preloadStatus) bool { return p.Status == "completed" }
	suite.CopyTemplate(t, "echo", template)

	never := suite.API.Do(t, http.MethodGet, "/preload/"+template, "", "Authorization", suite.API.Key())
	assert.JSONEq(t, "{}", string(never.Body))
	suite.API.Do(t, http.MethodPost, "/preload/"+template, "").WantError(t, http.StatusForbidden, "unauthorized")
	suite.API.Do(t, http.MethodPost, "/preload/nowhere", "", "Authorization", suite.API.Key()).
		WantError(t, http.StatusNotFound, "registryError")

	// The other replica knows a new preload at once.
	replicas := suite.Replicas(t)
	began := time.Now()
	preload(t, replicas[0].API, template)
	assert.Equal(t, template, preloadOf(t, replicas[1].API, template).Name)
	first := awaitPreload(t, template, "completed", completed)
	assert.Equal(t, preloadStatus{Name: template, StartTime: first.StartTime, Status: "completed", Done: 1}, first)
	assert.WithinRange(t, first.StartTime, began.Add(-2*time.Second), time.Now())

	preload(t, suite.API, template)
	assert.Equal(t, first, preloadOf(t, suite.API, template), "a repeated preload must change nothing")
	assert.Empty(t, suite.API.List(t, template), "preload pods must not be listed as instances")

	// A changed template is preloaded again without a request. The status reports
	// an image that cannot be pulled.
	suite.ChangeTemplate(t, template, runsImage("localhost/binder-missing:preloaded"))
	failed := awaitPreload(t, template, "failed", func(p preloadStatus) bool { return p.Status == "failed" })
	assert.Equal(t, "ErrImagePull", failed.Reason)
	assert.Contains(t, failed.Message, "localhost/binder-missing:preloaded")
	assert.Equal(t, [2]int{0, 1}, [2]int{failed.Done, failed.ToDo})
	assert.False(t, failed.StartTime.Before(first.StartTime), "start time %s is before %s", failed.StartTime, first.StartTime)

	suite.ChangeTemplate(t, template, runsImage("localhost/binder-echo:dev"))
	awaitPreload(t, template, "completed again", completed)
	assert.NotEqual(t, failed.StartTime, preloadOf(t, suite.API, template).StartTime)

	require.NoError(t, suite.Kube.Client.CoreV1().PodTemplates(harness.InstancesNamespace).
		Delete(t.Context(), template, metav1.DeleteOptions{}))
	harness.Until(t, preloadWait, "the preload ends with its template", func(ctx context.Context) error {
		return suite.NothingPreloaded(ctx, template)
	})
	suite.API.Do(t, http.MethodGet, "/preload/"+template, "", "Authorization", suite.API.Key()).
		WantError(t, http.StatusNotFound, "registryError")
}

// TestPreloadRunsNothingOfTheImage checks that a preload does not start the
// application: it succeeds even if the application would crash.
func TestPreloadRunsNothingOfTheImage(t *testing.T) {
	t.Parallel()
	const template = "preloaded-broken"
	suite.CopyTemplate(t, "echo", template, func(template *corev1.PodTemplate) {
		template.Template.Spec.Containers[0].Command = []string{"/nothing/of/the/kind"}
	})
	preload(t, suite.API, template)
	awaitPreload(t, template, "completed", func(p preloadStatus) bool { return p.Status == "completed" })

	pods, err := suite.Kube.Client.CoreV1().Pods(harness.InstancesNamespace).List(t.Context(), metav1.ListOptions{
		LabelSelector: "binder-project.org/template=" + template,
	})
	require.NoError(t, err)
	require.Len(t, pods.Items, 1)
	pod := pods.Items[0]
	require.Len(t, pod.Spec.Containers, 1)
	assert.Equal(t, "localhost/binder-pause:dev", pod.Spec.Containers[0].Image)
	for _, volume := range pod.Spec.Volumes {
		assert.NotNil(t, volume.Image, "%s is not an image volume", volume.Name)
	}
	assert.Zero(t, pod.Status.ContainerStatuses[0].RestartCount)
}

// TestPreloadByClient preloads with binder-client.
func TestPreloadByClient(t *testing.T) {
	t.Parallel()
	const template = "preloaded-by-client"
	suite.CopyTemplate(t, "echo", template)
	key, options := suite.API.Key(), map[string]any{"template-name": template}

	begun := suite.CallClient(t, key, "_preload", options)
	require.Nil(t, begun.Error)
	assert.Contains(t, string(begun.Result), `"image-source":"localhost/binder-echo:dev"`)
	harness.Until(t, preloadWait, "binder-client shows the preload as completed", func(context.Context) error {
		answer := suite.CallClient(t, key, "_preloadStatus", options)
		require.Nil(t, answer.Error)
		var status preloadStatus
		require.NoError(t, json.Unmarshal(answer.Result, &status))
		if status.Status != "completed" {
			return fmt.Errorf("the status is %+v", status)
		}
		return nil
	})
	denied := suite.CallClient(t, "wrong", "_preloadStatus", options)
	require.NotNil(t, denied.Error)
	assert.Contains(t, *denied.Error, "Unauthorized request")
}

// TestPreloadNewNodes checks the node counts with simulated nodes, which only this
// test's template tolerates.
func TestPreloadNewNodes(t *testing.T) {
	t.Parallel()
	const template = "preloaded-on-simulated"
	suite.SimulateNodes(t)
	suite.AddSimulatedNode(t, "simulated-1")
	suite.AddSimulatedNode(t, "simulated-2")
	suite.CopyTemplate(t, "echo", template, harness.OnSimulatedNodes)
	counts := func(status string, done, toDo int) func(preloadStatus) bool {
		return func(p preloadStatus) bool { return p.Status == status && p.Done == done && p.ToDo == toDo }
	}

	preload(t, suite.API, template)
	awaitPreload(t, template, "2 of 2", counts("completed", 2, 0))

	// A new node is preloaded, too, and until then the preload is loading.
	suite.AddSimulatedNode(t, "simulated-3")
	awaitPreload(t, template, "2 of 3", counts("loading", 2, 1))
	all := awaitPreload(t, template, "3 of 3", counts("completed", 3, 0))
	assert.Empty(t, all.Reason)

	// Without the toleration no node is eligible.
	suite.ChangeTemplate(t, template, func(template *corev1.PodTemplate) { template.Template.Spec.Tolerations = nil })
	none := awaitPreload(t, template, "no node", counts("loading", 0, 0))
	awaitPreload(t, template, "the reason is NoNodes", func(p preloadStatus) bool { return p.Reason == "NoNodes" })
	assert.False(t, none.StartTime.Before(all.StartTime))
}
