package metrics_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"
)

func newMetrics() *metrics.Metrics {
	return metrics.New("v1.2.3", metrics.Values{
		Launches: []string{"ok", "error"}, Failures: []string{"Evicted", "other"}, Ends: []string{"Culled", "Stopped"}, ActivityPatches: []string{"ok", "conflict"},
		ActivityProbes: []string{"idle", "busy"}, Claims: []string{"warm", "empty"}, RegistryAsks: []string{"ok", "error"}, Refusals: []string{"max_connections"},
	})
}

// scrape returns what Prometheus reads.
func scrape(t testing.TB, m *metrics.Metrics) string {
	t.Helper()
	res := httptest.NewRecorder()
	m.Handler().ServeHTTP(res, httptest.NewRequest("GET", "/metrics", nil))
	if res.Code != http.StatusOK {
		t.Fatalf("got status %d: %s", res.Code, res.Body)
	}
	return res.Body.String()
}

// series returns the series whose names begin with a prefix, sorted, with their values.
func series(t testing.TB, m *metrics.Metrics, prefix string) []string {
	t.Helper()
	var found []string
	for line := range strings.Lines(scrape(t, m)) {
		if strings.HasPrefix(line, prefix) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	slices.Sort(found)
	return found
}

func wantSeries(t testing.TB, m *metrics.Metrics, prefix string, want ...string) {
	t.Helper()
	if got := series(t, m, prefix); !slices.Equal(got, want) {
		t.Errorf("%s:\ngot  %q\nwant %q", prefix, got, want)
	}
}

func TestNamesKeepPrometheusConventions(t *testing.T) {
	m := newMetrics()
	m.Instrument("api", "/", http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	problems, err := promlint.New(strings.NewReader(scrape(t, m))).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("got problems %v and error %v", problems, err)
	}
	var names []string
	for line := range strings.Lines(scrape(t, m)) {
		if words := strings.Fields(line); words[1] == "TYPE" && strings.HasPrefix(words[2], "binder_") {
			names = append(names, words[2])
		}
	}
	if want := []string{
		"binder_activity_patches_total", "binder_activity_probes_total", "binder_activity_unreadable_total", "binder_build_info",
		"binder_cull_errors_total", "binder_culls_total", "binder_failures_total", "binder_http_request_duration_seconds", "binder_http_requests_total",
		"binder_launch_duration_seconds", "binder_launches_total", "binder_leader", "binder_pool_claims_total", "binder_pool_failures_total",
		"binder_proxy_connections", "binder_proxy_connections_refused_total", "binder_proxy_requests_in_flight", "binder_registry_requests_total", "binder_tombstone_errors_total",
	}; !slices.Equal(names, want) {
		t.Errorf("got metrics %q, want %q", names, want)
	}
}

// Every series exists before its first event, and each event moves one series by one.
func TestEvents(t *testing.T) {
	for want, event := range map[string]func(*metrics.Metrics){
		`binder_launches_total{result="ok"}`:               func(m *metrics.Metrics) { m.Launched("ok") },
		`binder_culls_total{reason="Culled"}`:              func(m *metrics.Metrics) { m.Ended("Culled") },
		`binder_failures_total{reason="Evicted"}`:          func(m *metrics.Metrics) { m.Failed("Evicted") },
		`binder_cull_errors_total`:                         func(m *metrics.Metrics) { m.CullFailed() },
		`binder_tombstone_errors_total`:                    func(m *metrics.Metrics) { m.TombstoneFailed() },
		`binder_activity_unreadable_total`:                 func(m *metrics.Metrics) { m.WrongTimeFixed() },
		`binder_activity_patches_total{result="conflict"}`: func(m *metrics.Metrics) { m.ActivityWritten("conflict") },
		`binder_activity_probes_total{result="busy"}`:      func(m *metrics.Metrics) { m.Probed("busy") },
		`binder_registry_requests_total{result="error"}`:   func(m *metrics.Metrics) { m.RegistryAsked("error") },
		`binder_pool_claims_total{result="warm"}`:          func(m *metrics.Metrics) { m.Claimed("warm") },
		`binder_pool_failures_total`:                       func(m *metrics.Metrics) { m.PoolFailed() },
		`binder_leader`:                                    func(m *metrics.Metrics) { m.Leading(true) },
		`binder_launch_duration_seconds_count`:             func(m *metrics.Metrics) { m.LaunchTook(time.Second) },
	} {
		m := newMetrics()
		name, _, _ := strings.Cut(want, "{")
		expected := series(t, m, name)
		i := slices.Index(expected, want+" 0")
		if i < 0 {
			t.Errorf("%s does not start at 0: %q", want, expected)
			continue
		}
		expected[i] = want + " 1"
		event(m)
		wantSeries(t, m, name, expected...)
	}
}

func TestLaunchTook(t *testing.T) {
	m := newMetrics()
	m.LaunchTook(1500 * time.Millisecond)
	wantSeries(t, m, "binder_launch_duration_seconds_sum", "binder_launch_duration_seconds_sum 1.5")
}

func TestLeadingEnds(t *testing.T) {
	m := newMetrics()
	m.Leading(true)
	m.Leading(false)
	wantSeries(t, m, "binder_leader", "binder_leader 0")
}

// Neither a path nor a method that a client makes up becomes a label.
func TestInstrument(t *testing.T) {
	m := newMetrics()
	h := m.Instrument("api", "/applications", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	for _, method := range []string{"GET", "BREW", "X-1"} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, "/applications?made=up", nil))
	}
	wantSeries(t, m, "binder_http_requests_total",
		`binder_http_requests_total{code="418",method="get",route="/applications",server="api"} 1`,
		`binder_http_requests_total{code="418",method="unknown",route="/applications",server="api"} 2`)
	wantSeries(t, m, "binder_http_request_duration_seconds_count",
		`binder_http_request_duration_seconds_count{code="418",method="get",route="/applications",server="api"} 1`,
		`binder_http_request_duration_seconds_count{code="418",method="unknown",route="/applications",server="api"} 2`)
}

