package main

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"
)

// scrape is what Prometheus would read of the metrics whose names begin with a
// prefix: a series to a line, sorted.
func scrape(t testing.TB, m *metrics.Metrics, prefix string) string {
	t.Helper()
	res := httptest.NewRecorder()
	m.Handler().ServeHTTP(res, httptest.NewRequest("GET", "/metrics", nil))
	if res.Code != http.StatusOK {
		t.Fatalf("the metrics are answered with %d: %s", res.Code, res.Body)
	}
	var series []string
	for line := range strings.Lines(res.Body.String()) {
		if strings.HasPrefix(line, prefix) {
			series = append(series, strings.TrimSpace(line))
		}
	}
	slices.Sort(series)
	return strings.Join(series, "\n")
}

// wantMetrics compares what is read under a prefix with what is wanted.
func wantMetrics(t testing.TB, m *metrics.Metrics, prefix, want string) {
	t.Helper()
	if got := scrape(t, m, prefix); got != strings.TrimSpace(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", prefix, got, strings.TrimSpace(want))
	}
}

func TestInstancesByStatus(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon),
		kubetest.Pod(kubetest.ID(1), kubetest.Noon), kubetest.Pod(kubetest.ID(2), kubetest.Noon), kubetest.Pod(kubetest.ID(3), kubetest.Noon, kubetest.Starting),
		kubetest.Pod(kubetest.ID(4), kubetest.Noon, kubetest.Broken), kubetest.Pod(kubetest.ID(5), kubetest.Noon, kubetest.WithLabel(instance.PoolLabel, "warm")))
	m := newTestMetrics()
	registerCollectors(m, c.Cache, newTestCuller(t, c).Culler)
	wantMetrics(t, m, "binder_instances", `
binder_instances{status="deleted"} 0
binder_instances{status="deployed"} 2
binder_instances{status="deploying"} 1
binder_instances{status="failed"} 1
binder_instances{status="pending"} 0`)
	c.put(t, kubetest.Pod(kubetest.ID(3), kubetest.Noon))
	c.put(t, kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.Deleting))
	wantMetrics(t, m, "binder_instances", `
binder_instances{status="deleted"} 1
binder_instances{status="deployed"} 2
binder_instances{status="deploying"} 0
binder_instances{status="failed"} 1
binder_instances{status="pending"} 0`)
}

func TestSyncedGauge(t *testing.T) {
	running := startCache(t, kubetest.ClockAt(kubetest.Noon))
	unread := newTestCache(t, running.Server)
	for c, want := range map[*testCache]string{running: "1", unread: "0"} {
		m := newTestMetrics()
		registerCollectors(m, c.Cache, newTestCuller(t, c).Culler)
		wantMetrics(t, m, "binder_cache_synced", "binder_cache_synced "+want)
	}
}

// What a client sends must not become a label: it could make as many series as
// it likes.
func TestRequestsAreCountedUnderClosedLabels(t *testing.T) {
	reader := fakeReader{{ID: kubetest.ID(1), Template: "jupyter", Status: instance.StatusDeployed}}
	api := newTestAPI(reader, &fakeLauncher{})
	routes := api.Routes()
	for _, request := range []struct{ method, target string }{
		{"GET", "/applications/jupyter/" + kubetest.ID(1)},
		{"GET", "/applications/jupyter/" + kubetest.ID(1) + "/"},
		{"HEAD", "/applications/jupyter/" + kubetest.ID(1)},
		{"GET", "/applications/other/not-an-id"},
		{"BREW", "/applications"}, {"X-1", "/applications"}, {"X-2", "/applications"},
		{"POST", "/applications/a"}, {"POST", "/applications/b"},
		{"GET", "/wp-login.php"}, {"GET", "/.env"},
	} {
		ask(t, routes, request.method, request.target, "", "")
	}
	wantMetrics(t, api.Metrics, "binder_http_requests_total", `
binder_http_requests_total{code="200",method="get",route="/applications/{template}/{id}",server="api"} 2
binder_http_requests_total{code="200",method="head",route="/applications/{template}/{id}",server="api"} 1
binder_http_requests_total{code="200",method="post",route="/applications/{template}",server="api"} 2
binder_http_requests_total{code="404",method="get",route="/",server="api"} 2
binder_http_requests_total{code="404",method="get",route="/applications/{template}/{id}",server="api"} 1
binder_http_requests_total{code="405",method="unknown",route="/applications",server="api"} 3`)
	durations := strings.Count(scrape(t, api.Metrics, "binder_http_request_duration_seconds_count"), "\n") + 1
	if durations != 6 {
		t.Errorf("%d series of durations, want the same 6", durations)
	}
}
