package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
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

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/earlyready"
)

const (
	templateIndex = "template"
	// preloadWaiters before a template's name is by what those wait who wait for
	// its preload; an id has no colon.
	preloadWaiters = "preload:"
)

// awaitPulse is how often who waits looks without having been woken: the start
// timeout comes by time alone.
const awaitPulse = 5 * time.Second

// Cluster is the read model: what the watches have delivered of the pods, the
// templates, the tombstones, the preloads and the proxy's Service. Every question
// is answered from memory, and it is the only reader of the cluster.
//
// Objects it returns are shared with the cache: DeepCopy before any change.
type Cluster struct {
	namespace    string
	proxyService string
	startTimeout time.Duration
	policy       cullPolicy
	now          func() time.Time

	pods       cache.SharedIndexInformer
	tombstones cache.SharedIndexInformer
	templates  cache.SharedIndexInformer
	services   cache.SharedIndexInformer
	daemonSets cache.SharedIndexInformer // preloads

	waiters   waiters
	listening *earlyready.Dialer
	updated   []func(*corev1.Pod) // see OnPod
}

// ClusterOptions says what to watch.
type ClusterOptions struct {
	Namespace          string // the controller's own: where the proxy's Service is
	InstancesNamespace string
	ProxyService       string
	StartTimeout       time.Duration
	Policy             cullPolicy // the culler's, by which it is told how long an instance has
}

// NewCluster makes the informers; nothing is read before Run.
func NewCluster(client kubernetes.Interface, opts ClusterOptions, now func() time.Time) (*Cluster, error) {
	managed := func(o *metav1.ListOptions) { o.LabelSelector = instance.Selector().String() }
	proxyService := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, opts.ProxyService).String()
	}
	byTemplate := cache.Indexers{templateIndex: indexByTemplate}
	podIndexers := cache.Indexers{templateIndex: indexByTemplate, warmIndex: indexWarm}
	c := &Cluster{
		namespace:    opts.InstancesNamespace,
		proxyService: opts.Namespace + "/" + opts.ProxyService,
		startTimeout: opts.StartTimeout,
		policy:       opts.Policy,
		now:          now,
		listening:    earlyready.New(),

		pods:       coreinformers.NewFilteredPodInformer(client, opts.InstancesNamespace, 0, podIndexers, managed),
		tombstones: coreinformers.NewFilteredEventInformer(client, opts.InstancesNamespace, 0, byTemplate, managed),
		templates:  coreinformers.NewPodTemplateInformer(client, opts.InstancesNamespace, 0, nil),
		services:   coreinformers.NewFilteredServiceInformer(client, opts.Namespace, 0, nil, proxyService),
		daemonSets: appsinformers.NewFilteredDaemonSetInformer(client, opts.InstancesNamespace, 0, byTemplate, managed),
	}
	for informer, transform := range map[cache.SharedIndexInformer]cache.TransformFunc{
		c.pods: slimPod, c.tombstones: slim, c.templates: slim, c.services: slim, c.daemonSets: slim,
	} {
		if err := informer.SetTransform(transform); err != nil {
			return nil, fmt.Errorf("set the transform of an informer: %w", err)
		}
	}
	wake := cache.ResourceEventHandlerFuncs{
		AddFunc:    c.wake,
		UpdateFunc: func(_, obj any) { c.wake(obj) },
		DeleteFunc: c.wakeGone,
	}
	for _, informer := range []cache.SharedIndexInformer{c.pods, c.tombstones, c.daemonSets} {
		if _, err := informer.AddEventHandler(wake); err != nil {
			return nil, fmt.Errorf("add the handler that wakes waiting clients: %w", err)
		}
	}
	return c, nil
}

// Run watches until ctx is done, and returns when the last watch has ended.
func (c *Cluster) Run(ctx context.Context) {
	var informers sync.WaitGroup
	for _, informer := range c.informers() {
		informers.Go(func() { informer.RunWithContext(ctx) })
	}
	informers.Wait()
}

// Synced reports whether everything has been read once. Until then an absent
// instance may only be one not read yet.
func (c *Cluster) Synced() bool {
	for _, informer := range c.informers() {
		if !informer.HasSynced() {
			return false
		}
	}
	return true
}

func (c *Cluster) informers() []cache.SharedIndexInformer {
	return []cache.SharedIndexInformer{c.pods, c.tombstones, c.templates, c.services, c.daemonSets}
}

