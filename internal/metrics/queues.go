package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/util/workqueue"
)

// queues are the metrics of work queues, with the names that Kubernetes' own components use.
type queues struct {
	depth, unfinished, longest *prometheus.GaugeVec
	adds, retries              *prometheus.CounterVec
	latency, work              *prometheus.HistogramVec
}

var _ workqueue.MetricsProvider = (*queues)(nil)

func (m *Metrics) makeQueues() {
	label := []string{"name"}
	gauge := func(name, help string) *prometheus.GaugeVec {
		vec := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, label)
		m.Register(vec)
		return vec
	}
	counter := func(name, help string) *prometheus.CounterVec {
		vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, label)
		m.Register(vec)
		return vec
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		vec := prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(.001, 4, 9), // to 65 s
		}, label)
		m.Register(vec)
		return vec
	}
	m.queues = queues{
		depth:      gauge("workqueue_depth", "Names of templates that wait to be worked on."),
		unfinished: gauge("workqueue_unfinished_work_seconds", "How long all work under way has taken so far, added up."),
		longest:    gauge("workqueue_longest_running_processor_seconds", "How long the longest work under way has taken so far."),
		adds:       counter("workqueue_adds_total", "Names that were queued."),
		retries:    counter("workqueue_retries_total", "Names that were queued again for later: after an error, or to look again."),
		latency:    histogram("workqueue_queue_duration_seconds", "How long names wait before they are worked on."),
		work:       histogram("workqueue_work_duration_seconds", "How long the work on a name takes."),
	}
}

// Queues returns where client-go's work queues report to.
func (m *Metrics) Queues() workqueue.MetricsProvider { return &m.queues }

// end forgets the work under way: only the leader works, and client-go reports no end of it.
func (q *queues) end() {
	q.depth.Reset()
	q.unfinished.Reset()
	q.longest.Reset()
}

// NewDepthMetric begins at 0: a queue is new at each term, and the one before may not have
// been emptied.
func (q *queues) NewDepthMetric(name string) workqueue.GaugeMetric {
	depth := q.depth.WithLabelValues(name)
	depth.Set(0)
	return depth
}

// NewAddsMetric returns the counter of a queue.
func (q *queues) NewAddsMetric(name string) workqueue.CounterMetric {
	return q.adds.WithLabelValues(name)
}

// NewLatencyMetric returns the histogram of a queue.
func (q *queues) NewLatencyMetric(name string) workqueue.HistogramMetric {
	return q.latency.WithLabelValues(name)
}

// NewWorkDurationMetric returns the histogram of a queue.
func (q *queues) NewWorkDurationMetric(name string) workqueue.HistogramMetric {
	return q.work.WithLabelValues(name)
}

// NewUnfinishedWorkSecondsMetric returns the gauge of a queue.
func (q *queues) NewUnfinishedWorkSecondsMetric(name string) workqueue.SettableGaugeMetric {
	return q.unfinished.WithLabelValues(name)
}

// NewLongestRunningProcessorSecondsMetric returns the gauge of a queue.
func (q *queues) NewLongestRunningProcessorSecondsMetric(name string) workqueue.SettableGaugeMetric {
	return q.longest.WithLabelValues(name)
}

// NewRetriesMetric returns the counter of a queue.
func (q *queues) NewRetriesMetric(name string) workqueue.CounterMetric {
	return q.retries.WithLabelValues(name)
}
