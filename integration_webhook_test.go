//go:build integration

package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// The next leader reports the ends that a replica could not report before it ended itself: they
// are in the tombstones.
func TestIntegrationEndsOutliveAReplica(t *testing.T) {
	s := parallelSandbox(t)
	s.putTemplate(t, kubetest.Template("jupyter"))
	down := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	defer down.Close()
	received := make(chan usageEvent, 100)
	up := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var event usageEvent
		if err := json.NewDecoder(r.Body).Decode(&event); err != nil {
			t.Error(err)
		}
		received <- event
	}))
	defer up.Close()
	start := func(receiver string) *runningApp {
		a := s.startApp(t, s.client, "--webhook-url="+receiver, "--webhook-secret-file="+webhookSecretFile)
		awaitCode(t, a.url(metricsServer, "/readyz"), 200)
		return a
	}

	first := start(down.URL)
	want := map[string]string{} // from the id of an event to its reason
	launch := func(reason instance.EndReason) (id string) {
		id = launchOne(t, first.app)
		var pod *corev1.Pod
		kubetest.Eventually(t, "the pod is there", func() (exists bool) {
			pod, exists = s.pod(t, id)
			return exists
		})
		want[string(pod.UID)+"-ended"] = string(reason)
		return id
	}
	stopped, deleted := launch(instance.EndStopped), launch(instance.EndGone)
	wantEqual(t, "stop", call(t, "DELETE", first.url(apiServer, "/applications/jupyter/"+stopped), "").code, 200)
	kubetest.Eventually(t, "it leads", func() bool { return metric(t, first.metrics, "binder_leader") == 1 })
	s.deletePod(t, deleted)
	for _, id := range []string{stopped, deleted} {
		eventuallyWithin(t, kubetest.Patience, "the tombstone is there", func() bool {
			_, exists := s.tombstone(t, id)
			return exists
		})
	}
	first.stop()
	wantEqual(t, "delivered by the first replica", metric(t, first.metrics, "binder_webhook_deliveries_total", "ok"), 0)

	start(up.URL)
	for len(want) > 0 {
		event := receive(t, received)
		if want[event.ID] != event.Data.Reason || event.Data.Lifetime == nil || event.Data.Launched == "" {
			t.Errorf("got the event %+v, want one of %q", event, want)
		}
		delete(want, event.ID)
	}
}
