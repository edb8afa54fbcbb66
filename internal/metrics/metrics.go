package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are all that Prometheus can know of this service. Labels take their
// values from closed sets: no id, template or path that a client could invent.
type Metrics struct {
	Registry *prometheus.Registry

	launches        *prometheus.CounterVec
	launchDuration  prometheus.Histogram
	ends            *prometheus.CounterVec
	cullErrors      prometheus.Counter
	unreadable      prometheus.Counter
	activityPatches *prometheus.CounterVec
	activityProbes  *prometheus.CounterVec
	registryAsks    *prometheus.CounterVec
	requests        *prometheus.CounterVec
	requestDuration *prometheus.HistogramVec
	inFlight        prometheus.Gauge
	leader          prometheus.Gauge
	poolClaims      *prometheus.CounterVec
	poolFailures    prometheus.Counter
}

// New makes the metrics on a registry of their own.
func New(version string, values Values) *Metrics {
	m := &Metrics{
		Registry: prometheus.NewRegistry(),
		launches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "binder_launches_total", Help: "Launches asked of this replica, by result.",
		}, []string{"result"}),
		launchDuration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "binder_launch_duration_seconds", Help: "Time from a launch request to the instance being deployed, for launches by this replica.",
			Buckets: []float64{.05, .1, .25, .5, 1, 2, 5, 10, 30, 60, 120, 300},
		}),
		ends: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "binder_culls_total", Help: "Instances that this replica ended, by reason.",
		}, []string{"reason"}),
		cullErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "binder_cull_errors_total", Help: "Attempts to delete an instance that was over that failed, and are made again; a conflict is none.",
		}),
		unreadable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "binder_activity_unreadable_total", Help: "Times on pods, of use or launch, that could not be right and were counted as now.",
		}),
		activityPatches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "binder_activity_patches_total", Help: "Writes of last activity to pods, by result.",
		}, []string{"result"}),
		activityProbes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "binder_activity_probes_total", Help: "Times that an application was asked whether it is at work before it would be culled, by result.",
		}, []string{"result"}),
		registryAsks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "binder_registry_requests_total", Help: "Questions to the registry of templates, by result.",
		}, []string{"result"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "binder_http_requests_total", Help: "Requests answered, by server (api, proxy), route, method and status code.",
		}, []string{"server", "route", "method", "code"}),
		requestDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "binder_http_request_duration_seconds", Help: "Time to answer API requests, with the time that clients asked to wait and the length of streams.",
			Buckets: prometheus.DefBuckets,
		}, []string{"server", "route", "method", "code"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "binder_proxy_requests_in_flight", Help: "Requests and open WebSocket connections that the proxy is serving.",
		}),
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "binder_leader", Help: "1 on the replica that culls and keeps pools and preloads, 0 on the others.",
		}),
		poolClaims: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "binder_pool_claims_total", Help: "What this replica's launches found in warm pools, by result: warm, lost_race (and the next was tried), empty.",
		}, []string{"result"}),
		poolFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "binder_pool_failures_total", Help: "Times that a warm pool stopped growing for a while because its pods failed or were refused.",
		}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "binder_build_info", Help: "Always 1; the label is this build's version.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	m.Registry.MustRegister(m.launches, m.launchDuration, m.ends, m.cullErrors, m.unreadable, m.activityPatches, m.activityProbes, m.registryAsks,
		m.requests, m.requestDuration, m.inFlight, m.leader, info, m.poolClaims, m.poolFailures,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.presetZeros(values)
	return m
}

// Values are the closed sets that labels take their values from. They make series
// exist before their first event, so that a rate over them sees that event.
type Values struct {
	Launches, Ends, ActivityPatches, ActivityProbes, Claims, RegistryAsks []string
}

func (m *Metrics) presetZeros(values Values) {
	for _, preset := range []struct {
		vec    *prometheus.CounterVec
		values []string
	}{
		{m.launches, values.Launches},
		{m.ends, values.Ends},
		{m.activityPatches, values.ActivityPatches},
		{m.activityProbes, values.ActivityProbes},
		{m.poolClaims, values.Claims},
		{m.registryAsks, values.RegistryAsks},
	} {
		for _, value := range preset.values {
			preset.vec.WithLabelValues(value)
		}
	}
}

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{Registry: m.Registry})
}

// Instrument counts and times the requests of one route.
func (m *Metrics) Instrument(server, route string, next http.Handler) http.Handler {
	labels := prometheus.Labels{"server": server, "route": route}
	return promhttp.InstrumentHandlerCounter(m.requests.MustCurryWith(labels),
		promhttp.InstrumentHandlerDuration(m.requestDuration.MustCurryWith(labels), next))
}

// InstrumentProxy counts the requests of a route of the proxy's address. They are not
// timed: how long one takes is the application's business, and a WebSocket takes hours.
func (m *Metrics) InstrumentProxy(route string, next http.Handler) http.Handler {
	labels := prometheus.Labels{"server": "proxy", "route": route}
	return promhttp.InstrumentHandlerInFlight(m.inFlight,
		promhttp.InstrumentHandlerCounter(m.requests.MustCurryWith(labels), next))
}

// Launched counts a launch that was asked of this replica, by its result.
func (m *Metrics) Launched(result string) { m.launches.WithLabelValues(result).Inc() }

// LaunchTook observes the time from a launch request to the instance being deployed.
func (m *Metrics) LaunchTook(d time.Duration) { m.launchDuration.Observe(d.Seconds()) }

// Ended counts an instance that this replica ended, by its reason.
func (m *Metrics) Ended(reason string) { m.ends.WithLabelValues(reason).Inc() }

// CullFailed counts a delete of an ended instance that failed.
func (m *Metrics) CullFailed() { m.cullErrors.Inc() }

// TimeFixed counts a time on a pod that could not be right and was replaced.
func (m *Metrics) TimeFixed() { m.unreadable.Inc() }

// ActivityWritten counts a write of last activity to a pod, by its result.
func (m *Metrics) ActivityWritten(result string) { m.activityPatches.WithLabelValues(result).Inc() }

// Probed counts a question to an application whether it is at work, by its result.
func (m *Metrics) Probed(result string) { m.activityProbes.WithLabelValues(result).Inc() }

// RegistryAsked counts a question to the registry of templates, by its result.
func (m *Metrics) RegistryAsked(result string) { m.registryAsks.WithLabelValues(result).Inc() }

// Claimed counts what a launch found in a warm pool, by its result.
func (m *Metrics) Claimed(result string) { m.poolClaims.WithLabelValues(result).Inc() }

// PoolFailed counts a warm pool that stopped growing for a while.
func (m *Metrics) PoolFailed() { m.poolFailures.Inc() }

// Leading says whether this replica is the elected leader.
func (m *Metrics) Leading(leads bool) {
	m.leader.Set(0)
	if leads {
		m.leader.Set(1)
	}
}

// Register adds collectors of other parts.
func (m *Metrics) Register(collectors ...prometheus.Collector) {
	m.Registry.MustRegister(collectors...)
}
