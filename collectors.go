package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/activity"
	"github.com/binder-project/binder-deploy-kubernetes/internal/admin"
	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/gate"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podstore"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
	"github.com/binder-project/binder-deploy-kubernetes/internal/pool"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
	"github.com/binder-project/binder-deploy-kubernetes/internal/proxy"
	"github.com/binder-project/binder-deploy-kubernetes/internal/webhook"
)

// metricValues are the closed sets that labels of metrics take their values from.
func metricValues() metrics.Values {
	return metrics.Values{
		Launches:        launch.Results(),
		Ends:            texts(instance.EndReasons()),
		Failures:        instance.FailureLabels(),
		Phases:          texts(instance.StartPhases()),
		ActivityPatches: activity.Results(),
		ActivityProbes:  texts(activity.ProbeResults()),
		Claims:          launch.ClaimResults(),
		RegistryAsks:    podtemplate.Results(),
		Refusals:        gate.Refusals(),
		WebSocketEnds:   proxy.WebSocketEnds(),
		Deliveries:      webhook.Results(),
	}
}

func texts[T ~string](values []T) []string {
	all := make([]string, 0, len(values))
	for _, value := range values {
		all = append(all, string(value))
	}
	return all
}

// registerCollectors adds the metrics that are computed from the read model and the
// culler when they are scraped, and tells the metrics which templates there are.
func registerCollectors(m *metrics.Metrics, cache *Cache, culler *Culler) error {
	m.SweepsEvery(culler.deps.Interval)
	m.Register(
		&collector{cache: cache, culler: culler, templateLabel: m.TemplateLabel, descs: describeMetrics()},
		boolGauge("binder_cache_synced", "1 once everything has been read from the cluster.", cache.Synced),
		boolGauge("binder_contact_lost", "1 while the API server has not answered this replica for a minute.", cache.contact.Lost),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "binder_cache_age_seconds",
			Help: "How old this replica's picture of the pods can be: the time since the API server has answered it, or since the watch ended.",
		}, func() float64 { return cache.contact.Age().Seconds() }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "binder_failed_kept",
			Help: "Failed instances that the leader keeps for now, because many failed at the same time.",
		}, func() float64 { return float64(culler.Braked()) }),
	)
	return cache.onTemplateName(func(name string) {
		_, err := cache.Template(context.Background(), name)
		m.TemplateChanged(name, err == nil)
	})
}

// boolGauge is 1 while value returns true.
func boolGauge(name, help string, value func() bool) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return number(value()) })
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// collector computes the metrics that have labels.
type collector struct {
	cache         *Cache
	culler        *Culler
	templateLabel func(name string) string
	descs
}

// descs describe the metrics of a collector.
type descs struct{ instances, tombstones, pods, size, quotaUsed, quotaHard, held *prometheus.Desc }

func describeMetrics() descs {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return descs{
		instances: desc("binder_instances",
			"Instances in the cluster, by template and status. Every replica reports all of them.", "template", "status"),
		tombstones: desc("binder_tombstones",
			"Ended instances that are remembered, which they are for an hour. Every replica reports all of them."),
		pods: desc("binder_pool_pods",
			"Warm pods in the cluster, by template and state (ready, starting). Every replica reports all of them.", "template", "state"),
		size: desc("binder_pool_size",
			"Warm pods that a template asks for. Every replica reports it.", "template"),
		quotaUsed: desc("binder_quota_used",
			"What a ResourceQuota of the instances' namespace counts as used, in cores, bytes or objects. Every replica reports it.", "quota", "resource"),
		quotaHard: desc("binder_quota_hard",
			"What a ResourceQuota of the instances' namespace allows, in cores, bytes or objects. Every replica reports it.", "quota", "resource"),
		held: desc("binder_deletes_held",
			"1 while the leader holds back deletes of instances that may be in use, by the cause; the log says more.", "cause"),
	}
}

var _ prometheus.Collector = (*collector)(nil)

