package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// TestRoutes goes through every endpoint with every method, each with and
// without slashes at its end.
func TestRoutes(t *testing.T) {
	const (
		all      = "/applications"
		template = "/applications/jupyter"
	)
	const preload = "/preload/jupyter"
	one := template + "/" + kubetest.ID(1)
	reader := fakeReader{{ID: kubetest.ID(1), Template: "jupyter", Status: instance.StatusDeployed}}
	for _, row := range []struct {
		method, path string
		code         int
		allow        string
	}{
		{"GET", all, 200, ""}, {"HEAD", all, 200, ""}, {"POST", all, 200, ""},
		{"GET", template, 200, ""}, {"HEAD", template, 200, ""}, {"POST", template, 200, ""},
		{"GET", one, 200, ""}, {"HEAD", one, 200, ""}, {"DELETE", one, 200, ""},

		{"GET", preload, 200, ""}, {"HEAD", preload, 200, ""}, {"POST", preload, 200, ""},
		{"DELETE", preload, 405, "GET, POST"},

		{"PUT", all, 405, "GET, POST"}, {"DELETE", all, 405, "GET, POST"}, {"PATCH", all, 405, "GET, POST"},
		{"OPTIONS", all, 405, "GET, POST"}, {"BREW", all, 405, "GET, POST"}, {"get", all, 405, "GET, POST"},
		{"PUT", template, 405, "GET, POST"}, {"DELETE", template, 405, "GET, POST"}, {"OPTIONS", template, 405, "GET, POST"},
		{"POST", one, 405, "GET, DELETE"}, {"PUT", one, 405, "GET, DELETE"}, {"OPTIONS", one, 405, "GET, DELETE"},

		{"GET", "/", 404, ""}, {"POST", "/", 404, ""}, {"HEAD", "/", 404, ""}, {"OPTIONS", "/", 404, ""},
		{"GET", "/application", 404, ""}, {"GET", "/Applications", 404, ""}, {"GET", one + "/logs", 404, ""},
		{"POST", "/stop", 404, ""}, {"POST", "/preload", 404, ""}, {"GET", "/preload/jupyter/nodes", 404, ""},
		// The other listeners' own.
		{"GET", "/metrics", 404, ""}, {"GET", "/readyz", 404, ""}, {"GET", "/user/" + kubetest.ID(1), 404, ""},
	} {
		for _, slashes := range []string{"", "/", "//"} {
			if row.path == "/" && slashes != "" {
				continue
			}
			path := row.path + slashes
			routes := newTestAPI(reader, &fakeLauncher{}).Routes()
			body := `{"template-name": "jupyter"}`
			res := ask(t, routes, row.method, path, testAPIKey, body)
			if row.code == 200 && res.Code != 200 {
				t.Errorf("%s %s: got %d, want 200: %s", row.method, path, res.Code, res.Body)
			}
			if row.code != 200 {
				wantError(t, res, row.code, "malformedRequest")
			}
			if got := res.Header().Get("Allow"); got != row.allow {
				t.Errorf("%s %s: Allow is %q, want %q", row.method, path, got, row.allow)
			}
		}
	}
}

// What the mux would answer with a redirect to a cleaner path is a JSON error:
// a client that posts would not follow a redirect, nor could it read one.
func TestNoRedirects(t *testing.T) {
	for _, path := range []string{
		"//", "//applications", "/applications//" + kubetest.ID(1), "//applications/jupyter", "/./applications", "/x/../applications",
		"/applications/.", "/applications/..", "/applications/jupyter/..", "/applications/jupyter/../" + kubetest.ID(1),
	} {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			launcher := &fakeLauncher{}
			api := newTestAPI(fakeReader{{ID: kubetest.ID(1), Template: "jupyter"}}, launcher)
			res := ask(t, api.Routes(), method, path, testAPIKey, `{"template-name": "jupyter"}`)
			if got := wantError(t, res, http.StatusNotFound, "malformedRequest"); !strings.Contains(got, "no such endpoint") {
				t.Errorf("%s %s: the client is told %q", method, path, got)
			}
			if len(launcher.launches)+len(launcher.stops) > 0 {
				t.Errorf("%s %s: launched %v, stopped %v", method, path, launcher.launches, launcher.stops)
			}
		}
	}
}

