package metrics_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"k8s.io/client-go/util/workqueue"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"
)

func newMetrics() *metrics.Metrics {
	return metrics.New("v1.2.3", metrics.Values{
		Launches: []string{"ok", "error"}, Failures: []string{"Evicted", "other"}, Ends: []string{"Culled", "Stopped"}, ActivityPatches: []string{"ok", "conflict"},
		ActivityProbes: []string{"idle", "busy"}, Claims: []string{"warm", "empty"}, RegistryAsks: []string{"ok", "error"}, Refusals: []string{"max_connections"}, WebSocketEnds: []string{"visitor"}, Phases: []string{"scheduled"},
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
	if n := strings.Count(scrape(t, m), "# TYPE binder_"); n < 25 {
		t.Errorf("there are only %d metrics", n)
	}
}

// Every series exists before its first event, and each event moves one series by one.
func TestEvents(t *testing.T) {
	for want, event := range map[string]func(*metrics.Metrics){
		`binder_launches_total{result="ok",template="other"}`:               func(m *metrics.Metrics) { m.Launched("made-up", "ok") },
		`binder_launches_total{result="ok",template="jupyter"}`:             func(m *metrics.Metrics) { m.Launched("jupyter", "ok") },
		`binder_launch_failures_total{reason="Evicted",template="jupyter"}`: func(m *metrics.Metrics) { m.LaunchFailed("jupyter", "Evicted") },
		`binder_culls_total{reason="Culled",template="jupyter"}`:            func(m *metrics.Metrics) { m.Ended("jupyter", "Culled", time.Hour) },
		`binder_failures_total{reason="Evicted",template="other"}`:          func(m *metrics.Metrics) { m.Failed("", "Evicted") },
		`binder_cull_errors_total`:                                          func(m *metrics.Metrics) { m.CullFailed() },
		`binder_cull_last_sweep_timestamp_seconds`:                          func(m *metrics.Metrics) { m.Swept(time.Unix(1, 0)) },
		`binder_tombstone_errors_total`:                                     func(m *metrics.Metrics) { m.TombstoneFailed() },
		`binder_activity_unreadable_total`:                                  func(m *metrics.Metrics) { m.WrongTimeFixed() },
		`binder_activity_patches_total{result="conflict"}`:                  func(m *metrics.Metrics) { m.ActivityWritten("conflict") },
		`binder_activity_patch_delay_seconds_count`:                         func(m *metrics.Metrics) { m.ActivityDelayed(time.Second) },
		`binder_activity_probes_total{result="busy"}`:                       func(m *metrics.Metrics) { m.Probed("busy") },
		`binder_registry_requests_total{result="error"}`:                    func(m *metrics.Metrics) { m.RegistryAsked("error") },
		`binder_pool_claims_total{result="warm",template="jupyter"}`:        func(m *metrics.Metrics) { m.Claimed("jupyter", "warm") },
		`binder_pool_claim_duration_seconds_count`:                          func(m *metrics.Metrics) { m.ClaimTook(time.Second) },
		`binder_pool_failures_total{template="jupyter"}`:                    func(m *metrics.Metrics) { m.PoolFailed("jupyter") },
		`binder_leader`:            func(m *metrics.Metrics) { m.Leading(true) },
		`binder_proxy_connections`: func(m *metrics.Metrics) { m.ConnectionsOpen(1) },
		`binder_proxy_connections_refused_total{limit="max_connections"}`: func(m *metrics.Metrics) { m.ConnectionRefused("max_connections") },
		`binder_proxy_bytes_total{to="visitor"}`:                          func(m *metrics.Metrics) { m.SentToVisitor(1) },
		`binder_proxy_bytes_total{to="instance"}`:                         func(m *metrics.Metrics) { m.SentToInstance(1) },
		`binder_proxy_websockets`:                                         func(m *metrics.Metrics) { m.WebSocketOpened() },
		`binder_proxy_websocket_ends_total{by="visitor"}`:                 func(m *metrics.Metrics) { m.WebSocketEnded("visitor") },
	} {
		m := newMetrics()
		m.TemplateChanged("jupyter", true)
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

// These series begin with the first event.
func TestTimes(t *testing.T) {
	m := newMetrics()
	m.TemplateChanged("jupyter", true)
	for _, template := range []string{"jupyter", "made-up", "made-up-too"} {
		m.LaunchTook(template, true, 1500*time.Millisecond)
		m.LaunchPhaseTook(template, "scheduled", time.Second)
		m.Ended(template, "Culled", time.Hour)
		m.Answered(template, 302, time.Second)
		m.Noticed(template, 503)
	}
	m.Answered("jupyter", 999, time.Second)
	m.Noticed("", 404)
	wantSeries(t, m, "binder_launch_duration_seconds_sum",
		`binder_launch_duration_seconds_sum{start="cold",template="jupyter"} 0`, `binder_launch_duration_seconds_sum{start="cold",template="other"} 0`,
		`binder_launch_duration_seconds_sum{start="warm",template="jupyter"} 1.5`, `binder_launch_duration_seconds_sum{start="warm",template="other"} 3`)
	wantSeries(t, m, "binder_launch_phase_duration_seconds_count",
		`binder_launch_phase_duration_seconds_count{phase="scheduled",template="jupyter"} 1`, `binder_launch_phase_duration_seconds_count{phase="scheduled",template="other"} 2`)
	wantSeries(t, m, "binder_instance_lifetime_seconds_sum",
		`binder_instance_lifetime_seconds_sum{template="jupyter"} 3600`, `binder_instance_lifetime_seconds_sum{template="other"} 7200`)
	wantSeries(t, m, "binder_proxy_first_byte_seconds_count",
		`binder_proxy_first_byte_seconds_count{code="3xx",template="jupyter"} 1`, `binder_proxy_first_byte_seconds_count{code="3xx",template="other"} 2`,
		`binder_proxy_first_byte_seconds_count{code="unknown",template="jupyter"} 1`)
	wantSeries(t, m, "binder_proxy_notices_total",
		`binder_proxy_notices_total{code="404",template=""} 1`, `binder_proxy_notices_total{code="503",template="jupyter"} 1`, `binder_proxy_notices_total{code="503",template="other"} 2`)

	m.TemplateChanged("jupyter", false)
	m.Answered("jupyter", 200, time.Second)
	for _, line := range series(t, m, "binder_") {
		if strings.Contains(line, "jupyter") {
			t.Errorf("a template that is gone still has %s", line)
		}
	}
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
	wantSeries(t, m, "binder_build_info", `binder_build_info{goversion="`+runtime.Version()+`",version="v1.2.3"} 1`)
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

// An upgrade is counted when it begins, and once.
func TestUpgradeIsCountedAtOnce(t *testing.T) {
	m := newMetrics()
	want := `binder_http_requests_total{code="101",method="get",route="/user/",server="proxy"} 1`
	m.InstrumentProxy("/user/", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusSwitchingProtocols)
		wantSeries(t, m, "binder_http_requests_total", want)
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/user/1/", nil))
	wantSeries(t, m, "binder_http_requests_total", want)
}

func TestOpenMetrics(t *testing.T) {
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	res := httptest.NewRecorder()
	newMetrics().Handler().ServeHTTP(res, r)
	if kind := res.Header().Get("Content-Type"); !strings.HasPrefix(kind, "application/openmetrics-text") || !strings.HasSuffix(res.Body.String(), "# EOF\n") {
		t.Errorf("got %s", kind)
	}
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestWatchAPIServer(t *testing.T) {
	for request, want := range map[string]string{
		"GET /api/v1/namespaces/binder-instances/pods":                     `code="200",resource="pods",verb="list"`,
		"GET /api/v1/namespaces/binder-instances/pods?watch=true":          `code="200",resource="pods",verb="watch"`,
		"PATCH /api/v1/namespaces/binder-instances/pods/p":                 `code="200",resource="pods",verb="patch"`,
		"DELETE /api/v1/namespaces/binder-instances/pods/p":                `code="200",resource="pods",verb="delete"`,
		"POST /api/v1/namespaces/binder-instances/pods":                    `code="200",resource="pods",verb="create"`,
		"GET /prefix/api/v1/namespaces/binder/services/p":                  `code="200",resource="services",verb="get"`,
		"PUT /apis/coordination.k8s.io/v1/namespaces/binder/leases/l":      `code="200",resource="leases",verb="update"`,
		"GET /apis/apps/v1/namespaces/binder-instances/daemonsets?watch=1": `code="200",resource="daemonsets",verb="watch"`,
		"GET /api/v1/namespaces/binder-instances":                          `code="200",resource="namespaces",verb="get"`,
		"GET /version": `code="200",resource="",verb="list"`,
		"GET /api":     `code="200",resource="",verb="list"`,
		"GET /api/v1/namespaces/binder-instances/pods/unreachable": `code="<error>",resource="pods",verb="get"`,
		"GET /api/v1/namespaces/binder-instances/pods/gone":        `code="<canceled>",resource="pods",verb="get"`,
	} {
		m := newMetrics()
		ctx, cancel := context.WithCancel(t.Context())
		if strings.HasSuffix(request, "gone") {
			cancel()
		}
		method, target, _ := strings.Cut(request, " ")
		_, _ = m.WatchAPIServer(transport(func(r *http.Request) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, "unreachable") || r.Context().Err() != nil {
				return nil, http.ErrHandlerTimeout
			}
			return &http.Response{StatusCode: http.StatusOK}, nil
		})).RoundTrip(httptest.NewRequestWithContext(ctx, method, "https://kubernetes"+target, nil))
		cancel()
		wantSeries(t, m, "rest_client_requests_total", "rest_client_requests_total{"+want+"} 1")
		_, labels, _ := strings.Cut(want, ",")
		wantSeries(t, m, "rest_client_request_duration_seconds_count", "rest_client_request_duration_seconds_count{"+labels+"} 1")
	}
}

// A queue that is made again begins at 0, and its counters go on.
func TestQueues(t *testing.T) {
	m := newMetrics()
	for range 2 {
		queue := workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[string]{Name: "warm_pool", MetricsProvider: m.Queues()})
		queue.Add("jupyter")
		wantSeries(t, m, "workqueue_depth", `workqueue_depth{name="warm_pool"} 1`)
		queue.ShutDown()
	}
	wantSeries(t, m, "workqueue_adds_total", `workqueue_adds_total{name="warm_pool"} 2`)
	m.Leading(false)
	wantSeries(t, m, "workqueue_depth")
}
