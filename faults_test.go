package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/tombstone"

	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"

	"github.com/binder-project/binder-deploy-kubernetes/internal/proxy"
)

// The Node server that this service replaces had faults that its users met.
// Here is each of them that a client of the API or the proxy could see.

// apiOnCluster is the API as the service wires it, on a fake API server.
func apiOnCluster(t testing.TB, c *testCache) *API {
	t.Helper()
	metrics, log := newTestMetrics(), kubetest.NoLog()
	launcher, err := launch.New(launch.Deps{
		Pods: c.Client.CoreV1().Pods(kubetest.Namespace), Cache: c.Cache, Templates: c.Cache,
		Remover:      &tombstone.Remover{Client: c.Client, Namespace: kubetest.Namespace, Now: c.Server.Now, Log: kubetest.NoLog()},
		RepeatableID: protocol.NewAPIKey(testAPIKey).InstanceID, StartTimeout: kubetest.StartTimeout,
		Metrics: metrics, Log: log, Now: c.Server.Now, Random: rand.Reader,
	})
	if err != nil {
		t.Fatal(err)
	}
	api := newTestAPI(c.Cache, launcher)
	api.Metrics = metrics
	return api
}

// It answered 200, pending and a fresh id, so that clients polled for ever.
func TestFaultUnknownIDIsNoRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		routes := apiOnCluster(t, startCache(t, time.Now, kubetest.Template("jupyter"))).Routes()
		wantError(t, ask(t, routes, "GET", "/applications/jupyter/"+kubetest.ID(1), "", ""), 404, "noRecord")
		wantError(t, ask(t, routes, "GET", "/applications/jupyter/"+kubetest.ID(1), testAPIKey, ""), 404, "noRecord")
	})
}

// It did not compare the template in the path with the id's.
func TestFaultIDUnderAnotherTemplateIsNoRecord(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), kubetest.Pod(kubetest.ID(1), kubetest.Noon), kubetest.Template("jupyter"), kubetest.Template("rstudio"))
	routes := apiOnCluster(t, c).Routes()
	wantError(t, ask(t, routes, "GET", "/applications/rstudio/"+kubetest.ID(1), "", ""), 404, "noRecord")
	wantError(t, ask(t, routes, "DELETE", "/applications/rstudio/"+kubetest.ID(1), testAPIKey, ""), 404, "noRecord")
	if writes := c.Writes(); len(writes) > 0 {
		t.Errorf("wrote %v", writes)
	}
}

// It launched from the body of the registry's error.
func TestFaultUnknownTemplateLaunchesNothing(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), kubetest.Template("jupyter"))
	routes := apiOnCluster(t, c).Routes()
	wantError(t, ask(t, routes, "POST", "/applications/rstudio", "", ""), 404, "registryError")
	wantError(t, ask(t, routes, "POST", "/applications", "", `{"template-name": "../jupyter"}`), 404, "registryError")
	if writes := c.Writes(); len(writes) > 0 {
		t.Errorf("wrote %v", writes)
	}
}

// It answered 422, went on, launched, answered again and crashed.
func TestFaultDeployOfNothingIsAnsweredOnce(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), kubetest.Template("jupyter"))
	server := httptest.NewServer(apiOnCluster(t, c).Routes())
	defer server.Close()
	for range 3 { // the second finds out whether the first has broken it
		res, err := server.Client().Post(server.URL+"/applications/", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		answer := map[string]string{}
		if err := errors.Join(err, json.Unmarshal(body, &answer)); err != nil {
			t.Errorf("the body is not one JSON object: %v: %q", err, body)
		}
		if res.StatusCode != http.StatusUnprocessableEntity || answer["type"] != "malformedRequest" {
			t.Errorf("got %d %q, want 422 malformedRequest", res.StatusCode, body)
		}
	}
	if writes := c.Writes(); len(writes) > 0 {
		t.Errorf("wrote %v", writes)
	}
}

// Its README had POST /applications/<name>, its code had not.
func TestFaultDeployByPathIsThere(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), kubetest.Template("jupyter"))
	routes := apiOnCluster(t, c).Routes()
	res := ask(t, routes, "POST", "/applications/jupyter", "", "")
	var answer struct{ ID string }
	if err := json.Unmarshal(res.Body.Bytes(), &answer); err != nil || res.Code != http.StatusOK || !instance.ValidID(answer.ID) {
		t.Fatalf("got %d %s, want 200 and an id", res.Code, res.Body)
	}
	// And what it started is known to whoever asks next.
	wantJSON(t, ask(t, routes, "GET", "/applications/jupyter/"+answer.ID, "", ""),
		`{"id": "`+answer.ID+`", "template-name": "jupyter", "status": "pending", "message": "waiting for a node",
			"last-activity": "2026-01-02T12:00:00.000Z", "last-activity-source": "launch", "cull-at": "2026-01-02T13:10:02.000Z"}`)
}

