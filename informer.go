package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/binder-project/binder-deploy-kubernetes/internal/contact"
	"github.com/binder-project/binder-deploy-kubernetes/internal/earlyready"
	"github.com/binder-project/binder-deploy-kubernetes/internal/informers"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
	"github.com/binder-project/binder-deploy-kubernetes/internal/ownwrites"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podstore"
	"github.com/binder-project/binder-deploy-kubernetes/internal/replicas"
	"github.com/binder-project/binder-deploy-kubernetes/internal/waiters"
)

const (
	templateIndex = "template"
	clientIndex   = "client"
	podIndex      = "pod"
)

// Cache is the read model: what the watches have delivered of the pods, the
// PodTemplates, the tombstones, the preloads, the quotas and the proxy's Service, and what
// this replica has written since; and of the Leases of the replicas. It answers every question
// from memory. Nothing else reads the cluster, except for the election, which reads its Lease.
//
// The Warning Events of pods are read too: they say what the pods do not.
//
// This file holds what is watched and who is told of changes; cache.go holds the
// answers. Returned objects are shared with the cache: DeepCopy before any change.
type Cache struct {
	namespace    string
	proxyService string
	rules        lifetime.Rules
	contact      *contact.Contact
	now          func() time.Time

	pods       *podstore.Store
	podWatch   cache.ListerWatcher
	tombstones cache.SharedIndexInformer
	templates  cache.SharedIndexInformer
	services   cache.SharedIndexInformer
	warnings   cache.SharedIndexInformer // Warning Events of pods
	preloads   cache.SharedIndexInformer // DaemonSets
	quotas     cache.SharedIndexInformer
	leases     cache.SharedIndexInformer // of the replicas

	ownPods     *ownwrites.Store[*podstore.Record]
	ownPreloads *ownwrites.Store[*appsv1.DaemonSet]

	waiters    waiters.Set // by the name of a pod, or by preloadWaiter
	earlyReady *earlyready.Dialer
	updated    []func(id string) // see OnInstance
}

// CacheDeps are what a Cache needs: a client, what to watch, and the rules that
// instances are described by.
type CacheDeps struct {
	Client             kube.Client
	Namespace          string // the service's own: where the proxy's Service is
	InstancesNamespace string
	ProxyService       string
	Rules              lifetime.Rules
	Election           string           // the name of the election's Lease
	Contact            *contact.Contact // with the API server; nil for one that is never lost
	// Dial opens a TCP connection to a starting instance and closes it. Nil does that
	// over the network.
	Dial func(ctx context.Context, address string) error
	Log  *slog.Logger // is told of each read that fails; nil for nobody
	Now  func() time.Time
}

