// Package metrics counts what this replica does, for Prometheus.
//
// Its methods take plain values, so that any part can call them. It must never know the
// types of the domain, such as instances and templates: their names reach it as text, in
// Values. Metrics that are computed from the read model are elsewhere, and join by
// Register.
package metrics

import (
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are the metrics of one process, on a registry of their own. Labels take their
// values from closed sets. They never hold an id, a path or a name that a client made up,
// because it could make up as many of those as it likes. Methods may be called at the same
// time.
type Metrics struct {
	registry *prometheus.Registry

	templates templates
	instances instances
	visits    visits
	cluster   cluster
	queues    queues
	webhook   webhook

	cullErrors      prometheus.Counter
	sweepInterval   prometheus.Gauge
	lastSweep       prometheus.Gauge
	tombstoneErrors prometheus.Counter
	wrongTimes      prometheus.Counter
	activityWrites  *prometheus.CounterVec
	activityDelay   prometheus.Histogram
	activityProbes  *prometheus.CounterVec
	registryAsks    *prometheus.CounterVec
	requests        *prometheus.CounterVec
	requestDuration *prometheus.HistogramVec
	inFlight        prometheus.Gauge
	leader          prometheus.Gauge
	connections     prometheus.Gauge
	refused         *prometheus.CounterVec
}

// Values lists the label values that other packages define. Their series exist from the
// start, at zero: otherwise a rate over a series would miss its first event.
type Values struct {
	Launches        []string // results of launches, as given to Launched
	Ends            []string // reasons of ends, as given to Ended
	Failures        []string // reasons of failures, as given to Failed and LaunchFailed
	Phases          []string // parts of a start, as given to LaunchPhaseTook
	ActivityPatches []string // results of writes of activity, as given to ActivityWritten
	ActivityProbes  []string // results of activity probes, as given to Probed
	Claims          []string // results of claims of warm pods, as given to Claimed
	RegistryAsks    []string // results of requests to the registry, as given to RegistryAsked
	Refusals        []string // limits of connections, as given to ConnectionRefused
	WebSocketEnds   []string // who ends WebSockets, as given to WebSocketEnded
	Deliveries      []string // results of deliveries of events, as given to WebhookDelivered
}

// New makes the metrics. version becomes a label of binder_build_info.
func New(version string, values Values) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.makeInstances(values)
	m.makeVisits(values)
	m.makeCluster()
	m.makeQueues()
	m.makeActivity(values)
	m.makeRequests()
	m.makeWebhook(values)

	m.cullErrors = m.counter("binder_cull_errors_total",
		"Failed deletes of ended instances; they are retried. Conflicts are not counted.")
	m.sweepInterval = m.gauge("binder_cull_interval_seconds", "How often the leader looks at every instance: --cull-interval.")
	m.lastSweep = m.gauge("binder_cull_last_sweep_timestamp_seconds",
		"When this replica last looked at every instance as the leader, in seconds since 1970; 0 if it has not.")
	m.tombstoneErrors = m.counter("binder_tombstone_errors_total",
		"Tombstones that were not written. The instances were ended all the same.")
	m.registryAsks = m.results("binder_registry_requests_total", "Requests to the registry of templates, by result.",
		"result", values.RegistryAsks)
	m.leader = m.gauge("binder_leader", "1 on the replica that culls and keeps pools and preloads, 0 on the others.")
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "binder_build_info", Help: "Always 1. The labels are the version of this build, and of Go.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	m.Register(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *Metrics) makeActivity(values Values) {
	m.wrongTimes = m.counter("binder_activity_unreadable_total",
		"Unreadable or future times of use or launch on pods, which were counted as now.")
	m.activityWrites = m.results("binder_activity_patches_total", "Writes of last activity to pods, by result.",
		"result", values.ActivityPatches)
	m.activityDelay = m.histogram("binder_activity_patch_delay_seconds",
		"Time from a use of an instance until it was written to the pod.",
		1, 5, 10, 30, 60, 150, 300, 600, 1800, 3600)
	m.activityProbes = m.results("binder_activity_probes_total",
		"Requests that asked an application, before it would be culled, whether it is busy; by result.",
		"result", values.ActivityProbes)
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

func (m *Metrics) gauge(name, help string) prometheus.Gauge {
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	m.Register(gauge)
	return gauge
}

func (m *Metrics) histogram(name, help string, buckets ...float64) prometheus.Histogram {
	histogram := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	m.Register(histogram)
	return histogram
}

// Register adds metrics that other parts compute. It panics if a name is taken, or breaks
// Prometheus' rules.
func (m *Metrics) Register(collectors ...prometheus.Collector) {
	m.registry.MustRegister(collectors...)
}

// Handler serves the metrics to Prometheus, as OpenMetrics to those who ask for it.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry, EnableOpenMetrics: true})
}

// CullFailed counts a failed delete of an ended instance.
func (m *Metrics) CullFailed() { m.cullErrors.Inc() }

// SweepsEvery records how often the leader looks at every instance.
func (m *Metrics) SweepsEvery(interval time.Duration) { m.sweepInterval.Set(interval.Seconds()) }

// Swept records when the leader has looked at every instance.
func (m *Metrics) Swept(at time.Time) { m.lastSweep.Set(float64(at.UnixMilli()) / 1000) }

// TombstoneFailed counts a tombstone that was not written.
func (m *Metrics) TombstoneFailed() { m.tombstoneErrors.Inc() }

// WrongTimeFixed counts a wrong time on a pod that was replaced by a right one.
func (m *Metrics) WrongTimeFixed() { m.wrongTimes.Inc() }

// ActivityWritten counts a write of last activity to a pod, by its result.
func (m *Metrics) ActivityWritten(result string) { m.activityWrites.WithLabelValues(result).Inc() }

// ActivityDelayed observes the time from a use until it was written.
func (m *Metrics) ActivityDelayed(d time.Duration) { m.activityDelay.Observe(d.Seconds()) }

// Probed counts an activity probe of an application, by its result.
func (m *Metrics) Probed(result string) { m.activityProbes.WithLabelValues(result).Inc() }

// RegistryAsked counts a request to the registry of templates, by its result.
func (m *Metrics) RegistryAsked(result string) { m.registryAsks.WithLabelValues(result).Inc() }

// Leading records whether this replica is the leader.
func (m *Metrics) Leading(leads bool) {
	m.leader.Set(0)
	if leads {
		m.leader.Set(1)
	} else {
		m.queues.end()
	}
}