// OnPod calls updated for every version of an instance's pod, and when it is
// noticed to listen before it is Ready; and gone for its last version. Handlers
// must not block. It is to be called before Run.
func (c *Cluster) OnPod(updated, gone func(*corev1.Pod)) error {
	deliver := func(obj any, to func(*corev1.Pod)) {
		if pod, ok := obj.(*corev1.Pod); ok && instance.IsInstance(pod) {
			to(pod)
		}
	}
	_, err := c.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { deliver(obj, updated) },
		UpdateFunc: func(_, obj any) { deliver(obj, updated) },
		DeleteFunc: func(obj any) {
			// After a broken watch the last state is only a memory of it.
			if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = lost.Obj
			}
			deliver(obj, gone)
		},
	})
	if err != nil {
		return fmt.Errorf("add a pod handler: %w", err)
	}
	c.updated = append(c.updated, updated)
	return nil
}

// OnTemplate calls changed for every version of a template; before is nil for the
// first. It must not block.
func (c *Cluster) OnTemplate(changed func(before, template *corev1.PodTemplate)) error {
	_, err := c.templates.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if template, ok := obj.(*corev1.PodTemplate); ok {
				changed(nil, template)
			}
		},
		UpdateFunc: func(before, obj any) {
			old, _ := before.(*corev1.PodTemplate)
			if template, ok := obj.(*corev1.PodTemplate); ok {
				changed(old, template)
			}
		},
	})
	if err != nil {
		return fmt.Errorf("add a template handler: %w", err)
	}
	return nil
}

// OnPreload calls changed whenever a template or a preload has changed. It runs
// on the informers' goroutines and must not block.
func (c *Cluster) OnPreload(changed func()) error {
	for _, informer := range []cache.SharedIndexInformer{c.templates, c.daemonSets} {
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { changed() },
			UpdateFunc: func(any, any) { changed() },
			DeleteFunc: func(any) { changed() },
		}); err != nil {
			return fmt.Errorf("add a preload handler: %w", err)
		}
	}
	return nil
}

// Instance returns what is known of an id. A pod has precedence over a
// tombstone, which may have been written for a delete that did not happen; of one
// that is being deleted the tombstone says why.
func (c *Cluster) Instance(id string) (instance.Instance, bool) {
	if pod, ok := c.Pod(id); ok && !c.buried(pod) {
		return c.instance(pod, c.now()), true
	}
	if event, ok := c.Tombstone(id); ok {
		return instance.FromTombstone(event), true
	}
	return instance.Instance{}, false
}

// buried reports whether a pod is being deleted by this service, and a tombstone
// says so.
func (c *Cluster) buried(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp == nil {
		return false
	}
	_, known := c.Tombstone(pod.Labels[instance.IDLabel])
	return known
}

// instance is what the pod says, and what this replica has heard beyond that.
func (c *Cluster) instance(pod *corev1.Pod, now time.Time) instance.Instance {
	inst := instance.FromPod(pod, now, c.startTimeout)
	if inst.Status == instance.StatusDeploying && c.listening.Has(pod) {
		inst.Status, inst.Message, inst.Address = instance.StatusDeployed, "", instance.PodAddress(pod)
	}
	tellLifetime(&inst, pod, now, c.policy)
	return inst
}

// Instances returns the instances of a template, or of all for "", the oldest
// first; those that are over among them for as long as their tombstones last.
func (c *Cluster) Instances(template string) []instance.Instance {
	now := c.now()
	var all []instance.Instance
	seen := map[string]bool{}
	for _, obj := range byTemplate(c.pods, template) {
		if pod, ok := obj.(*corev1.Pod); ok && instance.IsInstance(pod) && !c.buried(pod) {
			inst := c.instance(pod, now)
			all, seen[inst.ID] = append(all, inst), true
		}
	}
	for _, obj := range byTemplate(c.tombstones, template) {
		if event, ok := obj.(*corev1.Event); ok && instance.IsInstance(event) && !seen[event.Labels[instance.IDLabel]] {
			all = append(all, instance.FromTombstone(event))
		}
	}
	slices.SortFunc(all, func(a, b instance.Instance) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID))
	})
	return all
}

// Await returns what is known of an id as soon as good accepts it, or else
// when ctx is done. It costs the cluster nothing: the watch wakes it. While
// somebody waits for an instance that starts, its port is asked whether it
// listens.
func (c *Cluster) Await(ctx context.Context, id string, good func(inst instance.Instance, known bool) bool) (instance.Instance, bool) {
	if inst, known := c.Instance(id); good(inst, known) {
		return inst, known
	}
	changed, stop := c.waiters.add(id)
	defer stop()
	pulse := time.NewTicker(awaitPulse)
	defer pulse.Stop()
	for {
		inst, known := c.Instance(id)
		if good(inst, known) || ctx.Err() != nil {
			return inst, known
		}
		c.knock(id)
		select {
		case <-changed:
		case <-pulse.C:
		case <-ctx.Done():
		}
	}
}