// Its list of all missed every instance that had a template name.
func TestFaultListOfAllHasAll(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), kubetest.Pod(kubetest.ID(1), kubetest.Noon), kubetest.Pod(kubetest.ID(2), kubetest.Noon, kubetest.OfTemplate("rstudio")))
	res := ask(t, apiOnCluster(t, c).Routes(), "GET", "/applications/", testAPIKey, "")
	var list []statusResponse
	if err := json.Unmarshal(res.Body.Bytes(), &list); err != nil || len(list) != 2 {
		t.Errorf("got %d %s, want both instances", res.Code, res.Body)
	}
}

// It gave a location before anything listened there.
func TestFaultLocationOnlyWhereSomethingListens(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon))
	routes := apiOnCluster(t, c).Routes()
	for _, row := range []struct {
		name   string
		change func(n int) // brings instance n about
		has    bool
	}{
		{"unscheduled", func(n int) { c.put(t, kubetest.Pod(kubetest.ID(n), kubetest.Noon, kubetest.Unscheduled)) }, false},
		{"starting", func(n int) { c.put(t, kubetest.Pod(kubetest.ID(n), kubetest.Noon, kubetest.Starting)) }, false},
		{"ready", func(n int) { c.put(t, kubetest.Pod(kubetest.ID(n), kubetest.Noon)) }, true},
		{"broken", func(n int) { c.put(t, kubetest.Pod(kubetest.ID(n), kubetest.Noon, kubetest.Broken)) }, false},
		{"deleting", func(n int) { c.put(t, kubetest.Pod(kubetest.ID(n), kubetest.Noon, kubetest.Deleting)) }, false},
	} {
		row.change(1)
		res := ask(t, routes, "GET", "/applications/jupyter/"+kubetest.ID(1), "", "")
		if has := strings.Contains(res.Body.String(), `"location"`); res.Code != http.StatusOK || has != row.has {
			t.Errorf("%s: got %d %s, want a location: %v", row.name, res.Code, res.Body, row.has)
		}
	}
}

// It launched on a GET, so that crawlers started containers.
func TestFaultReadingLaunchesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCache(t, time.Now, kubetest.Template("jupyter"))
		routes := apiOnCluster(t, c).Routes()
		for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
			for _, path := range []string{"/", "/applications", "/applications/jupyter", "/applications/jupyter/" + kubetest.ID(1)} {
				ask(t, routes, method, path, testAPIKey, `{"template-name": "jupyter"}`)
			}
		}
		if writes := c.Writes(); len(writes) > 0 {
			t.Errorf("wrote %v", writes)
		}
	})
}

// Its page for what is not there yet loaded itself anew twice a second, for ever.
func TestFaultWaitingPageDoesNotReload(t *testing.T) {
	for _, status := range instance.Statuses() {
		if status == instance.StatusDeployed {
			continue
		}
		tested := newTestProxy(instance.Instance{ID: kubetest.ID(1), Status: status})
		res := ask(t, tested, "GET", "/user/"+kubetest.ID(1)+"/", "", "")
		page := strings.ToLower(res.Body.String())
		if strings.Contains(page, "<script") || strings.Contains(page, "refresh") || res.Header().Get("Refresh") != "" {
			t.Errorf("%s: the page reloads: %v %s", status, res.Header(), page)
		}
	}
}

// Its proxy had the administration of all routes on the public address.
func TestFaultPublicAddressHasNoAdministration(t *testing.T) {
	tested := newTestProxy(instance.Instance{ID: kubetest.ID(1), Status: instance.StatusDeployed})
	for _, path := range []string{"/", "/api/routes", "/applications", "/applications/jupyter", "/metrics", "/healthz", "/user", "/user/"} {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			if res := ask(t, tested, method, path, testAPIKey, "{}"); res.Code != http.StatusNotFound {
				t.Errorf("%s %s: got %d, want 404", method, path, res.Code)
			}
		}
	}
}

// newTestProxy is a proxy that knows one instance.
func newTestProxy(inst instance.Instance) http.Handler {
	return proxy.New(proxy.Deps{
		Instances: fakeReader{inst}, Touch: func(string, instance.Source) {},
		IsAPIKey: protocol.NewAPIKey(testAPIKey).Opens, Log: kubetest.NoLog(),
	})
}
