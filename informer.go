package main

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	appsinformers "k8s.io/client-go/informers/apps/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/binder-project/binder-deploy-kubernetes/internal/contact"
	"github.com/binder-project/binder-deploy-kubernetes/internal/earlyready"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
	"github.com/binder-project/binder-deploy-kubernetes/internal/ownwrites"
	"github.com/binder-project/binder-deploy-kubernetes/internal/waiters"
)

const (
	templateIndex = "template"
	clientIndex   = "client"
	warmIndex     = "warm"
	podIndex      = "pod"
	addressIndex  = "address"
)

// Cache is the read model: what the watches have delivered of the pods, the
// PodTemplates, the tombstones, the preloads and the proxy's Service, and what this
// replica has written since. It answers every question from memory. Nothing else
// reads the cluster, except for the election, which reads its Lease.
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

	pods       cache.SharedIndexInformer
	tombstones cache.SharedIndexInformer
	templates  cache.SharedIndexInformer
	services   cache.SharedIndexInformer
	warnings   cache.SharedIndexInformer // Warning Events of pods
	preloads   cache.SharedIndexInformer // DaemonSets

	ownPods     *ownwrites.Store[*corev1.Pod]
	ownPreloads *ownwrites.Store[*appsv1.DaemonSet]

	waiters    waiters.Set // by the name of a pod, or by preloadWaiter
	earlyReady *earlyready.Dialer
	updated    []func(*corev1.Pod) // see OnPod
}

// CacheDeps are what a Cache needs: a client, what to watch, and the rules that
// instances are described by.
type CacheDeps struct {
	Client             kubernetes.Interface
	Namespace          string // the service's own: where the proxy's Service is
	InstancesNamespace string
	ProxyService       string
	Rules              lifetime.Rules
	Contact            *contact.Contact // with the API server; nil for one that is never lost
	// Dial opens a TCP connection to a starting instance and closes it. Nil does that
	// over the network.
	Dial func(ctx context.Context, address string) error
	Now  func() time.Time
}

// NewCache makes the informers. Nothing is read before Run.
func NewCache(deps CacheDeps) (*Cache, error) {
	managed := func(o *metav1.ListOptions) { o.LabelSelector = instance.Selector().String() }
	proxyService := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, deps.ProxyService).String()
	}
	warnings := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.Set{"type": corev1.EventTypeWarning, "involvedObject.kind": "Pod"}.String()
	}
	byTemplate := cache.Indexers{templateIndex: indexByTemplate}
	tombstoneIndexers := cache.Indexers{templateIndex: indexByTemplate, clientIndex: indexByClient}
	podIndexers := cache.Indexers{templateIndex: indexByTemplate, clientIndex: indexByClient, warmIndex: indexWarm, addressIndex: indexByAddress}
	c := &Cache{
		namespace:    deps.InstancesNamespace,
		proxyService: deps.Namespace + "/" + deps.ProxyService,
		rules:        deps.Rules,
		contact:      cmp.Or(deps.Contact, contact.New(time.Now)),
		now:          deps.Now,

		pods:       coreinformers.NewFilteredPodInformer(deps.Client, deps.InstancesNamespace, 0, podIndexers, managed),
		tombstones: coreinformers.NewFilteredEventInformer(deps.Client, deps.InstancesNamespace, 0, tombstoneIndexers, managed),
		templates:  coreinformers.NewPodTemplateInformer(deps.Client, deps.InstancesNamespace, 0, nil),
		services:   coreinformers.NewFilteredServiceInformer(deps.Client, deps.Namespace, 0, nil, proxyService),
		warnings:   coreinformers.NewFilteredEventInformer(deps.Client, deps.InstancesNamespace, 0, cache.Indexers{podIndex: indexByPod}, warnings),
		preloads:   appsinformers.NewFilteredDaemonSetInformer(deps.Client, deps.InstancesNamespace, 0, byTemplate, managed),
	}
	c.earlyReady = earlyready.New(earlyready.Deps{Awaited: c.awaited, Found: c.foundListening, Dial: deps.Dial})
	c.ownPods = ownwrites.New(func(name string) (*corev1.Pod, bool) {
		return lookup[*corev1.Pod](c.pods, c.namespace+"/"+name)
	}, time.Now)
	c.ownPreloads = ownwrites.New(func(name string) (*appsv1.DaemonSet, bool) {
		return lookup[*appsv1.DaemonSet](c.preloads, c.namespace+"/"+name)
	}, time.Now)
	for _, informer := range c.informers() {
		transform := slim
		switch informer {
		case c.pods:
			transform = slimPod
		case c.warnings:
			transform = slimWarning
		}
		if err := informer.SetTransform(transform); err != nil {
			return nil, fmt.Errorf("set the transform of an informer: %w", err)
		}
	}
	for _, informer := range []cache.SharedIndexInformer{c.pods, c.tombstones, c.preloads} {
		if err := handle(informer, c.delivered, c.gone); err != nil {
			return nil, fmt.Errorf("add the handler that wakes waiting clients: %w", err)
		}
	}
	warned := func(_, event *corev1.Event) { c.waiters.Wake(event.InvolvedObject.Name) }
	if err := handle(c.warnings, warned, nil); err != nil {
		return nil, fmt.Errorf("add the handler of Warning Events: %w", err)
	}
	return c, nil
}

// Run watches until ctx is done, and returns when the last watch has ended and no
// instance is dialed any more.
func (c *Cache) Run(ctx context.Context) {
	defer c.earlyReady.Close()
	var informers sync.WaitGroup
	for _, informer := range c.informers() {
		informers.Go(func() { informer.RunWithContext(ctx) })
	}
	informers.Wait()
}