// knock finds out when an instance listens, for as long as somebody waits.
func (c *Cluster) knock(id string) {
	current := func() (*corev1.Pod, bool) {
		pod, ok := c.Pod(id)
		return pod, ok && c.waiters.any(id)
	}
	c.listening.Knock(id, current, func(pod *corev1.Pod) {
		c.waiters.wake(id)
		for _, updated := range c.updated {
			updated(pod)
		}
	})
}

// Pod returns the pod of an instance.
func (c *Cluster) Pod(id string) (*corev1.Pod, bool) {
	pod, ok := lookup[*corev1.Pod](c.pods, c.namespace+"/"+instance.PodName(id))
	return pod, ok && instance.IsInstance(pod) && pod.Labels[instance.IDLabel] == id
}

// InstancePods returns the pods that are somebody's instance.
func (c *Cluster) InstancePods() []*corev1.Pod {
	var pods []*corev1.Pod
	for _, obj := range c.pods.GetStore().List() {
		if pod, ok := obj.(*corev1.Pod); ok && instance.IsInstance(pod) {
			pods = append(pods, pod)
		}
	}
	return pods
}

// Tombstone returns the Event that remembers an instance.
func (c *Cluster) Tombstone(id string) (*corev1.Event, bool) {
	event, ok := lookup[*corev1.Event](c.tombstones, c.namespace+"/"+instance.TombstoneName(id))
	return event, ok && instance.IsInstance(event) && event.Labels[instance.IDLabel] == id
}

// PodTemplate returns the template of a name.
func (c *Cluster) PodTemplate(name string) (*corev1.PodTemplate, bool) {
	return lookup[*corev1.PodTemplate](c.templates, c.namespace+"/"+name)
}

// ProxyService returns the Service that leads visitors to the proxy.
func (c *Cluster) ProxyService() (*corev1.Service, bool) {
	return lookup[*corev1.Service](c.services, c.proxyService)
}

func lookup[T any](informer cache.SharedIndexInformer, key string) (T, bool) {
	obj, _, err := informer.GetStore().GetByKey(key)
	found, ok := obj.(T)
	return found, ok && err == nil
}

// byTemplate lists through the index; all for "".
func byTemplate(informer cache.SharedIndexInformer, template string) []any {
	if template == "" {
		return informer.GetStore().List()
	}
	objs, err := informer.GetIndexer().ByIndex(templateIndex, template)
	if err != nil { // only when the index does not exist
		panic(err)
	}
	return objs
}

func indexByTemplate(obj any) ([]string, error) {
	meta, ok := obj.(metav1.Object)
	if !ok {
		return nil, fmt.Errorf("index by template: unexpected %T", obj)
	}
	return []string{instance.TemplateOf(meta)}, nil
}

// wake wakes those who wait for a change of the instance, or of the preload, that
// obj belongs to.
func (c *Cluster) wake(obj any) {
	if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = lost.Obj
	}
	switch obj := obj.(type) {
	case *corev1.Pod:
		c.listening.Observe(obj)
		c.waiters.wake(obj.Labels[instance.IDLabel])
	case *appsv1.DaemonSet:
		c.waiters.wake(preloadWaiters + instance.TemplateOf(obj))
	case metav1.Object:
		c.waiters.wake(obj.GetLabels()[instance.IDLabel])
	}
}

// wakeGone is wake for what is no longer there.
func (c *Cluster) wakeGone(obj any) {
	if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = lost.Obj
	}
	if pod, ok := obj.(*corev1.Pod); ok {
		c.listening.Forget(pod.Labels[instance.IDLabel])
	}
	c.wake(obj)
}

// slim drops what nobody here reads, before it is stored: managedFields alone
// are often half of an object.
func slim(obj any) (any, error) {
	if meta, ok := obj.(metav1.Object); ok {
		meta.SetManagedFields(nil)
	}
	return obj, nil
}

// slimPod keeps of a pod's spec only where it runs; all else that is read is
// in its metadata and status.
func slimPod(obj any) (any, error) {
	if pod, ok := obj.(*corev1.Pod); ok {
		pod.Spec = corev1.PodSpec{NodeName: pod.Spec.NodeName}
		pod.Status.PodIPs, pod.Status.HostIPs = nil, nil
	}
	return slim(obj)
}
