package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"

	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
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

func TestMetricsKeepTheConventions(t *testing.T) {
	m := metrics.New("v1.2.3", metricValues())
	watchCluster(m, startCluster(t, kubetest.ClockAt(kubetest.Noon)).Cluster)
	// A series of those that have none yet.
	h := m.Instrument("api", "/applications", http.NotFoundHandler())
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/applications", nil))
	families, err := m.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		t.Errorf("%s: %s", problem.Metric, problem.Text)
	}
	var ours []string
	for _, family := range families {
		if strings.HasPrefix(family.GetName(), "binder_") {
			ours = append(ours, family.GetName())
		}
	}
	if want := []string{
		"binder_activity_patches_total", "binder_activity_probes_total", "binder_activity_unreadable_total", "binder_build_info", "binder_cache_synced",
		"binder_cull_errors_total", "binder_culls_total", "binder_http_request_duration_seconds", "binder_http_requests_total",
		"binder_instances", "binder_launch_duration_seconds", "binder_launches_total", "binder_leader",
		"binder_pool_claims_total", "binder_pool_failures_total", "binder_pool_pods", "binder_proxy_requests_in_flight",
		"binder_registry_requests_total",
	}; !slices.Equal(ours, want) {
		t.Errorf("got metrics %q, want %q", ours, want)
	}
}

func TestMetricsStartAtZero(t *testing.T) {
	m := metrics.New("test", metricValues())
	wantMetrics(t, m, "binder_activity_patches_total", `
binder_activity_patches_total{result="conflict"} 0
binder_activity_patches_total{result="error"} 0
binder_activity_patches_total{result="ok"} 0`)
	wantMetrics(t, m, "binder_activity_unreadable_total", "binder_activity_unreadable_total 0")
	wantMetrics(t, m, "binder_cull", `
binder_cull_errors_total 0
binder_culls_total{reason="Culled"} 0
binder_culls_total{reason="Expired"} 0
binder_culls_total{reason="Failed"} 0
binder_culls_total{reason="Gone"} 0
binder_culls_total{reason="Stopped"} 0`)
	wantMetrics(t, m, "binder_launches_total", `
binder_launches_total{result="bad_template"} 0
binder_launches_total{result="error"} 0
binder_launches_total{result="no_capacity"} 0
binder_launches_total{result="ok"} 0
binder_launches_total{result="unknown_template"} 0`)
	wantMetrics(t, m, "binder_leader", "binder_leader 0")
	wantMetrics(t, m, "binder_launch_duration_seconds_count", "binder_launch_duration_seconds_count 0")
}

func TestResultsOfLaunches(t *testing.T) {
	for want, err := range map[string]error{
		"ok":               nil,
		"unknown_template": fmt.Errorf("%w: jupyter", podtemplate.ErrUnknown),
		"no_capacity":      fmt.Errorf("%w: %w", launch.ErrCapacity, errors.New("exceeded quota")),
		"bad_template":     fmt.Errorf("launch: %w", &podtemplate.Error{Template: "jupyter", Err: errors.New("it has no container")}),
		"error":            errors.New("connection refused"),
	} {
		m := metrics.New("test", metricValues())
		m.Launched(launch.LaunchResult(err))
		wantOnlyOne(t, m, "binder_launches_total", want)
	}
}

func TestResultsOfActivityPatches(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	for want, err := range map[string]error{
		"ok":       nil,
		"conflict": fmt.Errorf("write: %w", apierrors.NewConflict(pods, "binder-1", errors.New("it has changed"))),
		"error":    apierrors.NewNotFound(pods, "binder-1"),
	} {
		m := metrics.New("test", metricValues())
		m.ActivityWritten(writeResult(err))
		wantOnlyOne(t, m, "binder_activity_patches_total", want)
	}
}

// wantOnlyOne checks that one result was counted, once, under a label that was
// there from the start.
func wantOnlyOne(t testing.TB, m *metrics.Metrics, name, result string) {
	t.Helper()
	line := name + `{result="` + result + `"} `
	want := strings.Replace(scrape(t, metrics.New("test", metricValues()), name), line+"0", line+"1", 1)
	wantMetrics(t, m, name, want)
}

func TestEndsAreCountedByReason(t *testing.T) {
	m := metrics.New("test", metricValues())
	m.Ended(string(instance.EndCulled))
	m.Ended(string(instance.EndCulled))
	wantMetrics(t, m, `binder_culls_total{reason="Culled"}`, `binder_culls_total{reason="Culled"} 2`)
}

func TestInstancesByStatus(t *testing.T) {
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon),
		kubetest.Pod(kubetest.ID(1), kubetest.Noon), kubetest.Pod(kubetest.ID(2), kubetest.Noon), kubetest.Pod(kubetest.ID(3), kubetest.Noon, kubetest.Starting),
		kubetest.Pod(kubetest.ID(4), kubetest.Noon, kubetest.Broken), kubetest.Pod(kubetest.ID(5), kubetest.Noon, kubetest.WithLabel(instance.PoolLabel, "warm")))
	m := metrics.New("test", metricValues())
	watchCluster(m, c.Cluster)
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

func TestCacheSynced(t *testing.T) {
	running := startCluster(t, kubetest.ClockAt(kubetest.Noon))
	unread, err := NewCluster(running.Client, ClusterOptions{Namespace: "binder", InstancesNamespace: kubetest.Namespace}, kubetest.ClockAt(kubetest.Noon))
	if err != nil {
		t.Fatal(err)
	}
	for cluster, want := range map[*Cluster]string{running.Cluster: "1", unread: "0"} {
		m := metrics.New("test", metricValues())
		watchCluster(m, cluster)
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

func TestProxyRequestsInFlight(t *testing.T) {
	m := metrics.New("test", metricValues())
	var during string
	h := m.InstrumentProxy(instance.UserPrefix, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		during = scrape(t, m, "binder_proxy_requests_in_flight")
		w.WriteHeader(http.StatusGone)
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("X-MADE-UP", "/user/"+kubetest.ID(1)+"/made/up", nil))
	if during != "binder_proxy_requests_in_flight 1" {
		t.Errorf("during the request: %s, want 1", during)
	}
	wantMetrics(t, m, "binder_proxy_requests_in_flight", "binder_proxy_requests_in_flight 0")
	wantMetrics(t, m, "binder_http_requests_total", `
binder_http_requests_total{code="410",method="unknown",route="/user/",server="proxy"} 1`)
}

func TestMetricsOfTheProcess(t *testing.T) {
	m := metrics.New("v1.2.3", metricValues())
	wantMetrics(t, m, "binder_build_info", `binder_build_info{version="v1.2.3"} 1`)
	for _, prefix := range []string{"go_goroutines ", "process_open_fds ", "promhttp_metric_handler_errors_total"} {
		if scrape(t, m, prefix) == "" {
			t.Errorf("%s is missing", prefix)
		}
	}
}
