package main

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/contact"
	"github.com/binder-project/binder-deploy-kubernetes/internal/informers"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podstore"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
	"github.com/binder-project/binder-deploy-kubernetes/internal/queue"
)

// awaitPulse is how often a waiting client looks without having been woken. No event
// tells that the start timeout has passed.
const awaitPulse = 5 * time.Second

// Instance returns what is known of an id. A pod has precedence over a tombstone, which may be
// of a delete that did not happen; but that of a pod that is being deleted says why. An instance
// that is not known is unsure if other replicas may know it.
func (c *Cache) Instance(id string) (instance.Instance, bool) {
	if record, ok := c.record(id); ok && !c.hasEnded(record) {
		return c.describe(record, c.moment()), true
	}
	if event, ok := c.Tombstone(id); ok {
		return instance.FromTombstone(event), true
	}
	return instance.Instance{Unsure: c.contact.Behind()}, false
}

// record returns the record of an instance's pod.
func (c *Cache) record(id string) (*podstore.Record, bool) {
	record, ok := c.ownPods.Get(instance.PodName(id))
	return record, ok && record.IsInstance && record.ID == id
}

// hasEnded reports whether a pod counts as ended: it is being deleted, and it has a
// tombstone.
func (c *Cache) hasEnded(record *podstore.Record) bool {
	if !record.IsDeleting {
		return false
	}
	_, known := c.Tombstone(record.ID)
	return known
}

// moment is when instances are described, and how old the picture of the pods can be then.
type moment struct {
	now time.Time
	age time.Duration
}

func (c *Cache) moment() moment { return moment{c.now(), c.contact.Age()} }

// describe is what the pod says, and what this replica has found out beyond that.
func (c *Cache) describe(record *podstore.Record, at moment) instance.Instance {
	now := at.now
	inst, ok := record.Instance(now)
	if !ok || c.saysMore(record) {
		pod := record.Pod()
		inst = instance.FromPod(pod, c.Warnings(pod), now, c.rules.StartTimeout)
		if inst.Status == instance.StatusDeploying && c.earlyReady.Listens(pod) {
			inst.Status, inst.Address = instance.StatusDeployed, instance.PodAddress(pod)
			inst.Message, inst.Detail, inst.Fault = "", "", ""
		}
		c.rules.Describe(&inst, pod, now)
	}
	if inst.Status == instance.StatusDeployed {
		overdue := !inst.CullAt.IsZero() && !now.Before(inst.CullAt)
		inst.Unsure = contact.Unsure(at.age, overdue) || c.pods.SharesAddress(record)
	}
	return inst
}

// EachRecord returns the records of all pods that this service manages.
func (c *Cache) EachRecord() []*podstore.Record { return c.recordsOfTemplate("") }

// Queued reports whether an instance waits for a place.
func (c *Cache) Queued(id string) bool {
	record, ok := c.record(id)
	return ok && record.IsQueued
}

// asked is the read model for clients. A client that asks about an instance in the queue is told how
// many are before it, and keeps its place.
type asked struct {
	*Cache
	queue *queue.Queue
}

// Instance is Cache.Instance.
func (a asked) Instance(id string) (instance.Instance, bool) {
	return a.queue.Answer(a.Cache.Instance(id))
}

// Await is Cache.Await. It looks every few seconds, and so keeps the place.
func (a asked) Await(ctx context.Context, id string, good func(inst instance.Instance, known bool) bool) (instance.Instance, bool) {
	return a.queue.Answer(a.Cache.Await(ctx, id, func(inst instance.Instance, known bool) bool { return good(a.queue.Answer(inst, known)) }))
}

// saysMore reports whether there is more to say of a pod than what its record says: its
// Warning Events count, or it was found to listen.
func (c *Cache) saysMore(record *podstore.Record) bool {
	return record.ByEvents && (c.earlyReady.Knows(record.ID) || len(c.warningsOf(record.GetUID())) > 0)
}

// EachEncoded returns the instances of a template, or all for "", the oldest first. Ended
// instances are among them for as long as their tombstones last. Each is encoded when it is
// asked for, and once for each version of its pod, as long as nothing but the pod says what
// it is: some 300 bytes stay with each that was ever asked for.
func (c *Cache) EachEncoded(template string) iter.Seq[*protocol.Encoded] {
	at := c.moment()
	records, ended := c.ofTemplate(template)
	return podstore.InOrder(records, ended, func(record *podstore.Record) *protocol.Encoded {
		if encoded, ok := c.encoded(record, at.now); ok {
			return encoded
		}
		return protocol.Encode(c.describe(record, at))
	}, protocol.Encode)
}