// Describe sends the descriptions of all metrics.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{c.instances, c.tombstones, c.pods, c.size, c.quotaUsed, c.quotaHard, c.held} {
		descs <- desc
	}
}

// Collect sends the metrics as they are now.
func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	send := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	templates := c.cache.PodTemplates()
	c.collectInstances(templates, send)
	c.collectPools(templates, send)
	for _, quota := range c.cache.Quotas() {
		for resource, hard := range quota.Status.Hard {
			used := quota.Status.Used[resource]
			send(c.quotaHard, hard.AsApproximateFloat64(), quota.Name, string(resource))
			send(c.quotaUsed, used.AsApproximateFloat64(), quota.Name, string(resource))
		}
	}
	holding := c.culler.Holding()
	for _, cause := range lifetime.Causes() {
		send(c.held, number(cause == holding), cause.Label())
	}
}

type send func(desc *prometheus.Desc, value float64, labels ...string)

// collectInstances counts instances. A template without any has zeros.
func (c *collector) collectInstances(templates []*corev1.PodTemplate, send send) {
	records, tombstones := c.cache.ofTemplate("")
	byName := c.cache.countStatuses(records, c.cache.moment())
	byLabel := map[string]statuses{}
	of := func(template string) statuses {
		label := c.templateLabel(template)
		if byLabel[label] == nil {
			byLabel[label] = statuses{}
		}
		return byLabel[label]
	}
	of("") // all others
	for _, template := range templates {
		of(template.Name)
	}
	for name, count := range byName {
		for status, n := range count {
			of(name)[status] += n
		}
	}
	for label, count := range byLabel {
		for _, status := range instance.Statuses() {
			if status != instance.StatusDeleted {
				send(c.instances, float64(count[status]), label, string(status))
			}
		}
	}
	send(c.tombstones, float64(len(tombstones)))
}

type statuses = map[instance.Status]int

// countStatuses counts the instances of each template by status.
func (c *Cache) countStatuses(records []*podstore.Record, at moment) map[string]statuses {
	byName := map[string]statuses{}
	for _, record := range records {
		count, ok := byName[record.Template()]
		if !ok {
			count = statuses{}
			byName[record.Template()] = count
		}
		if record.Holds(at.now) && !c.saysMore(record) {
			count[record.Status()]++ // to describe all would take too long
		} else {
			count[c.describe(record, at).Status]++
		}
	}
	return byName
}

// collectPools counts warm pods: those of templates that ask for some, or have some left.
func (c *collector) collectPools(templates []*corev1.PodTemplate, send send) {
	pools := map[string]admin.Pool{} // by label
	for name, pool := range c.cache.countPools(templates) {
		label := c.templateLabel(name)
		sum := pools[label]
		pools[label] = admin.Pool{Size: sum.Size + pool.Size, Ready: sum.Ready + pool.Ready, Starting: sum.Starting + pool.Starting}
	}
	for label, pool := range pools {
		send(c.size, float64(pool.Size), label)
		send(c.pods, float64(pool.Ready), label, "ready")
		send(c.pods, float64(pool.Starting), label, "starting")
	}
}

// countPools counts the warm pods of each template that asks for some, or has some left.
func (c *Cache) countPools(templates []*corev1.PodTemplate) map[string]admin.Pool {
	pools := map[string]admin.Pool{}
	for _, template := range templates {
		if bounds, _ := podtemplate.PoolSize(template); bounds.Most > 0 {
			pools[template.Name] = admin.Pool{Size: pool.Size(c, template, c.now())}
		}
	}
	for _, template := range c.WarmTemplates() {
		pool := pools[template]
		for _, record := range c.warmRecords(template) {
			switch {
			case record.IsDeleting:
			case record.IsServing:
				pool.Ready++
			default:
				pool.Starting++
			}
		}
		pools[template] = pool
	}
	return pools
}

// ClaimedFor returns the id of the instance of a template whose pod was claimed for another id.
func (c *Cache) ClaimedFor(template, id string) (claimed string, known bool) {
	return podstore.ClaimedFor(c.recordsOfTemplate(template), id)
}

