//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

const (
	waitHeader = "wait=60"
	heldAtMost = 60 * time.Second
)

// launchAndWait launches an instance with one request that waits for the location.
func launchAndWait(t *testing.T, api harness.API, template string) (*harness.Instance, harness.Status) {
	t.Helper()
	launched := time.Now()
	answer := api.WithExtraTimeout(heldAtMost).Do(t, http.MethodPost, "/applications/"+template, `{"cull-timeout": 1800000}`, "Prefer", waitHeader)
	var status harness.Status
	answer.Decode(t, &status)
	instance := suite.Adopt(t, template, status.ID)
	instance.Launched = launched
	assert.Equal(t, waitHeader, answer.Header.Get("Preference-Applied"))
	assert.True(t, strings.HasPrefix(string(answer.Body), `{"id":"`), "%s", answer.Body)
	return instance, status
}

// TestLaunchAnswersWithLocation checks that one request launches an instance that
// answers at once through both replicas' proxies, even if the kubelet has not
// reported the pod as ready.
func TestLaunchAnswersWithLocation(t *testing.T) {
	t.Parallel()
	replicas := suite.Replicas(t)
	for i := range 4 {
		instance, status := launchAndWait(t, replicas[i%2].API, "echo-soon")
		took := time.Since(instance.Launched)
		require.Equal(t, "deployed", status.Status, "%+v", status)
		assert.Equal(t, instance.Location(), status.Location)
		for range 3 {
			code, page := visit(t, http.MethodGet, instance.URL("/"), nil)
			assert.Equal(t, http.StatusOK, code, page)
		}
		for _, replica := range replicas {
			code, page := visit(t, http.MethodGet, replica.Proxy+"/user/"+instance.ID+"/", nil)
			assert.Equal(t, http.StatusOK, code, page)
		}
		t.Logf("from request to location in %s; pod ready after the visits: %t",
			took.Round(time.Millisecond), podReady(instance.Pod(t)))
	}
}

func podReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// TestStatusWaits checks that a GET can wait for the location, too.
func TestStatusWaits(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo-soon", harness.LongTimeout)
	path := "/applications/echo-soon/" + instance.ID
	var status harness.Status
	answer := suite.API.WithExtraTimeout(heldAtMost).Do(t, http.MethodGet, path, "", "Prefer", `respond-async, wait="60"; x=y`)
	answer.Decode(t, &status)
	assert.Equal(t, waitHeader, answer.Header.Get("Preference-Applied"))
	assert.Equal(t, "deployed", status.Status)
	assert.Equal(t, instance.Location(), status.Location)
}

// TestWaitExpires checks that the answer has the current status when the wait ends.
func TestWaitExpires(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo-late", harness.LongTimeout)
	began := time.Now()
	var status harness.Status
	suite.API.Do(t, http.MethodGet, "/applications/echo-late/"+instance.ID, "", "Prefer", "wait=2").Decode(t, &status)
	assert.GreaterOrEqual(t, time.Since(began), 2*time.Second)
	assert.Contains(t, []string{"pending", "deploying"}, status.Status)
	assert.Empty(t, status.Location)
}

type progressEvent struct {
	Phase, Message, Reason, Location string
}

// readEvents reads an instance's event stream to its end.
func readEvents(t *testing.T, api harness.API, instance *harness.Instance) []progressEvent {
	t.Helper()
	answer := api.WithExtraTimeout(harness.StartTimeout+removalMargin).
		Do(t, http.MethodGet, "/applications/"+instance.Template+"/"+instance.ID, "", "Accept", "text/event-stream")
	require.Equal(t, "text/event-stream", answer.Header.Get("Content-Type"))
	var events []progressEvent
	lines := bufio.NewScanner(bytes.NewReader(answer.Body))
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			var event progressEvent
			require.NoError(t, json.Unmarshal([]byte(data), &event))
			assert.NotEmpty(t, event.Message, "%+v", event)
			events = append(events, event)
		}
	}
	require.NoError(t, lines.Err())
	require.NotEmpty(t, events)
	return events
}

// wantPhases checks that the events have the phases of a launch in order, and that
// the last event has the given phase.
func wantPhases(t *testing.T, events []progressEvent, last string) {
	t.Helper()
	order := []string{"pending", "deploying", last}
	at := 0
	for _, event := range events {
		next := slices.Index(order, event.Phase)
		require.GreaterOrEqual(t, next, at, "%+v", events)
		at = next
	}
	require.Equal(t, last, events[len(events)-1].Phase, "%+v", events)
}

