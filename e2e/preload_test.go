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

// preloadWait is how long pulling may take; a failed pull is tried again after
// ten seconds.
const preloadWait = time.Minute

// preloaded is the answer to GET /preload/{template}.
type preloaded struct {
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

func preloadOf(t *testing.T, api harness.API, template string) (p preloaded) {
	t.Helper()
	api.Do(t, http.MethodGet, "/preload/"+template, "", "Authorization", api.Key()).Decode(t, &p)
	return p
}

// awaitPreload waits until both replicas tell of a preload what is wanted.
func awaitPreload(t *testing.T, template, what string, good func(preloaded) bool) (p preloaded) {
	t.Helper()
	for _, replica := range suite.Replicas(t) {
		harness.Until(t, preloadWait, "preload of "+template+": "+what, func(context.Context) error {
			if p = preloadOf(t, replica.API, template); !good(p) {
				return fmt.Errorf("%s says %+v", replica.Name, p)
			}
			return nil
		})
	}
	return p
}

func runsImage(image string) func(*corev1.PodTemplate) {
	return func(template *corev1.PodTemplate) { template.Template.Spec.Containers[0].Image = image }
}

// TestPreload is the life of a preload on a real node.
func TestPreload(t *testing.T) {
	t.Parallel()
	const template = "preloaded"
	completed := func(p preloaded) bool { return p.Status == "completed" }
	suite.CopyTemplate(t, "echo", template)

	never := suite.API.Do(t, http.MethodGet, "/preload/"+template, "", "Authorization", suite.API.Key())
	assert.JSONEq(t, "{}", string(never.Body))
	suite.API.Do(t, http.MethodPost, "/preload/"+template, "").WantError(t, http.StatusForbidden, "unauthorized")
	suite.API.Do(t, http.MethodPost, "/preload/nowhere", "", "Authorization", suite.API.Key()).
		WantError(t, http.StatusNotFound, "registryError")

	// One replica begins, and the other knows at once.
	replicas := suite.Replicas(t)
	began := time.Now()
	preload(t, replicas[0].API, template)
	assert.Equal(t, template, preloadOf(t, replicas[1].API, template).Name)
	first := awaitPreload(t, template, "completed", completed)
	assert.Equal(t, preloaded{Name: template, StartTime: first.StartTime, Status: "completed", Done: 1}, first)
	assert.WithinRange(t, first.StartTime, began.Add(-2*time.Second), time.Now())

	preload(t, suite.API, template)
	assert.Equal(t, first, preloadOf(t, suite.API, template), "preloaded once more")
	assert.Empty(t, suite.API.List(t, template), "pods that pull images are nobody's instances")

	// A change begins anew, without being asked; what cannot be pulled is told of.
	suite.ChangeTemplate(t, template, runsImage("localhost/binder-missing:preloaded"))
	failed := awaitPreload(t, template, "failed", func(p preloaded) bool { return p.Status == "failed" })
	assert.Equal(t, "ImagePullBackOff", failed.Reason)
	assert.Contains(t, failed.Message, "localhost/binder-missing:preloaded")
	assert.Equal(t, [2]int{0, 1}, [2]int{failed.Done, failed.ToDo})
	assert.False(t, failed.StartTime.Before(first.StartTime), "%s and before %s", failed.StartTime, first.StartTime)

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

// TestPreloadRunsNothingOfTheImage: an application that would break down at
// once is preloaded all the same, for it is not started.
func TestPreloadRunsNothingOfTheImage(t *testing.T) {
	t.Parallel()
	const template = "preloaded-broken"
	suite.CopyTemplate(t, "echo", template, func(template *corev1.PodTemplate) {
		template.Template.Spec.Containers[0].Command = []string{"/nothing/of/the/kind"}
	})
	preload(t, suite.API, template)
	awaitPreload(t, template, "completed", func(p preloaded) bool { return p.Status == "completed" })

	pods, err := suite.Kube.Client.CoreV1().Pods(harness.InstancesNamespace).List(t.Context(), metav1.ListOptions{
		LabelSelector: "binder-project.org/template=" + template,
	})
	require.NoError(t, err)
	require.Len(t, pods.Items, 1)
	pod := pods.Items[0]
	require.Len(t, pod.Spec.Containers, 1)
	assert.Equal(t, "localhost/binder-pause:dev", pod.Spec.Containers[0].Image)
	for _, volume := range pod.Spec.Volumes {
		assert.NotNil(t, volume.Image, "no token and nothing else: %s", volume.Name)
	}
	assert.Zero(t, pod.Status.ContainerStatuses[0].RestartCount)
}

// TestPreloadByClient calls as binder-client does.
func TestPreloadByClient(t *testing.T) {
	t.Parallel()
	const template = "preloaded-by-client"
	suite.CopyTemplate(t, "echo", template)
	key, options := suite.API.Key(), map[string]any{"template-name": template}

	begun := suite.CallClient(t, key, "_preload", options)
	require.Nil(t, begun.Error)
	assert.Contains(t, string(begun.Result), `"image-source":"localhost/binder-echo:dev"`)
	harness.Until(t, preloadWait, "completed, by binder-client", func(context.Context) error {
		answer := suite.CallClient(t, key, "_preloadStatus", options)
		require.Nil(t, answer.Error)
		var status preloaded
		require.NoError(t, json.Unmarshal(answer.Result, &status))
		if status.Status != "completed" {
			return fmt.Errorf("it is %+v", status)
		}
		return nil
	})
	denied := suite.CallClient(t, "wrong", "_preloadStatus", options)
	require.NotNil(t, denied.Error)
	assert.Contains(t, *denied.Error, "Unauthorized request")
}

// TestPreloadNodesThatJoin counts on simulated nodes, to which only this
// template may go.
func TestPreloadNodesThatJoin(t *testing.T) {
	t.Parallel()
	const template = "preloaded-on-simulated"
	suite.SimulateNodes(t)
	suite.AddSimulatedNode(t, "simulated-1")
	suite.AddSimulatedNode(t, "simulated-2")
	onSimulated := func(template *corev1.PodTemplate) {
		template.Template.Spec.NodeSelector = map[string]string{harness.SimulatedKey: "true"}
		template.Template.Spec.Tolerations = []corev1.Toleration{{Key: harness.SimulatedKey, Operator: corev1.TolerationOpExists}}
	}
	suite.CopyTemplate(t, "echo", template, onSimulated)
	counts := func(status string, done, toDo int) func(preloaded) bool {
		return func(p preloaded) bool { return p.Status == status && p.Done == done && p.ToDo == toDo }
	}

	preload(t, suite.API, template)
	awaitPreload(t, template, "2 of 2", counts("completed", 2, 0))

	// One that joins has to have them too, and is waited for while it has not.
	suite.AddSimulatedNode(t, "simulated-3")
	awaitPreload(t, template, "2 of 3", counts("loading", 2, 1))
	all := awaitPreload(t, template, "3 of 3", counts("completed", 3, 0))
	assert.Empty(t, all.Reason)

	// Without the toleration the nodes are not for this template, and it goes to
	// none of them.
	suite.ChangeTemplate(t, template, func(template *corev1.PodTemplate) { template.Template.Spec.Tolerations = nil })
	none := awaitPreload(t, template, "no node", counts("loading", 0, 0))
	awaitPreload(t, template, "no node, and it says so", func(p preloaded) bool { return p.Reason == "NoNodes" })
	assert.False(t, none.StartTime.Before(all.StartTime))
}
