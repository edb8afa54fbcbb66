package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/origin"
	"github.com/binder-project/binder-deploy-kubernetes/internal/pages"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// firstPath is the endpoint of instance 1.
var firstPath = "/applications/jupyter/" + kubetest.ID(1)

// putFirst creates or changes the pod of instance 1.
func (c *testCache) putFirst(t testing.TB, changes ...func(*corev1.Pod)) {
	t.Helper()
	c.put(t, kubetest.Pod(kubetest.ID(1), time.Now(), changes...))
}

// A request that waits is answered with a whole status when the launch has ended, which
// takes two seconds here.
func TestAnswersToWaitingClients(t *testing.T) {
	for _, row := range []struct {
		name, method, path, prefer string
		want                       instance.Status // "" for the id alone
		applied                    string
		took                       time.Duration
	}{
		{"GET", "GET", firstPath, "respond-async, wait=90", "deployed", "wait=60", 2 * time.Second},
		{"POST", "POST", "/applications/jupyter", "wait=60", "deployed", "wait=60", 2 * time.Second},
		{"GET for a second", "GET", firstPath, "wait=1", "deploying", "wait=1", time.Second},
		{"POST without a wait", "POST", "/applications/jupyter", "wait=0", "deploying", "wait=0", 0},
		{"POST without Prefer", "POST", "/applications/jupyter", "", "", "", 0},
		{"POST with another preference", "POST", "/applications/jupyter", "respond-async", "", "", 0},
		{"POST with a malformed preference", "POST", "/applications/jupyter", "wait=soon", "", "", 0},
		{"GET without Prefer", "GET", firstPath, "", "deploying", "", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := startCache(t, time.Now)
				c.putFirst(t, kubetest.Starting)
				changing := time.AfterFunc(2*time.Second, func() { c.PutPod(t, kubetest.Pod(kubetest.ID(1), time.Now())) })
				began := time.Now()
				res := ask(newTestAPI(c.Cache, &fakeLauncher{}).Routes(), row.method, row.path, "", "Prefer", row.prefer)
				took := time.Since(began)
				changing.Stop()
				var got protocol.StatusResponse
				if err := json.Unmarshal(res.Body.Bytes(), &got); err != nil || res.Code != http.StatusOK || got.Status != row.want || took != row.took {
					t.Errorf("got %d %s after %s, want 200 and status %q after %s", res.Code, res.Body, took, row.want, row.took)
				}
				if got.ID != kubetest.ID(1) || (got.TemplateName == "jupyter") != (row.want != "") || (got.Location != "") != (row.want == "deployed") {
					t.Errorf("got %+v", got)
				}
				wantEqual(t, "Preference-Applied", res.Header().Get("Preference-Applied"), row.applied)
			})
		})
	}
}

// A launch succeeds even if the watch is late.
func TestLaunchedButNotKnown(t *testing.T) {
	res := ask(newTestAPI(startCache(t, time.Now).Cache, &fakeLauncher{}).Routes(), "POST", "/applications/jupyter", "", "Prefer", "wait=0")
	wantJSON(t, res, `{"id": "`+kubetest.ID(1)+`", "template-name": "jupyter", "status": "pending"}`)
}

// What cannot be streamed is answered in JSON. Allowed origins can read all answers.
func TestRequestsWithoutStream(t *testing.T) {
	c := startCache(t, time.Now)
	c.putFirst(t)
	api := newTestAPI(c.Cache, &fakeLauncher{})
	api.AllowOrigins = []string{"https://a.example"}
	for request, code := range map[string]int{"GET /applications/jupyter/not-an-id": 404, "HEAD " + firstPath: 200} {
		method, path, _ := strings.Cut(request, " ")
		res := ask(api.Routes(), method, path, "", "Accept", "text/event-stream", "Origin", "https://a.example")
		if got := res.Header().Get("Content-Type"); res.Code != code || got != "application/json" {
			t.Errorf("%s: got %d of type %q, want %d in JSON", request, res.Code, got, code)
		}
		wantEqual(t, "the allowed origin of "+request, res.Header().Get("Access-Control-Allow-Origin"), "https://a.example")
	}
}

// Another replica may have launched an instance that this replica's watch has yet to
// deliver. A request for its status waits for it.
func TestStatusWaitsForTheWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCache(t, time.Now)
		routes := newTestAPI(c.Cache, &fakeLauncher{}).Routes()
		began := time.Now()
		wantError(t, ask(routes, "GET", "/applications/jupyter/"+kubetest.ID(2), ""), 404, "noRecord")
		if took := time.Since(began); took != instance.WatchDelay {
			t.Errorf("waited %s for an unknown id, want %s", took, instance.WatchDelay)
		}

		began = time.Now()
		var changing sync.WaitGroup
		changing.Go(func() {
			time.Sleep(instance.WatchDelay / 2)
			c.putFirst(t, kubetest.Starting)
		})
		res := ask(routes, "GET", firstPath, "")
		if took := time.Since(began); took >= instance.WatchDelay || !strings.Contains(res.Body.String(), `"deploying"`) {
			t.Errorf("got %d %s after %s, want that it deploys, when it is known", res.Code, res.Body, took)
		}
		changing.Wait()
		began = time.Now()
		ask(routes, "GET", firstPath, "")
		if took := time.Since(began); took != 0 {
			t.Errorf("waited %s for a known instance", took)
		}
	})
}