// preloadTimeout bounds the reading of all preloads for a state. Without the registry, what
// is in memory is shown of the preloads of its templates.
const preloadTimeout = time.Second

// adminState is what operators see.
func (c *Cache) adminState(ctx context.Context, limits admission.Limits, preloads TemplatePreloader) admin.State {
	at, templates := c.moment(), c.PodTemplates()
	records, _ := c.ofTemplate("")
	counts, pools := c.countStatuses(records, at), c.countPools(templates)
	byName := map[string]*admin.Template{}
	of := func(name string) *admin.Template {
		if byName[name] == nil {
			byName[name] = &admin.Template{Name: name, Instances: []admin.Instance{}}
		}
		return byName[name]
	}
	for _, template := range templates {
		view := of(template.Name)
		view.InCluster = true
		if most, limited, err := podtemplate.MaxInstances(template); limited && err == nil {
			view.MaxInstances = &most
		}
	}
	alive := 0
	for _, record := range records {
		if record.IsQueued && !record.IsDeleting && !record.Status().Over() {
			alive-- // it has no place yet
		}
	}
	for name, count := range counts {
		view := of(name)
		view.Pending, view.Deploying = count[instance.StatusPending], count[instance.StatusDeploying]
		view.Deployed, view.Failed = count[instance.StatusDeployed], count[instance.StatusFailed]
		alive += view.Pending + view.Deploying + view.Deployed
	}
	for name, pool := range pools {
		of(name).Pool = pool
	}
	ctx, cancel := context.WithTimeout(ctx, preloadTimeout)
	defer cancel()
	for _, set := range c.Preloads("") {
		view := of(instance.TemplateOf(set))
		if progress, known, err := preloads.Status(ctx, view.Name); err == nil && known && view.Preload == nil {
			status := protocol.NewPreloadStatus(progress)
			view.Preload = &status
		}
	}
	c.addRows(records, at, byName)
	state := admin.State{LaunchesPaused: limits.Paused, Limits: c.adminLimits(limits, alive), Templates: []admin.Template{}}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		state.Templates = append(state.Templates, *byName[name])
	}
	return state
}

// addRows adds the oldest instances of each template that have not ended.
func (c *Cache) addRows(records []*podstore.Record, at moment, byName map[string]*admin.Template) {
	podstore.SortByAge(records)
	most := admin.RowsPerTemplate(len(byName))
	for _, record := range records {
		view := byName[record.Template()]
		if len(view.Instances) >= most {
			continue
		}
		if inst := c.describe(record, at); inst.Status != instance.StatusDeleted {
			view.Instances = append(view.Instances, admin.NewInstance(inst))
		}
	}
}

// adminLimits are the limits of all instances together.
func (c *Cache) adminLimits(limits admission.Limits, alive int) []admin.Limit {
	all := []admin.Limit{}
	if most := limits.MaxInstances; most > 0 {
		all = append(all, admin.NewLimit("--max-instances", "instances", strconv.Itoa(alive), strconv.Itoa(most), float64(alive), float64(most)))
	}
	quotas := c.Quotas()
	slices.SortFunc(quotas, func(a, b *corev1.ResourceQuota) int { return strings.Compare(a.Name, b.Name) })
	for _, quota := range quotas {
		for _, resource := range slices.Sorted(maps.Keys(quota.Status.Hard)) {
			used, hard := quota.Status.Used[resource], quota.Status.Hard[resource]
			all = append(all, admin.NewLimit(quota.Name, string(resource), used.String(), hard.String(), used.AsApproximateFloat64(), hard.AsApproximateFloat64()))
		}
	}
	return all
}

// onAdminState calls changed when what adminState returns may have changed. It must not block.
func (c *Cache) onAdminState(changed func()) error {
	return errors.Join(
		c.OnInstance(func(string) { changed() }, func(*corev1.Pod) { changed() }),
		c.OnWarm(func(string) { changed() }),
		c.OnPreload(func(string) { changed() }),
	)
}
