package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// otherTemplate is the label of all templates that do not exist in the cluster: those of a
// registry, those that were deleted, and names that clients made up. A template of this name
// shares it.
const otherTemplate = "other"

const templateLabel = "template"

// templates bounds the labels that name templates.
type templates struct {
	known sync.Map // from the name of a template that exists to its *answers
	// zero makes the series that a template has from the start.
	zero []func(template string)
	// all are the metrics that have the label.
	all []templateVec
}

// templateVec is a metric with the label of a template.
type templateVec interface {
	prometheus.Collector
	DeletePartialMatch(labels prometheus.Labels) int
}

// instances are the metrics of how instances begin and end.
type instances struct {
	launches       *prometheus.CounterVec
	launchDuration *prometheus.HistogramVec
	launchPhases   *prometheus.HistogramVec
	launchFailures *prometheus.CounterVec
	claims         *prometheus.CounterVec
	claimDuration  prometheus.Histogram
	poolFailures   *prometheus.CounterVec
	ends           *prometheus.CounterVec
	failures       *prometheus.CounterVec
	waits          *prometheus.HistogramVec
	lifetimes      *prometheus.HistogramVec
}

func (m *Metrics) makeInstances(values Values) {
	seconds := []float64{.05, .1, .25, .5, 1, 2, 5, 10, 30, 60, 120, 300}
	m.instances = instances{
		launches: m.byTemplate("binder_launches_total",
			"Launches by this replica, by template and result. With ok, the cluster has accepted the instance.", "result", values.Launches...),
		launchDuration: m.timesByTemplate("binder_launch_duration_seconds",
			"Time from a launch request to the deployed instance, for launches by this replica; by start: warm (a pod was claimed), cold (a pod was created).",
			seconds, "start", "warm", "cold"),
		launchPhases: m.timesByTemplate("binder_launch_phase_duration_seconds",
			"Parts of the time of cold launches by this replica, to a second, by what ended them: scheduled (a node was found), "+
				"sandbox (the pod has its network), started (images were pulled, and the containers started), listening (the application is ready).",
			seconds, "phase", values.Phases...),
		launchFailures: m.byTemplate("binder_launch_failures_total",
			"Launches by this replica whose instance failed before it was deployed, by template and the reason of the failure.",
			"reason", values.Failures...),
		claims: m.byTemplate("binder_pool_claims_total",
			"Claims of warm pods by this replica's launches, by template and result: warm (a pod was claimed), "+
				"lost_race (the pod had changed, and the next was tried), empty (no pod could be claimed).", "result", values.Claims...),
		claimDuration: m.histogram("binder_pool_claim_duration_seconds", "Time that the claim of a warm pod took.",
			.0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5),
		poolFailures: m.byTemplate("binder_pool_failures_total",
			"Times that a warm pool stopped growing for a while, because its pods failed or were refused.", ""),
		ends: m.byTemplate("binder_culls_total", "Instances that this replica ended, by template and reason.", "reason", values.Ends...),
		failures: m.byTemplate("binder_failures_total",
			"Failed instances that this replica ended, by template and the reason of the failure.", "reason", values.Failures...),
		waits: m.timesByTemplate("binder_queue_wait_seconds",
			"Time that launches waited for a place within the limits, for those that this replica has given one, which the leader does.",
			[]float64{.05, .1, .5, 1, 5, 15, 60, 300, 900, 1800, 3600}, ""),
		lifetimes: m.timesByTemplate("binder_instance_lifetime_seconds",
			"Time from the launch of an instance to its end, for instances that this replica ended.",
			[]float64{60, 300, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400}, ""),
	}
	m.beginTemplate(otherTemplate)
}

// byTemplate makes and registers a counter with the label of a template, and another one, if
// that is not "". A template has the series of these values from the start.
func (m *Metrics) byTemplate(name, help, label string, values ...string) *prometheus.CounterVec {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, templateLabels(label))
	m.addTemplateVec(vec, func(labels ...string) { vec.WithLabelValues(labels...) }, label, values)
	return vec
}

// timesByTemplate is byTemplate for a histogram.
func (m *Metrics) timesByTemplate(name, help string, buckets []float64, label string, values ...string) *prometheus.HistogramVec {
	vec := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, templateLabels(label))
	m.addTemplateVec(vec, func(labels ...string) { vec.WithLabelValues(labels...) }, label, values)
	return vec
}