// Routes of the API and of the proxy have the same labels for the same requests.
func TestMethodsOfBothServers(t *testing.T) {
	m := newMetrics()
	var want []string
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "NOTIFY", "get", "post", "Get", "BREW", "A", "unknown"} {
		for _, code := range []int{0, 200, 404} {
			answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if code != 0 {
					w.WriteHeader(code)
				}
			})
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Method = method
			m.Instrument("api", "/", answer).ServeHTTP(httptest.NewRecorder(), r)
			m.InstrumentProxy("/", answer).ServeHTTP(httptest.NewRecorder(), r)
		}
	}
	for _, line := range series(t, m, "binder_http_requests_total") {
		if strings.Contains(line, `server="proxy"`) {
			want = append(want, strings.Replace(line, `server="proxy"`, `server="api"`, 1), line)
		}
	}
	slices.Sort(want)
	wantSeries(t, m, "binder_http_requests_total", want...)
}

// Requests at the same time are all counted, in the same series.
func TestInstrumentAtOnce(t *testing.T) {
	m := newMetrics()
	h := m.Instrument("api", "/", http.NotFoundHandler())
	var requests sync.WaitGroup
	for range 50 {
		requests.Go(func() { h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)) })
	}
	requests.Wait()
	wantSeries(t, m, "binder_http_requests_total", `binder_http_requests_total{code="404",method="get",route="/",server="api"} 50`)
}

func TestInstrumentProxy(t *testing.T) {
	m := newMetrics()
	h := m.InstrumentProxy("/user/", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		wantSeries(t, m, "binder_proxy_requests_in_flight", "binder_proxy_requests_in_flight 1")
		w.WriteHeader(http.StatusGone)
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("X-MADE-UP", "/user/1/made/up", nil))
	wantSeries(t, m, "binder_proxy_requests_in_flight", "binder_proxy_requests_in_flight 0")
	wantSeries(t, m, "binder_http_requests_total", `binder_http_requests_total{code="410",method="unknown",route="/user/",server="proxy"} 1`)
	wantSeries(t, m, "binder_http_request_duration_seconds_count")
}

// An answer that breaks off is counted as its handler says, once.
func TestInstrumentProxyOfABrokenAnswer(t *testing.T) {
	m := newMetrics()
	h := m.InstrumentProxy("/user/", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		w.(interface{ Broke(code int) }).Broke(499)
		panic(http.ErrAbortHandler)
	}))
	func() {
		defer func() { _ = recover() }()
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/user/1/", nil))
	}()
	wantSeries(t, m, "binder_http_requests_total", `binder_http_requests_total{code="499",method="get",route="/user/",server="proxy"} 1`)
	wantSeries(t, m, "binder_proxy_requests_in_flight", "binder_proxy_requests_in_flight 0")
}

func TestMetricsOfTheProcess(t *testing.T) {
	m := newMetrics()
	wantSeries(t, m, "binder_build_info", `binder_build_info{version="v1.2.3"} 1`)
	for _, prefix := range []string{"go_goroutines ", "process_open_fds ", "promhttp_metric_handler_errors_total"} {
		if len(series(t, m, prefix)) == 0 {
			t.Errorf("%s is missing", prefix)
		}
	}
}

func TestRegister(t *testing.T) {
	m := newMetrics()
	m.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "binder_cache_synced", Help: "."}, func() float64 { return 1 }))
	wantSeries(t, m, "binder_cache_synced", "binder_cache_synced 1")
}

func BenchmarkInstrument(b *testing.B) {
	h := newMetrics().Instrument("api", "/applications/{template}/{id}", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}
