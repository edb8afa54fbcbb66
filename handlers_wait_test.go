package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"
	"github.com/binder-project/binder-deploy-kubernetes/internal/pages"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// firstLauncher launches what is there already: the first instance.
type firstLauncher struct{}

func (firstLauncher) Launch(context.Context, launch.Request) (string, error) {
	return kubetest.ID(1), nil
}

func (firstLauncher) Stop(context.Context, string, string) error { return nil }

// waitingAPI is an API over a read model.
func waitingAPI(t testing.TB, instances InstanceReader) *API {
	return &API{
		Instances: instances, Launcher: firstLauncher{}, Key: protocol.NewAPIKey("key"), MaxCullTimeout: time.Hour,
		Location: func(id, _ string) string { return "binder.example/user/" + id },
		Draining: t.Context(), Metrics: metrics.New("test", metricValues()), Log: kubetest.NoLog(),
	}
}

// askWaiting sends a request through all routes; headers are names and values in turn.
func askWaiting(h http.Handler, method, path string, header ...string) *httptest.ResponseRecorder {
	r, w := httptest.NewRequest(method, path, nil), httptest.NewRecorder()
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	h.ServeHTTP(w, r)
	return w
}

var firstPath = "/applications/jupyter/" + kubetest.ID(1)

// becomesFirst makes the first instance's pod what it would be after changes.
func becomesFirst(t testing.TB, world *kubetest.World, changes ...func(*corev1.Pod)) {
	t.Helper()
	world.PutPod(t, kubetest.Pod(kubetest.ID(1), time.Now(), changes...))
}

// TestAnswersToWaitingClients: the answer to a request that waits is a whole status. It
// comes when the launch has ended, here after two seconds.
func TestAnswersToWaitingClients(t *testing.T) {
	const (
		is       = `{"id":"00000000000000000000000000000001","template-name":"jupyter",`
		starting = is + `"status":"deploying","message":"preparing the pod on its node"}`
		deployed = is + `"location":"binder.example/user/00000000000000000000000000000001","status":"deployed"}`
		launched = `{"id":"00000000000000000000000000000001"}`
	)
	for _, row := range []struct {
		name, method, path, prefer string
		want, applied              string
		took                       time.Duration
	}{
		{"GET", "GET", firstPath, "respond-async, wait=90", deployed, "wait=60", 2 * time.Second},
		{"POST", "POST", "/applications/jupyter", "wait=60", deployed, "wait=60", 2 * time.Second},
		{"GET for a second", "GET", firstPath, "wait=1", starting, "wait=1", time.Second},
		{"POST without waiting", "POST", "/applications/jupyter", "wait=0", starting, "wait=0", 0},
		{"POST without Prefer", "POST", "/applications/jupyter", "", launched, "", 0},
		{"POST with another preference", "POST", "/applications/jupyter", "respond-async", launched, "", 0},
		{"POST with a malformed preference", "POST", "/applications/jupyter", "wait=soon", launched, "", 0},
		{"GET without Prefer", "GET", firstPath, "", starting, "", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world := kubetest.NewWorld(time.Now, nil)
				becomesFirst(t, world, kubetest.Starting)
				time.AfterFunc(2*time.Second, func() { becomesFirst(t, world) })
				began := time.Now()
				res := askWaiting(waitingAPI(t, world).Routes(), row.method, row.path, "Prefer", row.prefer)
				if took := time.Since(began); res.Code != http.StatusOK || strings.TrimSpace(res.Body.String()) != row.want || took != row.took {
					t.Errorf("answered %d %s after %s, want 200 %s after %s", res.Code, res.Body, took, row.want, row.took)
				}
				if got := res.Header().Get("Preference-Applied"); got != row.applied {
					t.Errorf("Preference-Applied is %q, want %q", got, row.applied)
				}
				time.Sleep(2 * time.Second) // until the world has changed: nothing may go on after the test
			})
		})
	}
}

// TestLaunchedButNotKnown: a launch succeeds even if the watch is late.
func TestLaunchedButNotKnown(t *testing.T) {
	res := askWaiting(waitingAPI(t, kubetest.NewWorld(time.Now, nil)).Routes(), "POST", "/applications/jupyter", "Prefer", "wait=0")
	if want := `{"id":"` + kubetest.ID(1) + `","template-name":"jupyter","status":"pending"}`; strings.TrimSpace(res.Body.String()) != want {
		t.Errorf("answered %s, want %s", res.Body, want)
	}
}

// TestRequestsWithoutStream: what cannot be streamed is answered in JSON. Allowed
// origins can read all answers.
func TestRequestsWithoutStream(t *testing.T) {
	for _, row := range []struct {
		method, path string
		code         int
	}{
		{"GET", "/applications/jupyter/" + kubetest.ID(2), http.StatusNotFound},
		{"HEAD", firstPath, http.StatusOK},
	} {
		world := kubetest.NewWorld(time.Now, nil)
		becomesFirst(t, world)
		api := waitingAPI(t, world)
		api.AllowOrigins = []string{"https://a.example"}
		res := askWaiting(api.Routes(), row.method, row.path, "Accept", "text/event-stream", "Origin", "https://a.example")
		if got := res.Header().Get("Content-Type"); res.Code != row.code || got != "application/json" {
			t.Errorf("%s %s: answered %d of type %q, want %d in JSON", row.method, row.path, res.Code, got, row.code)
		}
		if got := res.Header().Get("Access-Control-Allow-Origin"); got != "https://a.example" {
			t.Errorf("%s %s: the origin is allowed as %q", row.method, row.path, got)
		}
	}
}