// Synced reports whether everything has been read once. Until then an instance that
// the cache lacks may exist.
func (c *Cache) Synced() bool {
	for _, informer := range c.informers() {
		if !informer.HasSynced() {
			return false
		}
	}
	return true
}

func (c *Cache) informers() []cache.SharedIndexInformer {
	return []cache.SharedIndexInformer{c.pods, c.tombstones, c.templates, c.services, c.preloads, c.warnings}
}

// handle calls changed for every version of an object of type T, with the version
// before it, or nil. It calls gone, if that is not nil, for the last version of a
// deleted object. After a broken watch that is the last version that was delivered.
func handle[T any](informer cache.SharedIndexInformer, changed func(before, object T), gone func(object T)) error {
	var none T
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if object, ok := obj.(T); ok {
				changed(none, object)
			}
		},
		UpdateFunc: func(old, obj any) {
			before, _ := old.(T)
			if object, ok := obj.(T); ok {
				changed(before, object)
			}
		},
		DeleteFunc: func(obj any) {
			if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = lost.Obj
			}
			if object, ok := obj.(T); ok && gone != nil {
				gone(object)
			}
		},
	})
	return err
}

// delivered notes what the watch has delivered, and wakes the clients that wait for it.
func (c *Cache) delivered(_, object metav1.Object) {
	switch object := object.(type) {
	case *corev1.Pod:
		c.ownPods.Delivered(object)
		c.earlyReady.Observe(object)
	case *appsv1.DaemonSet:
		c.ownPreloads.Delivered(object)
	}
	c.wake(object)
}

// gone notes what the watch has reported as deleted, and wakes the clients that wait for it.
func (c *Cache) gone(object metav1.Object) {
	switch object := object.(type) {
	case *corev1.Pod:
		c.ownPods.Gone(object)
		c.earlyReady.Forget(object.Labels[instance.IDLabel])
	case *appsv1.DaemonSet:
		c.ownPreloads.Gone(object)
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

// Wrote takes the pod that a write returned: until the watch delivers it or
// something newer, the cache answers with it. A pod whose deletion was accepted is
// given with its deletion time set. Clients that wait for the instance are woken.
func (c *Cache) Wrote(pod *corev1.Pod) {
	_, _ = slimPod(pod) // it never fails
	c.ownPods.Add(pod)
	c.tellUpdated(pod)
	c.wake(pod)
}

// WrotePreload is Wrote for the DaemonSet of a preload.
func (c *Cache) WrotePreload(set *appsv1.DaemonSet) {
	_, _ = slim(set)
	c.ownPreloads.Add(set)
	c.wake(set)
}

// OnPod calls updated for every version of an instance's pod, and when the instance
// is found to listen before it is Ready; and gone for its last version. Handlers
// must not block. OnPod must be called before Run.
func (c *Cache) OnPod(updated, gone func(*corev1.Pod)) error {
	ifInstance := func(pod *corev1.Pod, call func(*corev1.Pod)) {
		if instance.IsInstance(pod) {
			call(pod)
		}
	}
	err := handle(c.pods,
		func(_, pod *corev1.Pod) { ifInstance(pod, updated) },
		func(pod *corev1.Pod) { ifInstance(pod, gone) })
	if err != nil {
		return fmt.Errorf("add a pod handler: %w", err)
	}
	c.updated = append(c.updated, updated)
	return nil
}

func (c *Cache) tellUpdated(pod *corev1.Pod) {
	if instance.IsInstance(pod) {
		for _, updated := range c.updated {
			updated(pod)
		}
	}
}

// OnTemplate calls changed for every version of a PodTemplate; before is nil for
// the first. It must not block.
func (c *Cache) OnTemplate(changed func(before, template *corev1.PodTemplate)) error {
	if err := handle(c.templates, changed, nil); err != nil {
		return fmt.Errorf("add a template handler: %w", err)
	}
	return nil
}

// OnWarm calls changed with the name of a template whenever the template changes,
// or a warm pod of it is created, changed, claimed or deleted. It must not block.
func (c *Cache) OnWarm(changed func(template string)) error {
	err := handle(c.pods, func(before, pod *corev1.Pod) {
		if instance.IsWarm(pod) || before != nil && instance.IsWarm(before) {
			changed(instance.TemplateOf(pod))
		}
	}, func(pod *corev1.Pod) {
		if instance.IsWarm(pod) {
			changed(instance.TemplateOf(pod))
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
	err := handle(c.preloads,
		func(_, set *appsv1.DaemonSet) { changed(instance.TemplateOf(set)) },
		func(set *appsv1.DaemonSet) { changed(instance.TemplateOf(set)) })
	if err != nil {
		return fmt.Errorf("add a preload handler: %w", err)
	}
	return c.onTemplateName(changed)
}

// onTemplateName calls changed when a PodTemplate is created, changed or deleted.
func (c *Cache) onTemplateName(changed func(template string)) error {
	err := handle(c.templates,
		func(_, template *corev1.PodTemplate) { changed(template.Name) },
		func(template *corev1.PodTemplate) { changed(template.Name) })
	if err != nil {
		return fmt.Errorf("add a template handler: %w", err)
	}
	return nil
}

// indexByAddress files pods under what they are reached by.
func indexByAddress(obj any) ([]string, error) {
	if pod, ok := obj.(*corev1.Pod); ok && instance.AddressKey(pod) != "" {
		return []string{instance.AddressKey(pod)}, nil
	}
	return nil, nil
}