func templateLabels(label string) []string {
	if label == "" {
		return []string{templateLabel}
	}
	return []string{templateLabel, label}
}

// addTemplateVec registers a metric with the label of a template. begin makes one of its series.
func (m *Metrics) addTemplateVec(vec templateVec, begin func(labels ...string), label string, values []string) {
	m.Register(vec)
	m.templates.all = append(m.templates.all, vec)
	m.templates.zero = append(m.templates.zero, func(template string) {
		if label == "" {
			begin(template)
		}
		for _, value := range values {
			begin(template, value)
		}
	})
}

// beginTemplate makes the series that a template has from the start.
func (m *Metrics) beginTemplate(template string) {
	for _, begin := range m.templates.zero {
		begin(template)
	}
}

// TemplateLabel returns the label of a template: its name if it exists in the cluster, or
// else one that all others share.
func (m *Metrics) TemplateLabel(name string) string {
	if _, exists := m.templates.known.Load(name); exists {
		return name
	}
	return otherTemplate
}

// TemplateChanged is told of each template that is created, changed or deleted in the
// cluster. The series of one that exists begin at zero, and those of a deleted one end.
func (m *Metrics) TemplateChanged(name string, exists bool) {
	switch _, known := m.templates.known.Load(name); {
	case name == otherTemplate || known == exists:
	case exists:
		m.templates.known.Store(name, m.visits.answersOf(name))
		m.beginTemplate(name)
	default:
		m.templates.known.Delete(name)
		for _, vec := range m.templates.all {
			vec.DeletePartialMatch(prometheus.Labels{templateLabel: name})
		}
	}
}

// Launched counts a launch by this replica, by its result.
func (m *Metrics) Launched(template, result string) {
	m.instances.launches.WithLabelValues(m.TemplateLabel(template), result).Inc()
}

// LaunchTook observes the time from a launch request to the deployed instance. warm says that
// it claimed a warm pod.
func (m *Metrics) LaunchTook(template string, warm bool, d time.Duration) {
	start := "cold"
	if warm {
		start = "warm"
	}
	m.instances.launchDuration.WithLabelValues(m.TemplateLabel(template), start).Observe(d.Seconds())
}

// LaunchPhaseTook observes a part of the time of a cold launch.
func (m *Metrics) LaunchPhaseTook(template, phase string, d time.Duration) {
	m.instances.launchPhases.WithLabelValues(m.TemplateLabel(template), phase).Observe(d.Seconds())
}

// LaunchFailed counts a launch whose instance failed before it was deployed, by the reason.
func (m *Metrics) LaunchFailed(template, reason string) {
	m.instances.launchFailures.WithLabelValues(m.TemplateLabel(template), reason).Inc()
}

// Claimed counts an attempt of a launch to claim a warm pod, by its result.
func (m *Metrics) Claimed(template, result string) {
	m.instances.claims.WithLabelValues(m.TemplateLabel(template), result).Inc()
}

// ClaimTook observes the time that the claim of a warm pod took.
func (m *Metrics) ClaimTook(d time.Duration) { m.instances.claimDuration.Observe(d.Seconds()) }

// Admitted observes how long a launch has waited that has got its place.
func (m *Metrics) Admitted(template string, waited time.Duration) {
	m.instances.waits.WithLabelValues(m.TemplateLabel(template)).Observe(waited.Seconds())
}

// PoolFailed counts a warm pool that stops growing for a while.
func (m *Metrics) PoolFailed(template string) {
	m.instances.poolFailures.WithLabelValues(m.TemplateLabel(template)).Inc()
}

// Ended counts an instance that this replica ended, by the reason, and observes for how long
// it lived.
func (m *Metrics) Ended(template, reason string, lived time.Duration) {
	template = m.TemplateLabel(template)
	m.instances.ends.WithLabelValues(template, reason).Inc()
	m.instances.lifetimes.WithLabelValues(template).Observe(lived.Seconds())
}

// Failed counts a failed instance that this replica ended, by the reason of the failure.
func (m *Metrics) Failed(template, reason string) {
	m.instances.failures.WithLabelValues(m.TemplateLabel(template), reason).Inc()
}
