package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"
)

// watchCluster adds to the metrics what is computed from the read model when it is asked for.
func watchCluster(m *metrics.Metrics, cluster *Cluster) {
	m.Register(
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