// Encoded returns an instance of a template. ok is false if the template has none of that id, or
// if it must be asked for by Instance: its pod alone does not say what it is, or is being
// deleted, or waits for a place, or the clock has passed a limit.
func (c *Cache) Encoded(template, id string) (encoded *protocol.Encoded, ok bool) {
	record, ok := c.record(id)
	if !ok || record.IsDeleting || record.IsQueued || record.Template() != template {
		return nil, false
	}
	return c.encoded(record, c.now())
}

// encoded returns the instance of a pod, if nothing but the pod says what it is at the time.
func (c *Cache) encoded(record *podstore.Record, now time.Time) (*protocol.Encoded, bool) {
	if !record.Holds(now) || c.saysMore(record) {
		return nil, false
	}
	encoded, ok := record.Memo.Load().(*protocol.Encoded)
	if !ok {
		inst, _ := record.Instance(now) // it holds
		encoded = protocol.Encode(inst)
		record.Memo.Store(encoded)
	}
	return encoded, true
}

// Instances returns the instances of a template, or all for "", in the order of EachEncoded.
func (c *Cache) Instances(template string) []instance.Instance {
	return c.describeAll(c.ofTemplate(template))
}

// LaunchTimes returns when the instances of a template were launched, in no order.
func (c *Cache) LaunchTimes(template string) []time.Time {
	return podstore.LaunchTimes(c.ofTemplate(template))
}

// ClientInstances is Instances for those that a client has launched.
func (c *Cache) ClientInstances(client string) []instance.Instance {
	records := c.ownPods.Overlay(func() []*podstore.Record { return c.pods.OfClient(client) })
	records = slices.DeleteFunc(records, func(record *podstore.Record) bool { return record.Client != client })
	return c.describeAll(c.each(records, informers.Indexed[*corev1.Event](c.tombstones, clientIndex, client)))
}

// ofTemplate returns the records and the tombstones of a template's instances, or all for "".
func (c *Cache) ofTemplate(template string) ([]*podstore.Record, []*corev1.Event) {
	return c.each(c.recordsOfTemplate(template), informers.Indexed[*corev1.Event](c.tombstones, templateIndex, template))
}

func (c *Cache) describeAll(records []*podstore.Record, tombstones []*corev1.Event) []instance.Instance {
	at := c.moment()
	describe := func(record *podstore.Record) instance.Instance { return c.describe(record, at) }
	same := func(inst instance.Instance) instance.Instance { return inst }
	return slices.AppendSeq(make([]instance.Instance, 0, len(records)+len(tombstones)), podstore.InOrder(records, tombstones, describe, same))
}

// each returns the records and the tombstones of instances, so that each instance is among
// one of them: the record, unless it has ended.
func (c *Cache) each(records []*podstore.Record, tombstones []*corev1.Event) ([]*podstore.Record, []*corev1.Event) {
	records = slices.DeleteFunc(records, func(record *podstore.Record) bool { return !record.IsInstance || c.hasEnded(record) })
	ended := make(map[string]bool, len(tombstones))
	for _, event := range tombstones {
		if instance.IsTombstone(event) {
			ended[event.Labels[instance.IDLabel]] = true
		}
	}
	for _, record := range records {
		delete(ended, record.ID)
	}
	return records, slices.DeleteFunc(tombstones, func(event *corev1.Event) bool { return !ended[event.Labels[instance.IDLabel]] })
}

// Await returns what is known of an id as soon as good accepts it, or else when ctx
// is done. It costs the API server nothing: the watch wakes it. While a client
// waits for an instance that is starting, this replica dials the instance's port.
func (c *Cache) Await(ctx context.Context, id string, good func(inst instance.Instance, known bool) bool) (instance.Instance, bool) {
	if inst, known := c.Instance(id); good(inst, known) {
		return inst, known
	}
	changed, stop := c.waiters.Add(instance.PodName(id))
	defer stop()
	pulse := time.NewTicker(awaitPulse)
	defer pulse.Stop()
	for {
		inst, known := c.Instance(id)
		if good(inst, known) || ctx.Err() != nil {
			return inst, known
		}
		c.earlyReady.Watch(id)
		select {
		case <-changed:
		case <-pulse.C:
		case <-ctx.Done():
		}
	}
}

// Pod returns the pod of an instance. It is decoded each time.
func (c *Cache) Pod(id string) (*corev1.Pod, bool) {
	if record, ok := c.record(id); ok {
		return record.Pod(), true
	}
	return nil, false
}

// LastUse returns what is written on an instance's pod of its last use; see activity.Cache.
func (c *Cache) LastUse(id string) (written time.Time, cullTimeout time.Duration, ok bool) {
	record, ok := c.record(id)
	if !ok || record.IsDeleting {
		return time.Time{}, 0, false
	}
	return record.LastActivity, record.CullTimeout, true
}

