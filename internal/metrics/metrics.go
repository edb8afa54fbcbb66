// Package metrics counts what this replica does, for Prometheus.
//
// Its methods take plain values, so that any part can call them. It must never know the
// types of the domain, such as instances and templates: their names reach it as text, in
// Values. Metrics that are computed from the read model are elsewhere, and join by
// Register.
package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are the metrics of one process, on a registry of their own. Labels take their
// values from closed sets. They never hold an id, a template or a path, because a client
// could make up as many of those as it likes. Methods may be called at the same time.
type Metrics struct {
	registry *prometheus.Registry

	launches        *prometheus.CounterVec
	launchDuration  prometheus.Histogram
	ends            *prometheus.CounterVec
	failures        *prometheus.CounterVec
	cullErrors      prometheus.Counter
	tombstoneErrors prometheus.Counter
	wrongTimes      prometheus.Counter
	activityWrites  *prometheus.CounterVec
	activityProbes  *prometheus.CounterVec
	registryAsks    *prometheus.CounterVec
	requests        *prometheus.CounterVec
	requestDuration *prometheus.HistogramVec
	inFlight        prometheus.Gauge
	leader          prometheus.Gauge
	poolClaims      *prometheus.CounterVec
	poolFailures    prometheus.Counter
	connections     prometheus.Gauge
	refused         *prometheus.CounterVec
}

// Values lists the label values that other packages define. Their series exist from the
// start, at zero: otherwise a rate over a series would miss its first event.
type Values struct {
	Launches        []string // results of launches, as given to Launched
	Ends            []string // reasons of ends, as given to Ended
	Failures        []string // reasons of failures, as given to Failed
	ActivityPatches []string // results of writes of activity, as given to ActivityWritten
	ActivityProbes  []string // results of activity probes, as given to Probed
	Claims          []string // results of claims of warm pods, as given to Claimed
	RegistryAsks    []string // results of requests to the registry, as given to RegistryAsked
	Refusals        []string // limits of connections, as given to ConnectionRefused
}

// New makes the metrics. version becomes a label of binder_build_info.
func New(version string, values Values) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.launches = m.results("binder_launches_total", "Launches by this replica, by result.", "result", values.Launches)
	m.ends = m.results("binder_culls_total", "Instances that this replica ended, by reason.", "reason", values.Ends)
	m.failures = m.results("binder_failures_total", "Failed instances that this replica ended, by the reason of the failure.",
		"reason", values.Failures)
	m.cullErrors = m.counter("binder_cull_errors_total",
		"Failed deletes of ended instances; they are retried. Conflicts are not counted.")
	m.tombstoneErrors = m.counter("binder_tombstone_errors_total",
		"Tombstones that were not written. The instances were ended all the same.")
	m.wrongTimes = m.counter("binder_activity_unreadable_total",
		"Unreadable or future times of use or launch on pods, which were counted as now.")
	m.activityWrites = m.results("binder_activity_patches_total", "Writes of last activity to pods, by result.",
		"result", values.ActivityPatches)
	m.activityProbes = m.results("binder_activity_probes_total",
		"Requests that asked an application, before it would be culled, whether it is busy; by result.",
		"result", values.ActivityProbes)
	m.registryAsks = m.results("binder_registry_requests_total", "Requests to the registry of templates, by result.",
		"result", values.RegistryAsks)
	m.poolClaims = m.results("binder_pool_claims_total",
		"Claims of warm pods by this replica's launches, by result: warm (a pod was claimed), "+
			"lost_race (the pod had changed, and the next was tried), empty (no pod could be claimed).",
		"result", values.Claims)
	m.poolFailures = m.counter("binder_pool_failures_total",
		"Times that a warm pool stopped growing for a while, because its pods failed or were refused.")

	m.refused = m.results("binder_proxy_connections_refused_total",
		"Visitors' connections and requests that this replica refused, by the limit.", "limit", values.Refusals)
	m.connections = gauge("binder_proxy_connections", "Visitors' connections to the proxy that are open, idle ones too.", nil)
	m.Register(m.connections)

	m.launchDuration = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "binder_launch_duration_seconds", Help: "Time from a launch request to the deployed instance, for launches by this replica.",
		Buckets: []float64{.05, .1, .25, .5, 1, 2, 5, 10, 30, 60, 120, 300},
	})
	m.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "binder_http_requests_total", Help: "Requests answered, by server (api, proxy), route, method and status code.",
	}, []string{"server", "route", "method", "code"})
	m.requestDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "binder_http_request_duration_seconds",
		Help:    "Time to answer API requests, including the time that clients asked to wait and the length of streams.",
		Buckets: prometheus.DefBuckets,
	}, []string{"server", "route", "method", "code"})
	m.inFlight = gauge("binder_proxy_requests_in_flight", "Requests and WebSocket connections that the proxy is serving.", nil)
	m.leader = gauge("binder_leader", "1 on the replica that culls and keeps pools and preloads, 0 on the others.", nil)
	build := gauge("binder_build_info", "Always 1. The label version is the version of this build.", prometheus.Labels{"version": version})
	build.Set(1)
	m.Register(m.launchDuration, m.requests, m.requestDuration, m.inFlight, m.leader, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// results makes and registers a counter with one label, whose values are known.
func (m *Metrics) results(name, help, label string, values []string) *prometheus.CounterVec {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	for _, value := range values {
		vec.WithLabelValues(value)
	}
	m.Register(vec)
	return vec
}

func (m *Metrics) counter(name, help string) prometheus.Counter {
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	m.Register(counter)
	return counter
}

func gauge(name, help string, labels prometheus.Labels) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels})
}

