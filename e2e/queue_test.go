//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestQueue follows visitors of a template with one place, by a page and by the API. Each is told
// who is before them, and gets the place in turn.
func TestQueue(t *testing.T) {
	t.Parallel()
	const template = "queue-echo"
	suite.CopyTemplate(t, "echo", template, func(made *corev1.PodTemplate) {
		made.Annotations["binder-project.org/max-instances"] = "1"
	})
	first := suite.Launch(t, template, harness.LongTimeout).AwaitDeployed(t)
	second := suite.Launch(t, template, harness.LongTimeout)
	awaitPlace(t, second, "Waiting for a free place: the next one is yours.")
	third := suite.Launch(t, template, harness.LongTimeout)
	awaitPlace(t, third, "Waiting for a free place: 1 before you.")
	status := third.Status(t)
	assert.Equal(t, []string{"pending", "Queued"}, []string{status.Status, status.Reason})
	pod := third.Pod(t)
	assert.NotEmpty(t, pod.Spec.SchedulingGates)
	assert.Empty(t, pod.Spec.NodeName)

	b := openBrowser(t)
	b.open(trustedHost + "/launch/" + template)
	b.await(pageWait, `document.getElementById('message')?.textContent === 'Waiting for a free place: 2 before you.'`)
	fourth := b.awaitInstance(template, "/")
	assert.Equal(t, "Wait for a place", eval[string](b, `document.querySelector('#progress [aria-current] .step').textContent`))
	b.await(pageWait, `/^Waiting for \d+:\d\d$/.test(document.getElementById('elapsed').textContent)`)
	b.screenshot("queue")
	b.wantAccessible()

	stop := func(instance *harness.Instance) {
		t.Helper()
		answer := suite.API.Do(t, http.MethodDelete, "/applications/"+template+"/"+instance.ID, "", "Authorization", suite.API.Key())
		require.Equal(t, http.StatusOK, answer.Code)
	}
	awaitPlace(t, second, "Waiting for a free place: the next one is yours.") // and asks: it keeps its place by that
	awaitPlace(t, third, "Waiting for a free place: 1 before you.")
	stop(first)
	second.AwaitDeployed(t)
	assert.Equal(t, "Queued", third.Status(t).Reason)
	b.await(pageWait, `document.getElementById('message').textContent === 'Waiting for a free place: 1 before you.'`) // by itself
	stop(second)
	events := readEvents(t, suite.API, third)
	wantPhases(t, events, "deployed")
	assert.Empty(t, third.Pod(t).Spec.SchedulingGates)
	assert.Equal(t, "Queued", fourth.Status(t).Reason)
	stop(third)
	fourth.AwaitDeployed(t)
	b.await(pageWait, `document.getElementById('progress') === null`) // the page has opened the instance
	b.wantNoPageErrors()
}

// awaitPlace waits until an instance's status says how many are before it. Each replica counts by what it
// knows of the others.
func awaitPlace(t *testing.T, instance *harness.Instance, want string) {
	t.Helper()
	harness.Until(t, harness.StartTimeout, "the message is "+want, func(context.Context) error {
		if got := instance.Status(t).Message; got != want {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
}

// TestStartLog follows a visitor who sees what an application puts out until it is ready, where the
// template and the service's rights allow it.
func TestStartLog(t *testing.T) {
	t.Parallel()
	const template = "log-echo"
	suite.CopyTemplate(t, "echo-late", template, func(made *corev1.PodTemplate) {
		made.Annotations["binder-project.org/logs"] = "start"
		made.Template.Spec.Containers[0].Env[0].Value = "20s"
	})
	var rights []*unstructured.Unstructured
	for _, object := range (source{dir: "manifests", components: []string{"start-logs"}}).render(t) {
		if !strings.HasSuffix(object.GetName(), "-start-logs") {
			continue
		}
		data, err := json.Marshal(object.Object)
		require.NoError(t, err)
		data = bytes.ReplaceAll(data, []byte(`"binder-instances"`), []byte(`"`+harness.InstancesNamespace+`"`))
		data = bytes.ReplaceAll(data, []byte(`"namespace":"binder"`), []byte(`"namespace":"`+harness.Namespace+`"`))
		renamed := &unstructured.Unstructured{}
		require.NoError(t, json.Unmarshal(data, &renamed.Object))
		rights = append(rights, renamed)
	}
	require.Len(t, rights, 2)
	t.Cleanup(func() { suite.Kube.Remove(t, rights) })
	require.NoError(t, suite.Kube.Apply(t.Context(), rights))

	b := openBrowser(t)
	b.open(trustedHost + "/launch/" + template)
	instance := b.awaitInstance(template, "/")
	b.await(harness.StartTimeout, `document.querySelector('#log pre')?.textContent.includes('waiting for 20s')`)
	assert.True(t, eval[bool](b, `!document.getElementById('log').hidden`))
	b.wantAccessible()
	b.screenshot("log")
	instance.AwaitDeployed(t)
	b.await(pageWait, `document.getElementById('progress') === null`)
	b.wantNoPageErrors()
}