// Warnings returns the Warning Events of a pod, without what nothing reads.
func (c *Cache) Warnings(pod *corev1.Pod) []*corev1.Event { return c.warningsOf(pod.UID) }

func (c *Cache) warningsOf(pod types.UID) []*corev1.Event {
	if pod == "" {
		return nil
	}
	return informers.Indexed[*corev1.Event](c.warnings, podIndex, string(pod))
}

// WarmPods returns the warm pods of a template: those that are nobody's instance.
func (c *Cache) WarmPods(template string) []*corev1.Pod {
	var pods []*corev1.Pod
	for _, record := range c.warmRecords(template) {
		pods = append(pods, record.Pod())
	}
	return pods
}

func (c *Cache) warmRecords(template string) []*podstore.Record {
	records := c.ownPods.Overlay(func() []*podstore.Record { return c.pods.Warm(template) })
	return slices.DeleteFunc(records, func(record *podstore.Record) bool {
		return !record.IsWarm || record.Template() != template
	})
}

// WarmTemplates returns the names of the templates that have warm pods.
func (c *Cache) WarmTemplates() []string { return c.pods.WarmTemplates() }

// Tombstone returns the Event that remembers an instance.
func (c *Cache) Tombstone(id string) (*corev1.Event, bool) {
	event, ok := informers.Lookup[*corev1.Event](c.tombstones, c.namespace+"/"+instance.TombstoneName(id))
	return event, ok && instance.IsTombstone(event) && event.Labels[instance.IDLabel] == id
}

// PodTemplates returns all PodTemplates.
func (c *Cache) PodTemplates() []*corev1.PodTemplate {
	return informers.List[*corev1.PodTemplate](c.templates.GetStore().List())
}

// Template returns the PodTemplate of a name, which the caller must not change. The
// error wraps podtemplate.ErrUnknown if there is none.
func (c *Cache) Template(_ context.Context, name string) (*corev1.PodTemplate, error) {
	if template, ok := informers.Lookup[*corev1.PodTemplate](c.templates, c.namespace+"/"+name); ok {
		return template, nil
	}
	return nil, fmt.Errorf("%w: %q", podtemplate.ErrUnknown, name)
}

// Quotas returns the ResourceQuotas of the instances' namespace.
func (c *Cache) Quotas() []*corev1.ResourceQuota {
	return informers.List[*corev1.ResourceQuota](c.quotas.GetStore().List())
}

// ProxyService returns the Service that leads visitors to the proxy.
func (c *Cache) ProxyService() (*corev1.Service, bool) {
	return informers.Lookup[*corev1.Service](c.services, c.proxyService)
}

// Preloads returns the preloads of a template, or all for "", but those that are being deleted.
func (c *Cache) Preloads(template string) []*appsv1.DaemonSet {
	sets := c.ownPreloads.Overlay(func() []*appsv1.DaemonSet {
		return informers.Indexed[*appsv1.DaemonSet](c.preloads, templateIndex, template)
	})
	return slices.DeleteFunc(sets, func(set *appsv1.DaemonSet) bool {
		return set.Labels[instance.PreloadLabel] == "" || set.DeletionTimestamp != nil ||
			template != "" && instance.TemplateOf(set) != template
	})
}

// PreloadPods returns the pods of one preload.
func (c *Cache) PreloadPods(set *appsv1.DaemonSet) []*corev1.Pod {
	var pods []*corev1.Pod
	for _, record := range c.pods.OfTemplate(instance.TemplateOf(set)) {
		if record.Preload() == set.Name {
			pods = append(pods, record.Pod())
		}
	}
	return pods
}

// AwaitPreload returns the preloads of a template once good accepts them, or when ctx is done.
func (c *Cache) AwaitPreload(ctx context.Context, template string, good func([]*appsv1.DaemonSet) bool) []*appsv1.DaemonSet {
	changed, stop := c.waiters.Add(preloadWaiter(template))
	defer stop()
	for {
		sets := c.Preloads(template)
		if good(sets) || ctx.Err() != nil {
			return sets
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// recordsOfTemplate returns the records of the managed pods of a template, or all for "".
func (c *Cache) recordsOfTemplate(template string) []*podstore.Record {
	if template == "" {
		return c.ownPods.Overlay(c.pods.All)
	}
	records := c.ownPods.Overlay(func() []*podstore.Record { return c.pods.OfTemplate(template) })
	return slices.DeleteFunc(records, func(record *podstore.Record) bool { return record.Template() != template })
}