// NewCache makes the informers. Nothing is read before Run.
func NewCache(deps CacheDeps) (*Cache, error) {
	managed := func(o *metav1.ListOptions) { o.LabelSelector = instance.Selector().String() }
	proxyService := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, deps.ProxyService).String()
	}
	ofReplicas := func(o *metav1.ListOptions) { o.LabelSelector = replicas.ElectionLabel + "=" + deps.Election }
	warnings := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.Set{"type": corev1.EventTypeWarning, "involvedObject.kind": "Pod"}.String()
	}
	tombstoneIndexers := cache.Indexers{templateIndex: informers.ByTemplate, clientIndex: informers.ByClient}
	from := informers.Source{Client: deps.Client, Log: cmp.Or(deps.Log, slog.New(slog.DiscardHandler))}
	core, apps := deps.Client.CoreV1(), deps.Client.AppsV1()
	events := core.Events(deps.InstancesNamespace)
	informer := func(objects cache.ListerWatcher, example runtime.Object, indexers cache.Indexers) cache.SharedIndexInformer {
		return cache.NewSharedIndexInformer(objects, example, 0, indexers)
	}
	c := &Cache{
		namespace:    deps.InstancesNamespace,
		proxyService: deps.Namespace + "/" + deps.ProxyService,
		rules:        deps.Rules,
		contact:      cmp.Or(deps.Contact, contact.New(time.Now)),
		now:          deps.Now,

		pods:       podstore.New(deps.Rules, deps.Now),
		podWatch:   informers.Watch(from, "pods", core.Pods(deps.InstancesNamespace), managed),
		tombstones: informer(informers.Watch(from, "tombstones", events, managed), &corev1.Event{}, tombstoneIndexers),
		templates:  informer(informers.Watch(from, "podtemplates", core.PodTemplates(deps.InstancesNamespace), nil), &corev1.PodTemplate{}, cache.Indexers{}),
		services:   informer(informers.Watch(from, "services", core.Services(deps.Namespace), proxyService), &corev1.Service{}, cache.Indexers{}),
		warnings:   informer(informers.Watch(from, "warnings", events, warnings), &corev1.Event{}, cache.Indexers{podIndex: informers.ByPod}),
		preloads:   informer(informers.Watch(from, "daemonsets", apps.DaemonSets(deps.InstancesNamespace), managed), &appsv1.DaemonSet{}, cache.Indexers{templateIndex: informers.ByTemplate}),
		quotas:     informer(informers.Watch(from, "resourcequotas", core.ResourceQuotas(deps.InstancesNamespace), nil), &corev1.ResourceQuota{}, cache.Indexers{}),
		leases:     informer(informers.Watch(from, "leases", deps.Client.CoordinationV1().Leases(deps.Namespace), ofReplicas), &coordinationv1.Lease{}, cache.Indexers{}),
	}
	c.earlyReady = earlyready.New(earlyready.Deps{Awaited: c.awaited, Found: c.foundListening, Dial: deps.Dial})
	c.ownPods = ownwrites.New(c.pods.Get, time.Now)
	c.ownPreloads = ownwrites.New(func(name string) (*appsv1.DaemonSet, bool) {
		return informers.Lookup[*appsv1.DaemonSet](c.preloads, c.namespace+"/"+name)
	}, time.Now)
	for _, informer := range c.informers() {
		transform := informers.Slim
		if informer == c.warnings {
			transform = informers.SlimWarning
		}
		if err := informer.SetTransform(transform); err != nil {
			return nil, fmt.Errorf("set the transform of an informer: %w", err)
		}
	}
	if err := c.pods.Handle(c.podDelivered, c.podGone); err != nil {
		return nil, fmt.Errorf("add the handler of pods: %w", err)
	}
	for _, informer := range []cache.SharedIndexInformer{c.tombstones, c.preloads} {
		if err := informers.Handle(informer, c.delivered, c.gone); err != nil {
			return nil, fmt.Errorf("add the handler that wakes waiting clients: %w", err)
		}
	}
	if err := informers.Handle(c.warnings, func(_, event *corev1.Event) { c.waiters.Wake(event.InvolvedObject.Name) }, nil); err != nil {
		return nil, fmt.Errorf("add the handler of Warning Events: %w", err)
	}
	return c, nil
}

// Run watches until ctx is done, and returns when the last watch has ended and no
// instance is dialed any more.
func (c *Cache) Run(ctx context.Context) {
	defer c.earlyReady.Close()
	var running sync.WaitGroup
	running.Go(func() { c.pods.Run(ctx, c.podWatch) })
	for _, informer := range c.informers() {
		running.Go(func() { informer.RunWithContext(ctx) })
	}
	running.Wait()
}

// Synced reports whether everything has been read once. Until then an instance that
// the cache lacks may exist. The quotas are only for metrics: no replica waits for them, or for
// the right to read them.
func (c *Cache) Synced() bool {
	for _, informer := range c.informers() {
		if informer != c.quotas && !informer.HasSynced() {
			return false
		}
	}
	return c.pods.Synced()
}

// informers are those of everything but the pods.
func (c *Cache) informers() []cache.SharedIndexInformer {
	return []cache.SharedIndexInformer{c.tombstones, c.templates, c.services, c.preloads, c.warnings, c.quotas, c.leases}
}

// podDelivered notes a version of a pod that the watch has delivered, and wakes the clients
// that wait for it.
func (c *Cache) podDelivered(_, record *podstore.Record) {
	c.ownPods.Delivered(record)
	if c.earlyReady.Knows(record.ID) {
		c.earlyReady.Observe(record.Pod())
	}
	c.waiters.Wake(instance.PodName(record.ID))
}

// podGone notes a pod that the watch has reported as deleted, and wakes the clients that
// wait for it.
func (c *Cache) podGone(record *podstore.Record) {
	c.ownPods.Gone(record)
	c.earlyReady.Forget(record.ID)
	c.waiters.Wake(instance.PodName(record.ID))
}

// delivered notes what the watch has delivered, and wakes the clients that wait for it.
func (c *Cache) delivered(_, object metav1.Object) {
	if set, ok := object.(*appsv1.DaemonSet); ok {
		c.ownPreloads.Delivered(set)
	}
	c.wake(object)
}

// gone notes what the watch has reported as deleted, and wakes the clients that wait for it.
func (c *Cache) gone(object metav1.Object) {
	if set, ok := object.(*appsv1.DaemonSet); ok {
		c.ownPreloads.Gone(set)
	}
	c.wake(object)
}

// wake wakes clients that wait for the instance, or the preload, of an object.
func (c *Cache) wake(object metav1.Object) {
	if set, ok := object.(*appsv1.DaemonSet); ok {
		c.waiters.Wake(preloadWaiter(instance.TemplateOf(set)))
		return
	}
	c.waiters.Wake(instance.PodName(object.GetLabels()[instance.IDLabel]))
}

