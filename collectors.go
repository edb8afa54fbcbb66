package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"
)

// registerCollectors adds the metrics that are computed from the read model and the
// culler when they are scraped.
func registerCollectors(m *metrics.Metrics, cache *Cache, culler *Culler) {
	m.Register(
		&instanceCollector{cache, prometheus.NewDesc("binder_instances",
			"Instances in the cluster, by status. Every replica reports all of them.", []string{"status"}, nil)},
		&poolCollector{cache, prometheus.NewDesc("binder_pool_pods",
			"Warm pods in the cluster, by state (ready, starting). Every replica reports all of them.", []string{"state"}, nil)},
		boolGauge("binder_cache_synced", "1 once everything has been read from the cluster.", cache.Synced),
		boolGauge("binder_deletes_held",
			"1 while the leader holds back deletes of instances that may be in use; the log says why.", culler.Holding),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "binder_failed_kept",
			Help: "Failed instances that the leader keeps for now, because many stopped being ready at the same time.",
		}, func() float64 { return float64(culler.Braked()) }),
	)
}

// boolGauge is 1 while value returns true.
func boolGauge(name, help string, value func() bool) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
		if value() {
			return 1
		}
		return 0
	})
}

// instanceCollector counts instances by status.
type instanceCollector struct {
	cache *Cache
	desc  *prometheus.Desc
}

var _ prometheus.Collector = (*instanceCollector)(nil)

func (c *instanceCollector) Describe(descs chan<- *prometheus.Desc) { descs <- c.desc }

func (c *instanceCollector) Collect(metrics chan<- prometheus.Metric) {
	at := c.cache.moment()
	records, tombstones := c.cache.ofTemplate("")
	count := map[instance.Status]int{instance.StatusDeleted: len(tombstones)}
	for _, record := range records {
		if record.Holds(at.now) && !c.cache.saysMore(record) {
			count[record.Status()]++ // to describe all would take too long
		} else {
			count[c.cache.describe(record, at).Status]++
		}
	}
	for _, status := range instance.Statuses() {
		metrics <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(count[status]), string(status))
	}
}

// poolCollector counts warm pods by state.
type poolCollector struct {
	cache *Cache
	desc  *prometheus.Desc
}

var _ prometheus.Collector = (*poolCollector)(nil)

func (c *poolCollector) Describe(descs chan<- *prometheus.Desc) { descs <- c.desc }

func (c *poolCollector) Collect(metrics chan<- prometheus.Metric) {
	var ready, starting int
	for _, template := range c.cache.WarmTemplates() {
		for _, record := range c.cache.warmRecords(template) {
			switch {
			case record.IsDeleting:
			case record.IsServing:
				ready++
			default:
				starting++
			}
		}
	}
	metrics <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(ready), "ready")
	metrics <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(starting), "starting")
}
