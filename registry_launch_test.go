package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/config"
)

// TestLaunchOfARegistryTemplate goes from the API through both sources to a pod,
// or to none.
func TestLaunchOfARegistryTemplate(t *testing.T) {
	registry := newRegistryFixture(t, nil)
	registry.answers(func(w http.ResponseWriter, r *http.Request) {
		switch name := strings.TrimPrefix(r.URL.Path, "/templates/"); name {
		case "known", "both":
			fmt.Fprintf(w, `{"name": %q, "image-source": "host:5000/registry", "command": ["/echo"], "port": 80}`, name)
		case "broken":
			http.Error(w, `{"name": "broken", "image-source": "evil"}`, http.StatusInternalServerError)
		case "error-body":
			fmt.Fprint(w, `{"type": "registryError", "error": "no", "image-source": "evil"}`)
		case "wrong":
			fmt.Fprint(w, `{"name": "wrong", "image-source": "x", "limits": {"memory": "512MB"}}`)
		default:
			http.NotFound(w, r)
		}
	})
	config := &config.Config{
		Namespace: "binder", InstancesNamespace: "somewhere", ProxyService: "binder-proxy",
		StartTimeout: time.Minute, CullTimeout: time.Hour, CullInterval: time.Minute,
		APIAddress: "127.0.0.1:0", ProxyAddress: "127.0.0.1:0", MetricsAddress: "127.0.0.1:0",
		APIKey: "own", RegistryURL: registry.server.URL, RegistryAPIKey: "the-key",
	}
	client := fake.NewClientset(&corev1.PodTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: "both", Namespace: "somewhere"},
		Template:   corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "x", Image: "cluster:v1"}}}},
	})
	a, err := newApp(config, client, slog.New(slog.DiscardHandler), time.Now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range a.servers { // only the API's handler is called
		defer s.listener.Close()
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { a.cluster.Run(ctx) })
	defer running.Wait()
	defer stop()
	if err := a.awaitSync(t.Context()); err != nil {
		t.Fatal(err)
	}

	for _, row := range []struct {
		template string
		code     int
		image    string // of the pod; or else the type of the error
	}{
		{"known", 200, "host:5000/registry:latest"},
		{"both", 200, "cluster:v1"},
		{"nowhere", 404, "registryError"},
		{"..", 404, "registryError"},
		{"broken", 503, "registryError"},
		{"error-body", 503, "registryError"},
		{"wrong", 500, "badKubeRequest"},
	} {
		client.ClearActions()
		response := httptest.NewRecorder()
		body := strings.NewReader(fmt.Sprintf(`{"template-name": %q}`, row.template))
		a.servers[1].http.Handler.ServeHTTP(response, httptest.NewRequest("POST", "/applications/", body))
		if response.Code != row.code {
			t.Errorf("%s: got code %d, want %d: %s", row.template, response.Code, row.code, response.Body)
		}
		var answer struct{ ID, Type, Error string }
		if err := json.Unmarshal(response.Body.Bytes(), &answer); err != nil {
			t.Errorf("%s: got no JSON object: %s", row.template, response.Body)
		}
		if row.code != 200 {
			if answer.Type != row.image || answer.Error == "" || len(client.Actions()) != 0 {
				t.Errorf("%s: got %+v, and did %v, want type %s and nothing done", row.template, answer, client.Actions(), row.image)
			}
			if retry := response.Header().Get("Retry-After"); (row.code == 503) != (retry != "") {
				t.Errorf("%s: got Retry-After %q with code %d", row.template, retry, row.code)
			}
			continue
		}
		pod, err := client.CoreV1().Pods("somewhere").Get(t.Context(), instance.PodName(answer.ID), metav1.GetOptions{})
		if err != nil {
			t.Errorf("%s: %v", row.template, err)
		} else if got := pod.Spec.Containers[0].Image; got != row.image {
			t.Errorf("%s: got a pod of image %s, want %s", row.template, got, row.image)
		}
	}
	for _, asked := range registry.asked {
		if asked.Header.Get("Authorization") != "the-key" {
			t.Errorf("%s was asked for with key %q", asked.URL, asked.Header.Get("Authorization"))
		}
		if strings.HasSuffix(asked.URL.Path, "/both") {
			t.Error("the registry was asked for a template that is in the cluster")
		}
	}
}