func TestHeadHasNoBody(t *testing.T) {
	server := httptest.NewServer(newTestAPI(fakeReader{{ID: kubetest.ID(1), Template: "jupyter"}}, &fakeLauncher{}).Routes())
	defer server.Close()
	for path, code := range map[string]int{
		"/applications/jupyter/" + kubetest.ID(1): 200,
		"/applications/jupyter/" + kubetest.ID(2): 404,
		"/applications": 403,
	} {
		res, err := server.Client().Head(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != code || len(body) > 0 || err != nil {
			t.Errorf("HEAD %s: got %d %q %v, want %d and nothing", path, res.StatusCode, body, err, code)
		}
	}
}

func TestAuthorisation(t *testing.T) {
	target := "/applications/jupyter/" + kubetest.ID(1)
	reader := fakeReader{{ID: kubetest.ID(1), Template: "jupyter", Status: instance.StatusDeployed}}
	for header, allowed := range map[string]bool{
		testAPIKey: true, "token " + testAPIKey: true, "Bearer " + testAPIKey: true, "bearer " + testAPIKey: true,
		"": false, "token": false, "token ": false, "wrong": false, "Bearer wrong": false, "Basic " + testAPIKey: false,
	} {
		launcher := &fakeLauncher{}
		routes := newTestAPI(reader, launcher).Routes()
		for _, request := range []struct{ method, path string }{
			{"GET", "/applications"}, {"GET", "/applications/jupyter/"}, {"HEAD", "/applications"}, {"DELETE", target},
		} {
			res := ask(t, routes, request.method, request.path, header, "")
			switch {
			case allowed && res.Code != http.StatusOK:
				t.Errorf("%s %s with %q: got %d, want 200", request.method, request.path, header, res.Code)
			case !allowed:
				wantError(t, res, http.StatusForbidden, "unauthorized")
			}
		}
		if stopped := len(launcher.stops) > 0; stopped != allowed {
			t.Errorf("with %q: stopped is %v, want %v", header, stopped, allowed)
		}
		// Whoever knows the id needs no key, and a wrong one is no harm.
		if res := ask(t, routes, "GET", target, header, ""); res.Code != http.StatusOK {
			t.Errorf("status with %q: got %d, want 200", header, res.Code)
		}
		if res := ask(t, routes, "POST", "/applications/jupyter", header, ""); res.Code != http.StatusOK {
			t.Errorf("deploy with %q: got %d, want 200", header, res.Code)
		}
	}
}

func TestAuthorisationTakesNoKeyFromElsewhere(t *testing.T) {
	routes := newTestAPI(fakeReader{}, &fakeLauncher{}).Routes()
	for _, target := range []string{"/applications?api-key=" + testAPIKey, "/applications?Authorization=" + testAPIKey} {
		wantError(t, ask(t, routes, "GET", target, "", ""), http.StatusForbidden, "unauthorized")
	}
}

// Another replica may have launched what this one's watch has yet to deliver.
func TestStatusWaitsForTheWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCache(t, time.Now)
		routes := newTestAPI(c.Cache, &fakeLauncher{}).Routes()
		target := func(n int) string { return "/applications/jupyter/" + kubetest.ID(n) }

		began := time.Now()
		wantError(t, ask(t, routes, "GET", target(1), "", ""), 404, "noRecord")
		if took := time.Since(began); took != instance.WatchDelay {
			t.Errorf("waited %s for an unknown id, want %s", took, instance.WatchDelay)
		}

		began = time.Now()
		var meanwhile sync.WaitGroup
		meanwhile.Go(func() {
			time.Sleep(instance.WatchDelay / 2)
			c.put(t, kubetest.Pod(kubetest.ID(2), began, kubetest.Starting))
		})
		res := ask(t, routes, "GET", target(2), "", "")
		if inst, _ := c.Instance(kubetest.ID(2)); !strings.Contains(res.Body.String(), inst.ID) || !strings.Contains(res.Body.String(), `"deploying"`) {
			t.Errorf("got %d %s, want that it deploys", res.Code, res.Body)
		}
		if took := time.Since(began); took >= instance.WatchDelay {
			t.Errorf("answered only after %s, though the pod came before", took)
		}
		meanwhile.Wait()

		// One that has not begun to run is known: there is nothing to wait for.
		began = time.Now()
		ask(t, routes, "GET", target(2), "", "")
		if took := time.Since(began); took != 0 {
			t.Errorf("waited %s for an instance that is known", took)
		}
	})
}