// TestEventStream checks that the stream shows a launch to its end, and that a later
// client gets the last event only.
func TestEventStream(t *testing.T) {
	t.Parallel()
	for i, replica := range suite.Replicas(t) {
		instance := suite.LaunchAt(t, suite.Replicas(t)[1-i].API, "echo-soon", harness.LongTimeout)
		events := readEvents(t, replica.API, instance)
		wantPhases(t, events, "deployed")
		assert.Equal(t, instance.Location(), events[len(events)-1].Location)
		assert.Greater(t, len(events), 1, "%+v", events)
		t.Logf("%+v", events)

		// The other replica knows once the kubelet has reported the pod as ready, or
		// once a client waits there.
		harness.Until(t, removalMargin, "a later client gets the last event only", func(context.Context) error {
			if again := readEvents(t, suite.API, instance); !assert.ObjectsAreEqual(events[len(events)-1:], again) {
				return fmt.Errorf("the events are %+v", again)
			}
			return nil
		})
	}
}

// TestEventStreamOfFailure checks that the stream ends with the reason of a failure.
func TestEventStreamOfFailure(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "missing-image", harness.LongTimeout)
	events := readEvents(t, suite.API, instance)
	wantPhases(t, events, "failed")
	assert.Equal(t, "StartTimeout", events[len(events)-1].Reason)
	assert.Empty(t, events[len(events)-1].Location)
}

// TestRepeatedLaunch checks that launches with the same idempotency key make one pod,
// through any replica and even after the instance has ended.
func TestRepeatedLaunch(t *testing.T) {
	t.Parallel()
	replicas := suite.Replicas(t)
	key := t.Name() + suite.API.Key()[:8]
	launch := func(api harness.API) harness.Answer {
		return api.Do(t, http.MethodPost, "/applications/echo", `{"cull-timeout": 1800000}`, "Idempotency-Key", key)
	}
	answers := make([]harness.Answer, 20)
	var launches sync.WaitGroup
	for i := range answers {
		launches.Go(func() { answers[i] = launch(replicas[i%2].API) })
	}
	launches.Wait()
	var first struct{ ID string }
	answers[0].Decode(t, &first)
	instance := suite.Adopt(t, "echo", first.ID)
	for _, answer := range answers {
		require.Equal(t, http.StatusOK, answer.Code, "%s", answer.Body)
		assert.Equal(t, string(answers[0].Body), string(answer.Body))
	}
	pods, err := suite.Kube.Client.CoreV1().Pods(harness.InstancesNamespace).
		List(t.Context(), metav1.ListOptions{LabelSelector: "binder-project.org/id=" + first.ID})
	require.NoError(t, err)
	assert.Len(t, pods.Items, 1)

	suite.API.Do(t, http.MethodDelete, "/applications/echo/"+first.ID, "", "Authorization", suite.API.Key())
	instance.AwaitEnd(t, removalMargin, "Stopped")
	for _, replica := range replicas {
		assert.Equal(t, string(answers[0].Body), string(launch(replica.API).Body))
	}
	assert.Equal(t, "deleted", instance.Status(t).Status, "the instance was launched again")

	for _, bad := range []string{"not sixteen", "two words in a header", strings.Repeat("x", 256)} {
		answer := suite.API.Do(t, http.MethodPost, "/applications/echo", "", "Idempotency-Key", bad)
		body := answer.WantError(t, http.StatusUnprocessableEntity, "malformedRequest")
		assert.Contains(t, body.Error, "Idempotency-Key")
	}
}

// TestCORS checks that pages of the allowed origin, and no others, may call the API.
func TestCORS(t *testing.T) {
	t.Parallel()
	const allowed = "https://pages.example"
	for origin, want := range map[string]string{allowed: allowed, "https://elsewhere.example": ""} {
		answer := suite.API.Do(t, http.MethodGet, "/applications/echo/"+unknownID, "", "Origin", origin)
		answer.WantError(t, http.StatusNotFound, "noRecord")
		assert.Equal(t, want, answer.Header.Get("Access-Control-Allow-Origin"))
		assert.Equal(t, "Origin", answer.Header.Get("Vary"))
	}
	answer := suite.API.Do(t, http.MethodPost, "/applications/echo", "", "Origin", "https://elsewhere.example", "Content-Type", "text/plain")
	answer.WantError(t, http.StatusForbidden, "unauthorized")
	answer = suite.API.Do(t, http.MethodOptions, "/applications/echo", "", "Origin", allowed,
		"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type,idempotency-key,prefer")
	assert.Equal(t, http.StatusNoContent, answer.Code, "%s", answer.Body)
	assert.Contains(t, answer.Header.Get("Access-Control-Allow-Methods"), "POST")
	assert.Contains(t, answer.Header.Get("Access-Control-Allow-Headers"), "Idempotency-Key")
	assert.Empty(t, answer.Header.Get("Access-Control-Allow-Credentials"))
}