// preloadWaiter is the name that clients wait under for the preload of a template.
// An id has no colon.
func preloadWaiter(template string) string { return "preload:" + template }

// Wrote takes the pod that a write returned: until the watch delivers it or
// something newer, the cache answers with it. A pod whose deletion was accepted is
// given with its deletion time set. Clients that wait for the instance are woken.
func (c *Cache) Wrote(pod *corev1.Pod) {
	record := c.pods.Record(pod)
	c.ownPods.Add(record)
	c.tellUpdated(record)
	c.wake(pod)
}

// WrotePreload is Wrote for the DaemonSet of a preload.
func (c *Cache) WrotePreload(set *appsv1.DaemonSet) {
	_, _ = informers.Slim(set)
	c.ownPreloads.Add(set)
	c.wake(set)
}

// OnInstance calls updated with the id of an instance for every version of its pod, and when
// it is found to listen before it is Ready; and gone with the last version of its pod.
// Handlers must not block. OnInstance must be called before Run.
func (c *Cache) OnInstance(updated func(id string), gone func(*corev1.Pod)) error {
	err := c.pods.Handle(func(_, record *podstore.Record) {
		if record.IsInstance {
			updated(record.ID)
		}
	}, func(record *podstore.Record) {
		if record.IsInstance {
			gone(record.Pod())
		}
	})
	if err != nil {
		return fmt.Errorf("add a handler of instances: %w", err)
	}
	c.updated = append(c.updated, updated)
	return nil
}

func (c *Cache) tellUpdated(record *podstore.Record) {
	if record.IsInstance {
		for _, updated := range c.updated {
			updated(record.ID)
		}
	}
}

// Ended returns the tombstones of all instances that have ended.
func (c *Cache) Ended() []*corev1.Event {
	_, tombstones := c.ofTemplate("")
	return tombstones
}

// OnTemplate calls changed for every version of a PodTemplate; before is nil for
// the first. It must not block.
func (c *Cache) OnTemplate(changed func(before, template *corev1.PodTemplate)) error {
	if err := informers.Handle(c.templates, changed, nil); err != nil {
		return fmt.Errorf("add a template handler: %w", err)
	}
	return nil
}

// OnWarm calls changed with the name of a template whenever the template changes,
// or a warm pod of it is created, changed, claimed or deleted. It must not block.
func (c *Cache) OnWarm(changed func(template string)) error {
	err := c.pods.Handle(func(before, record *podstore.Record) {
		if record.IsWarm || before != nil && before.IsWarm {
			changed(record.Template())
		}
	}, func(record *podstore.Record) {
		if record.IsWarm {
			changed(record.Template())
		}
	})
	if err != nil {
		return fmt.Errorf("add a handler of warm pods: %w", err)
	}
	return c.onTemplateName(changed)
}

// OnPreload calls changed with the name of a template whenever the template or a
// preload of it changes. It must not block.
func (c *Cache) OnPreload(changed func(template string)) error {
	err := informers.Handle(c.preloads,
		func(_, set *appsv1.DaemonSet) { changed(instance.TemplateOf(set)) },
		func(set *appsv1.DaemonSet) { changed(instance.TemplateOf(set)) })
	if err != nil {
		return fmt.Errorf("add a preload handler: %w", err)
	}
	return c.onTemplateName(changed)
}

// OnReplica calls changed for every version of a replica's Lease, and gone when it is deleted.
// They must not block.
func (c *Cache) OnReplica(changed, gone func(*coordinationv1.Lease)) error {
	return informers.Handle(c.leases, func(_, lease *coordinationv1.Lease) { changed(lease) }, gone)
}

// onTemplateName calls changed when a PodTemplate is created, changed or deleted.
func (c *Cache) onTemplateName(changed func(template string)) error {
	err := informers.Handle(c.templates,
		func(_, template *corev1.PodTemplate) { changed(template.Name) },
		func(template *corev1.PodTemplate) { changed(template.Name) })
	if err != nil {
		return fmt.Errorf("add a template handler: %w", err)
	}
	return nil
}

// awaited returns the pod of an instance, as long as a client waits for it.
func (c *Cache) awaited(id string) (*corev1.Pod, bool) {
	record, ok := c.record(id)
	if !ok || !c.waiters.Any(instance.PodName(id)) || c.pods.SharesAddress(record) {
		return nil, false
	}
	return record.Pod(), true
}

// foundListening tells everybody of a pod that was found to listen.
func (c *Cache) foundListening(pod *corev1.Pod) {
	c.wake(pod)
	if record, ok := c.record(pod.Labels[instance.IDLabel]); ok {
		c.tellUpdated(record)
	}
}