// The start timeout passes without a change of the pod. Waiting clients notice it within
// seconds.
func TestWaitingClientsNoticeTheStartTimeout(t *testing.T) {
	for _, header := range [][]string{{"Prefer", "wait=60"}, {"Accept", "text/event-stream"}} {
		synctest.Test(t, func(t *testing.T) {
			c := startCache(t, time.Now)
			c.putFirst(t, kubetest.Starting)
			ends := time.Now().Add(kubetest.StartTimeout)
			time.Sleep(kubetest.StartTimeout - 30*time.Second)
			res := ask(newTestAPI(c.Cache, &fakeLauncher{}).Routes(), "GET", firstPath, "", header...)
			if late := time.Since(ends); late < 0 || late > 5*time.Second || !strings.Contains(res.Body.String(), instance.ReasonStartTimeout) {
				t.Errorf("%q: answered %s after the start timeout: %s", header, late, res.Body)
			}
		})
	}
}

// The time limits of the API's server end neither the longest wait nor a stream, and
// nothing on the way holds events back.
func TestServerHoldsRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCache(t, time.Now)
		c.putFirst(t, kubetest.Starting)
		api, listener := newTestAPI(c.Cache, &fakeLauncher{}), newPipeListener()
		server := newServer("api", listener, api.Routes(), shortRequests(), kubetest.NoLog())
		go func() { _ = server.serve() }()
		defer server.shutdown(time.Second)
		transport := listener.transport(t)
		send := func(name, value string) *http.Response {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://binder.example"+firstPath, nil)
			noError(t, err)
			r.Header.Set(name, value)
			res, err := transport.RoundTrip(r)
			noError(t, err)
			return res
		}

		began := time.Now()
		body, err := io.ReadAll(send("Prefer", "wait=60").Body)
		if took := time.Since(began); err != nil || took != time.Minute || !strings.Contains(string(body), `"status":"deploying"`) {
			t.Errorf("got %q, %v after %s, want the status after a minute", body, err, took)
		}

		lines := bufio.NewScanner(send("Accept", "text/event-stream").Body)
		nextPhase := func() string { // "" at the end
			for lines.Scan() {
				if data, ok := strings.CutPrefix(lines.Text(), `data: {"phase":"`); ok {
					phase, _, _ := strings.Cut(data, `"`)
					return phase
				}
			}
			return ""
		}
		time.AfterFunc(3*time.Minute, func() { c.PutPod(t, kubetest.Pod(kubetest.ID(1), time.Now())) })
		for _, want := range []string{"deploying", "deployed", ""} {
			if got := nextPhase(); got != want || lines.Err() != nil {
				t.Fatalf("the next phase is %q, %v, want %q", got, lines.Err(), want)
			}
		}
		transport.CloseIdleConnections()
		wantMetrics(t, api.Metrics, "binder_http_requests_total",
			`binder_http_requests_total{code="200",method="get",route="/applications/{template}/{id}",server="api"} 2`)
	})
}

// The service's own pages answer at their paths. All other requests reach the instances
// unchanged.
func TestRoutePublic(t *testing.T) {
	c := startCache(t, time.Now, kubetest.Template("jupyter"))
	c.putFirst(t)
	m := newTestMetrics()
	own := pages.New(pages.Deps{Instances: c.Cache, Launcher: &fakeLauncher{}, Templates: c.Cache, Draining: t.Context(), Log: kubetest.NoLog()})
	var reached string
	instances := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { reached = r.RequestURI })
	for _, row := range []struct {
		path                   string
		launchPage, toInstance bool
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
		ours := map[string]http.Handler{pages.ProgressPrefix: own.Progress()}
		if row.launchPage {
			ours[pages.LaunchPrefix] = own.Launch()
		}
		res := ask(routePublic(m, pages.OrOwn(nil), ours, origin.Layout{}, instances), "GET", row.path, "")
		if got := reached == row.path; res.Code != http.StatusOK || got != row.toInstance {
			t.Errorf("%s with launch pages %t: got %d, the instances got %q; want them to get it: %t", row.path, row.launchPage, res.Code, reached, row.toInstance)
		}
	}
	wantMetrics(t, m, "binder_http_requests_total", `
binder_http_requests_total{code="200",method="get",route="/launch/",server="proxy"} 1
binder_http_requests_total{code="200",method="get",route="/progress/",server="proxy"} 2
binder_http_requests_total{code="200",method="get",route="/user/",server="proxy"} 6`)
}