// Register adds metrics that other parts compute. It panics if a name is taken, or breaks
// Prometheus' rules.
func (m *Metrics) Register(collectors ...prometheus.Collector) {
	m.registry.MustRegister(collectors...)
}

// Handler serves the metrics to Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// Launched counts a launch by this replica, by its result.
func (m *Metrics) Launched(result string) { m.launches.WithLabelValues(result).Inc() }

// LaunchTook observes the time from a launch request to the deployed instance.
func (m *Metrics) LaunchTook(d time.Duration) { m.launchDuration.Observe(d.Seconds()) }

// Ended counts an instance that this replica ended, by the reason.
func (m *Metrics) Ended(reason string) { m.ends.WithLabelValues(reason).Inc() }

// Failed counts a failed instance that this replica ended, by the reason of the failure.
func (m *Metrics) Failed(reason string) { m.failures.WithLabelValues(reason).Inc() }

// CullFailed counts a failed delete of an ended instance.
func (m *Metrics) CullFailed() { m.cullErrors.Inc() }

// TombstoneFailed counts a tombstone that was not written.
func (m *Metrics) TombstoneFailed() { m.tombstoneErrors.Inc() }

// WrongTimeFixed counts a wrong time on a pod that was replaced by a right one.
func (m *Metrics) WrongTimeFixed() { m.wrongTimes.Inc() }

// ActivityWritten counts a write of last activity to a pod, by its result.
func (m *Metrics) ActivityWritten(result string) { m.activityWrites.WithLabelValues(result).Inc() }

// Probed counts an activity probe of an application, by its result.
func (m *Metrics) Probed(result string) { m.activityProbes.WithLabelValues(result).Inc() }

// RegistryAsked counts a request to the registry of templates, by its result.
func (m *Metrics) RegistryAsked(result string) { m.registryAsks.WithLabelValues(result).Inc() }

// Claimed counts an attempt of a launch to claim a warm pod, by its result.
func (m *Metrics) Claimed(result string) { m.poolClaims.WithLabelValues(result).Inc() }

// PoolFailed counts a warm pool that stops growing for a while.
func (m *Metrics) PoolFailed() { m.poolFailures.Inc() }

// ConnectionsOpen records how many connections of visitors are open.
func (m *Metrics) ConnectionsOpen(n int) { m.connections.Set(float64(n)) }

// ConnectionRefused counts a connection or a request that was refused, by the limit.
func (m *Metrics) ConnectionRefused(limit string) { m.refused.WithLabelValues(limit).Inc() }

// Leading records whether this replica is the leader.
func (m *Metrics) Leading(leads bool) {
	m.leader.Set(0)
	if leads {
		m.leader.Set(1)
	}
}
