//go:build integration

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/config"
)

// runningApp is the whole service, on ports of its own.
type runningApp struct {
	*app
	log  *kubetest.LogBuffer
	stop func() // returns when it has ended; a second time does nothing
}

// startApp runs the service with flags beside those that every test needs. It
// ends with the test at the latest.
func (s *sandbox) startApp(t testing.TB, client kubernetes.Interface, flags ...string) *runningApp {
	t.Helper()
	nothing := config.Environment{
		Env:      func(string) (string, bool) { return "", false },
		ReadFile: os.ReadFile,
		Hostname: func() (string, error) { return "replica", nil },
		Random:   rand.Reader,
	}
	config, err := config.Parse(append([]string{
		"--namespace=" + s.namespace, "--instances-namespace=" + s.namespace, "--api-key=" + testAPIKey,
		"--api-address=127.0.0.1:0", "--proxy-address=127.0.0.1:0", "--metrics-address=127.0.0.1:0",
		"--shutdown-delay=0s", "--drain-timeout=1s", "--cull-interval=200ms",
	}, flags...), nothing, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	log, lines := kubetest.RecordLog()
	app, err := newApp(config, client, log, time.Now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := app.run(ctx); err != nil {
			t.Errorf("the service ended with %v", err)
		}
	})
	a := &runningApp{app: app, log: lines, stop: func() {
		cancel()
		running.Wait()
	}}
	t.Cleanup(func() {
		a.stop()
		if t.Failed() {
			t.Logf("log of %s:\n%s", config.Identity, lines)
		}
	})
	return a
}

func (a *runningApp) awaitReady(t testing.TB) {
	t.Helper()
	eventuallyWithin(t, kubetest.Patience, "the service is ready", func() bool { return a.probe(t, "/readyz") == http.StatusOK })
}

// probe returns the code of an answer on the metrics port.
func (a *runningApp) probe(t testing.TB, path string) int {
	t.Helper()
	code, _, _ := fetch(t, http.MethodGet, "http://"+a.servers[0].addr()+path, "")
	return code
}

// api sends an authorised request to the API.
func (a *runningApp) api(t testing.TB, method, path, body string) (code int, header http.Header, answer string) {
	t.Helper()
	return fetch(t, method, "http://"+a.servers[1].addr()+path, body)
}

// visit loads a page of an instance.
func (a *runningApp) visit(t testing.TB, id string) (code int, answer string) {
	t.Helper()
	code, _, answer = fetch(t, http.MethodGet, "http://"+a.servers[2].addr()+instance.BaseURL(id), "")
	return code, answer
}

// launch starts an instance of the test's template, and returns its id.
func (a *runningApp) launch(t testing.TB, body string) string {
	t.Helper()
	code, _, answer := a.api(t, http.MethodPost, "/applications/"+kubetest.TemplateName, body)
	var launched struct{ ID string }
	if err := json.Unmarshal([]byte(answer), &launched); err != nil || code != http.StatusOK || !instance.ValidID(launched.ID) {
		t.Fatalf("a launch got %d %s, want 200 and an id", code, answer)
	}
	return launched.ID
}

// status asks for an instance; it is zero where there is no record.
func (a *runningApp) status(t testing.TB, id string) (status statusResponse) {
	t.Helper()
	code, _, answer := a.api(t, http.MethodGet, "/applications/"+kubetest.TemplateName+"/"+id, "")
	switch code {
	case http.StatusOK:
		if err := json.Unmarshal([]byte(answer), &status); err != nil {
			t.Fatal(err)
		}
	case http.StatusNotFound:
	default:
		t.Fatalf("a status got %d %s", code, answer)
	}
	return status
}

func (a *runningApp) awaitStatus(t testing.TB, id string, want instance.Status) (last statusResponse) {
	t.Helper()
	eventuallyWithin(t, kubetest.Patience, "instance "+id+" is "+string(want), func() bool {
		last = a.status(t, id)
		return last.Status == want
	})
	return last
}

func (a *runningApp) leads(t testing.TB) bool {
	t.Helper()
	return metric(t, a.metrics, "binder_leader") == 1
}

// fetch sends one request, on a connection of its own, with the API key.
func fetch(t testing.TB, method, url, body string) (code int, header http.Header, answer string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*kubetest.Patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true
	r.Header.Set("Authorization", testAPIKey)
	res, err := http.DefaultTransport.RoundTrip(r) // follows no redirect
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(raw)
}

// startPage is an application that answers every request; its port is where a
// pod with the address 127.0.0.1 is reached.
func startPage(t testing.TB) (port string) {
	t.Helper()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "a notebook") }))
	t.Cleanup(page.Close)
	_, port, err := net.SplitHostPort(page.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// What a replica knows of its instances' use outlives it.
func TestIntegrationAppWritesActivityAtItsEnd(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, nil)
	s.putTemplate(t, kubetest.Template(kubetest.TemplateName, kubetest.WithTemplateAnnotation(instance.PortAnnotation, startPage(t))))
	app := s.startApp(t, s.client)
	app.awaitReady(t)
	id := app.launch(t, "")
	s.ready(t, id, "127.0.0.1")
	app.awaitStatus(t, id, instance.StatusDeployed)
	used := time.Now()
	if code, page := app.visit(t, id); code != http.StatusOK || page != "a notebook" {
		t.Fatalf("the instance answered %d %q", code, page)
	}
	before, _ := s.pod(t, id)
	if at, err := instance.LastActivity(before); err != nil || at.After(used) {
		t.Fatalf("the activity is %s, %v; it should not be due yet", at, err)
	}
	app.stop()
	after, _ := s.pod(t, id)
	if at, err := instance.LastActivity(after); err != nil || at.Before(used.Truncate(time.Millisecond)) {
		t.Errorf("the activity is %s, %v; want the use at %s", at, err, used)
	}
}

// A replica that starts while the API server is away waits for it, unready.
func TestIntegrationAppWaitsForTheAPIServer(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, nil)
	way, config := forward(t, s.config)
	way.cut()
	app := s.startApp(t, connect(t, config))
	eventuallyWithin(t, kubetest.Patience, "the process answers", func() bool {
		c, err := net.Dial("tcp", app.servers[0].addr())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	if code := app.probe(t, "/healthz"); code != http.StatusOK {
		t.Errorf("healthz is %d, want 200: a restart would mend nothing", code)
	}
	if code := app.probe(t, "/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("readyz is %d, want 503", code)
	}
	way.restore(t)
	app.awaitReady(t)
}

// A replica that is told to end while it waits does end.
func TestIntegrationAppEndsWhileItWaits(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, nil)
	way, config := forward(t, s.config)
	way.cut()
	app := s.startApp(t, connect(t, config))
	ended := make(chan struct{})
	go func() {
		app.stop()
		close(ended)
	}()
	receive(t, ended)
}
