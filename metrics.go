package main

import (
	"errors"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// Metrics are all that Prometheus can know of this service. Labels take their
// values from closed sets: no id, template or path that a client could invent.
type Metrics struct {
	registry *prometheus.Registry

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

// NewMetrics makes the metrics on a registry of their own.
func NewMetrics(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
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
	m.registry.MustRegister(m.launches, m.launchDuration, m.ends, m.cullErrors, m.unreadable, m.activityPatches, m.activityProbes, m.registryAsks,
		m.requests, m.requestDuration, m.inFlight, m.leader, info, m.poolClaims, m.poolFailures,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.presetZeros()
	return m
}

// presetZeros makes series exist before their first event, so that a rate over
// them sees that event.
func (m *Metrics) presetZeros() {
	for _, reason := range instance.EndReasons() {
		m.ends.WithLabelValues(string(reason))
	}
	for _, result := range []string{"ok", "unknown_template", "no_capacity", "bad_template", "error"} {
		m.launches.WithLabelValues(result)
	}
	for _, result := range []string{"ok", "conflict", "error"} {
		m.activityPatches.WithLabelValues(result)
	}
	for _, result := range []ProbeResult{ProbeBusy, ProbeActive, ProbeIdle, ProbeNoAnswer, ProbeBadAnswer} {
		m.activityProbes.WithLabelValues(string(result))
	}
	for _, result := range []ClaimResult{ClaimWarm, ClaimLostRace, ClaimEmpty} {
		m.poolClaims.WithLabelValues(string(result))
	}
	for _, result := range []string{"ok", "unknown_template", "bad_template", "error"} {
		m.registryAsks.WithLabelValues(result)
	}
}

// WatchCluster adds what is computed from the read model when it is asked for.
func (m *Metrics) WatchCluster(cluster *Cluster) {
	m.registry.MustRegister(
		&instanceCollector{cluster, prometheus.NewDesc("binder_instances",
			"Instances in the cluster, by status; every replica reports all of them.", []string{"status"}, nil)},
		&poolCollector{cluster, prometheus.NewDesc("binder_pool_pods",
			"Warm pods in the cluster, by state (ready, starting); every replica reports all of them.", []string{"state"}, nil)},
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "binder_cache_synced", Help: "1 once everything has been read from the cluster.",
		}, func() float64 {
			if cluster.Synced() {
				return 1
			}
			return 0
		}))
}

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// instrument counts and times the requests of one route.
func (m *Metrics) instrument(server, route string, next http.Handler) http.Handler {
	labels := prometheus.Labels{"server": server, "route": route}
	return promhttp.InstrumentHandlerCounter(m.requests.MustCurryWith(labels),
		promhttp.InstrumentHandlerDuration(m.requestDuration.MustCurryWith(labels), next))
}

// instrumentProxy counts the proxy's requests. They are not timed: how long one
// takes is the application's business, and a WebSocket takes hours.
func (m *Metrics) instrumentProxy(next http.Handler) http.Handler {
	return m.instrumentProxyRoute(instance.UserPrefix, next)
}

// instrumentProxyRoute does so for one of the routes that the proxy's address has.
func (m *Metrics) instrumentProxyRoute(route string, next http.Handler) http.Handler {
	labels := prometheus.Labels{"server": "proxy", "route": route}
	return promhttp.InstrumentHandlerInFlight(m.inFlight,
		promhttp.InstrumentHandlerCounter(m.requests.MustCurryWith(labels), next))
}

func (m *Metrics) launched(err error) {
	result := templateResult(err)
	if errors.Is(err, errCapacity) {
		result = "no_capacity"
	}
	m.launches.WithLabelValues(result).Inc()
}

// templateResult is what came of asking for a template, as a label.
func templateResult(err error) string {
	var template *templateError
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, errUnknownTemplate):
		return "unknown_template"
	case errors.As(err, &template):
		return "bad_template"
	}
	return "error"
}

func (m *Metrics) ended(reason instance.EndReason) { m.ends.WithLabelValues(string(reason)).Inc() }

func (m *Metrics) claimed(result ClaimResult) { m.poolClaims.WithLabelValues(string(result)).Inc() }

func (m *Metrics) probed(result ProbeResult) { m.activityProbes.WithLabelValues(string(result)).Inc() }

func (m *Metrics) activityPatched(err error) {
	result := "error"
	switch {
	case err == nil:
		result = "ok"
	case apierrors.IsConflict(err):
		result = "conflict"
	}
	m.activityPatches.WithLabelValues(result).Inc()
}

func (m *Metrics) registryAsked(err error) {
	m.registryAsks.WithLabelValues(templateResult(err)).Inc()
}

// instanceCollector counts instances by status.
type instanceCollector struct {
	cluster *Cluster
	desc    *prometheus.Desc
}

var _ prometheus.Collector = (*instanceCollector)(nil)

func (c *instanceCollector) Describe(descs chan<- *prometheus.Desc) { descs <- c.desc }

func (c *instanceCollector) Collect(metrics chan<- prometheus.Metric) {
	count := map[instance.Status]int{}
	for _, inst := range c.cluster.Instances("") {
		count[inst.Status]++
	}
	for _, status := range instance.Statuses() {
		metrics <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(count[status]), string(status))
	}
}

// poolCollector counts warm pods by state.
type poolCollector struct {
	cluster *Cluster
	desc    *prometheus.Desc
}

var _ prometheus.Collector = (*poolCollector)(nil)

func (c *poolCollector) Describe(descs chan<- *prometheus.Desc) { descs <- c.desc }

func (c *poolCollector) Collect(metrics chan<- prometheus.Metric) {
	var ready, starting int
	for _, template := range c.cluster.WarmTemplates() {
		for _, pod := range c.cluster.WarmPods(template) {
			switch {
			case pod.DeletionTimestamp != nil:
			case instance.IsServing(pod):
				ready++
			default:
				starting++
			}
		}
	}
	metrics <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(ready), "ready")
	metrics <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(starting), "starting")
}