// TestWaitingClientsNoticeTheStartTimeout: no change of the pod tells it, so the read
// model looks again now and then.
func TestWaitingClientsNoticeTheStartTimeout(t *testing.T) {
	for _, header := range [][]string{{"Prefer", "wait=60"}, {"Accept", "text/event-stream"}} {
		synctest.Test(t, func(t *testing.T) {
			server := kubetest.NewServer(time.Now, kubetest.Pod(kubetest.ID(1), time.Now(), kubetest.Starting))
			cache, err := NewCache(server.Client, CacheOptions{
				Namespace: "binder", InstancesNamespace: kubetest.Namespace, ProxyService: "binder-proxy",
				Rules: lifetime.Rules{CullTimeout: time.Hour, StartTimeout: kubetest.StartTimeout},
			}, time.Now)
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { cache.Run(ctx) })
			defer running.Wait()
			defer stop()
			ends := time.Now().Add(kubetest.StartTimeout)
			time.Sleep(kubetest.StartTimeout - 30*time.Second)
			res := askWaiting(waitingAPI(t, cache).Routes(), "GET", firstPath, header...)
			if late := time.Since(ends); late < 0 || late > 5*time.Second || !strings.Contains(res.Body.String(), instance.ReasonStartTimeout) {
				t.Errorf("%q: answered %s after the start timeout: %s", header, late, res.Body)
			}
		})
	}
}

// TestServerHoldsRequests: the time limits of the API's server end neither the longest
// wait nor a stream, and nothing on the way holds events back.
func TestServerHoldsRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := kubetest.NewWorld(time.Now, nil)
		becomesFirst(t, world, kubetest.Starting)
		api, listener := waitingAPI(t, world), newPipeListener()
		server := newServer("api", listener, api.Routes(), shortRequests(), kubetest.NoLog())
		go func() { _ = server.serve() }()
		defer server.shutdown(time.Second)
		transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return listener.dial() }}
		defer transport.CloseIdleConnections()
		ask := func(name, value string) *http.Response {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://binder.example"+firstPath, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set(name, value)
			res, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			return res
		}

		began := time.Now()
		res := ask("Prefer", "wait=60")
		body, err := io.ReadAll(res.Body)
		if took := time.Since(began); err != nil || took != time.Minute || !strings.Contains(string(body), `"status":"deploying"`) {
			t.Errorf("answered %q, %v after %s, want the status after a minute", body, err, took)
		}

		res = ask("Accept", "text/event-stream")
		lines := bufio.NewScanner(res.Body)
		nextPhase := func() string { // "" at the end
			for lines.Scan() {
				if data, ok := strings.CutPrefix(lines.Text(), `data: {"phase":"`); ok {
					phase, _, _ := strings.Cut(data, `"`)
					return phase
				}
			}
			return ""
		}
		time.AfterFunc(3*time.Minute, func() { becomesFirst(t, world) })
		for _, want := range []string{"deploying", "deployed", ""} {
			if got := nextPhase(); got != want || lines.Err() != nil {
				t.Fatalf("the next phase is %q, %v, want %q", got, lines.Err(), want)
			}
		}
		const series = `binder_http_requests_total{code="200",method="get",route="/applications/{template}/{id}",server="api"} 2`
		if got := askWaiting(api.Metrics.Handler(), "GET", "/metrics").Body.String(); !strings.Contains(got, series) {
			t.Errorf("there is no %s", series)
		}
	})
}

// TestRoutePublic: our own pages answer at their paths. All others reach the instances
// as they were sent.
func TestRoutePublic(t *testing.T) {
	world := kubetest.NewWorld(time.Now, launch.ErrNoRecord, kubetest.Template("jupyter"))
	becomesFirst(t, world)
	m := metrics.New("test", metricValues())
	own := pages.New(pages.Deps{Instances: world, Launcher: firstLauncher{}, Templates: world, Draining: t.Context(), Log: kubetest.NoLog()})
	var reached string
	instances := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { reached = r.RequestURI })
	for _, row := range []struct {
		path                string
		launchPage, notOurs bool
	}{
		{"/launch/jupyter", true, false},
		{"/launch/jupyter", false, true},
		{"/progress/" + kubetest.ID(1), true, false},
		{"/progress/" + kubetest.ID(1), false, false},
		{"/user/" + kubetest.ID(1) + "//a/../b", true, true},
		{"/", true, true},
		{"/launch", true, true},
		{"/launches/x", true, true},
		{"/%6caunch/jupyter", true, true},
	} {
		reached = ""
		w := askWaiting(routePublic(m, own, row.launchPage, instances), "GET", row.path)
		if got := reached == row.path; w.Code != http.StatusOK || got != row.notOurs {
			t.Errorf("%s with launch page %t: answered %d, the instances got %q; want them to get it: %t", row.path, row.launchPage, w.Code, reached, row.notOurs)
		}
	}
	exposed := askWaiting(m.Handler(), "GET", "/metrics").Body.String()
	for route, n := range map[string]string{"/launch/": "1", "/progress/": "2", "/user/": "6"} {
		if series := `binder_http_requests_total{code="200",method="get",route="` + route + `",server="proxy"} ` + n; !strings.Contains(exposed, series) {
			t.Errorf("there is no %s", series)
		}
	}
}
