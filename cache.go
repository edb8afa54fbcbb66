package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/binder-project/binder-deploy-kubernetes/internal/earlyready"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// awaitPulse is how often a waiting client looks without having been woken. No event
// tells that the start timeout has passed.
const awaitPulse = 5 * time.Second

// Instance returns what is known of an id. A pod has precedence over a tombstone,
// which may have been written for a delete that did not happen; but the tombstone
// of a pod that is being deleted says why.
func (c *Cache) Instance(id string) (instance.Instance, bool) {
	if pod, ok := c.Pod(id); ok && !c.hasEnded(pod) {
		return c.describe(pod, c.now()), true
	}
	if event, ok := c.Tombstone(id); ok {
		return instance.FromTombstone(event), true
	}
	return instance.Instance{}, false
}

// hasEnded reports whether a pod counts as ended: it is being deleted, and it has a
// tombstone.
func (c *Cache) hasEnded(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp == nil {
		return false
	}
	_, known := c.Tombstone(pod.Labels[instance.IDLabel])
	return known
}

// describe is what the pod says, and what this replica has found out beyond that.
func (c *Cache) describe(pod *corev1.Pod, now time.Time) instance.Instance {
	inst := instance.FromPod(pod, c.Warnings(pod), now, c.rules.StartTimeout)
	if inst.Status == instance.StatusDeploying && c.earlyReady.Listens(pod) {
		inst.Status, inst.Address = instance.StatusDeployed, instance.PodAddress(pod)
		inst.Message, inst.Detail, inst.Fault = "", "", ""
	}
	c.rules.Describe(&inst, pod, now)
	if inst.Status == instance.StatusDeployed {
		overdue := !inst.CullAt.IsZero() && !now.Before(inst.CullAt)
		inst.Unsure = c.sharesAddress(pod) || c.contact.Unsure(overdue)
	}
	return inst
}

// sharesAddress reports whether another pod that lives has the address of this one.
func (c *Cache) sharesAddress(pod *corev1.Pod) bool {
	key := instance.AddressKey(pod)
	return key != "" && slices.ContainsFunc(indexed[*corev1.Pod](c.pods, addressIndex, key), func(other *corev1.Pod) bool {
		return other.Name != pod.Name
	})
}

// Instances returns the instances of a template, or all for "", the oldest first.
// Ended instances are among them for as long as their tombstones last.
func (c *Cache) Instances(template string) []instance.Instance {
	return c.describeAll(c.podsOfTemplate(template), indexed[*corev1.Event](c.tombstones, templateIndex, template))
}

// ClientInstances is Instances for those that a client has launched.
func (c *Cache) ClientInstances(client string) []instance.Instance {
	pods := c.ownPods.Overlay(func() []*corev1.Pod { return indexed[*corev1.Pod](c.pods, clientIndex, client) })
	pods = slices.DeleteFunc(pods, func(pod *corev1.Pod) bool { return pod.Labels[instance.ClientLabel] != client })
	return c.describeAll(pods, indexed[*corev1.Event](c.tombstones, clientIndex, client))
}

// describeAll returns the instances of pods and tombstones, each once, the oldest first.
func (c *Cache) describeAll(pods []*corev1.Pod, tombstones []*corev1.Event) []instance.Instance {
	now := c.now()
	var all []instance.Instance
	seen := map[string]bool{}
	for _, pod := range pods {
		if instance.IsInstance(pod) && !c.hasEnded(pod) {
			inst := c.describe(pod, now)
			all, seen[inst.ID] = append(all, inst), true
		}
	}
	for _, event := range tombstones {
		if instance.IsInstance(event) && !seen[event.Labels[instance.IDLabel]] {
			all = append(all, instance.FromTombstone(event))
		}
	}
	slices.SortFunc(all, func(a, b instance.Instance) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID))
	})
	return all
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

// awaited returns the pod of an instance, as long as a client waits for it.
func (c *Cache) awaited(id string) (*corev1.Pod, bool) {
	pod, ok := c.Pod(id)
	return pod, ok && c.waiters.Any(instance.PodName(id)) && !c.sharesAddress(pod)
}

// foundListening tells everybody of a pod that was found to listen.
func (c *Cache) foundListening(pod *corev1.Pod) {
	c.wake(pod)
	c.tellUpdated(pod)
}

// Pod returns the pod of an instance.
func (c *Cache) Pod(id string) (*corev1.Pod, bool) {
	pod, ok := c.ownPods.Get(instance.PodName(id))
	return pod, ok && instance.IsInstance(pod) && pod.Labels[instance.IDLabel] == id
}

// Warnings returns the Warning Events of a pod, without what nothing reads.
func (c *Cache) Warnings(pod *corev1.Pod) []*corev1.Event {
	if pod.UID == "" {
		return nil
	}
	return indexed[*corev1.Event](c.warnings, podIndex, string(pod.UID))
}

// InstancePods returns the pods of all instances, and those that are left over from one.
func (c *Cache) InstancePods() []*corev1.Pod {
	return slices.DeleteFunc(c.podsOfTemplate(""), func(pod *corev1.Pod) bool { return !instance.IsInstance(pod) && !instance.IsStray(pod) })
}

// WarmPods returns the warm pods of a template: those that are nobody's instance.
func (c *Cache) WarmPods(template string) []*corev1.Pod {
	pods := c.ownPods.Overlay(func() []*corev1.Pod { return indexed[*corev1.Pod](c.pods, warmIndex, template) })
	return slices.DeleteFunc(pods, func(pod *corev1.Pod) bool {
		return !instance.IsWarm(pod) || instance.TemplateOf(pod) != template
	})
}

// WarmTemplates returns the names of the templates that have warm pods.
func (c *Cache) WarmTemplates() []string {
	return c.pods.GetIndexer().ListIndexFuncValues(warmIndex)
}

// Tombstone returns the Event that remembers an instance.
func (c *Cache) Tombstone(id string) (*corev1.Event, bool) {
	event, ok := lookup[*corev1.Event](c.tombstones, c.namespace+"/"+instance.TombstoneName(id))
	return event, ok && instance.IsInstance(event) && event.Labels[instance.IDLabel] == id
}

// PodTemplates returns all PodTemplates.
func (c *Cache) PodTemplates() []*corev1.PodTemplate {
	return typed[*corev1.PodTemplate](c.templates.GetStore().List())
}

// Template returns the PodTemplate of a name, which the caller must not change. The
// error wraps podtemplate.ErrUnknown if there is none.
func (c *Cache) Template(_ context.Context, name string) (*corev1.PodTemplate, error) {
	if template, ok := lookup[*corev1.PodTemplate](c.templates, c.namespace+"/"+name); ok {
		return template, nil
	}
	return nil, fmt.Errorf("%w: %q", podtemplate.ErrUnknown, name)
}

// ProxyService returns the Service that leads visitors to the proxy.
func (c *Cache) ProxyService() (*corev1.Service, bool) {
	return lookup[*corev1.Service](c.services, c.proxyService)
}

// Preloads returns the preloads of a template, or all for "", without those that
// are being deleted.
func (c *Cache) Preloads(template string) []*appsv1.DaemonSet {
	sets := c.ownPreloads.Overlay(func() []*appsv1.DaemonSet { return indexed[*appsv1.DaemonSet](c.preloads, templateIndex, template) })
	return slices.DeleteFunc(sets, func(set *appsv1.DaemonSet) bool {
		return set.Labels[instance.PreloadLabel] == "" || set.DeletionTimestamp != nil ||
			template != "" && instance.TemplateOf(set) != template
	})
}

// PreloadPods returns the pods of one preload.
func (c *Cache) PreloadPods(set *appsv1.DaemonSet) []*corev1.Pod {
	pods := indexed[*corev1.Pod](c.pods, templateIndex, instance.TemplateOf(set))
	return slices.DeleteFunc(pods, func(pod *corev1.Pod) bool { return pod.Labels[instance.PreloadNameLabel] != set.Name })
}

// AwaitPreload returns the preloads of a template as soon as good accepts them, or
// else when ctx is done.
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

// preloadWaiter is the name that clients wait under for the preload of a template.
// An id has no colon.
func preloadWaiter(template string) string { return "preload:" + template }

// podsOfTemplate returns the managed pods of a template, or all for "".
func (c *Cache) podsOfTemplate(template string) []*corev1.Pod {
	pods := c.ownPods.Overlay(func() []*corev1.Pod { return indexed[*corev1.Pod](c.pods, templateIndex, template) })
	return slices.DeleteFunc(pods, func(pod *corev1.Pod) bool {
		return template != "" && instance.TemplateOf(pod) != template
	})
}

func lookup[T any](informer cache.SharedIndexInformer, key string) (T, bool) {
	obj, _, err := informer.GetStore().GetByKey(key)
	found, ok := obj.(T)
	return found, ok && err == nil
}

// indexed lists by an index of the informer, or all for "".
func indexed[T any](informer cache.SharedIndexInformer, index, value string) []T {
	if value == "" {
		return typed[T](informer.GetStore().List())
	}
	objs, err := informer.GetIndexer().ByIndex(index, value)
	if err != nil { // only if the index does not exist
		panic(err)
	}
	return typed[T](objs)
}

func typed[T any](objs []any) []T {
	all := make([]T, 0, len(objs))
	for _, obj := range objs {
		if object, ok := obj.(T); ok {
			all = append(all, object)
		}
	}
	return all
}

func indexByTemplate(obj any) ([]string, error) {
	meta, ok := obj.(metav1.Object)
	if !ok {
		return nil, fmt.Errorf("index by template: unexpected %T", obj)
	}
	return []string{instance.TemplateOf(meta)}, nil
}

// indexByClient files an object under the client whose launch made it an instance.
func indexByClient(obj any) ([]string, error) {
	if meta, ok := obj.(metav1.Object); ok && meta.GetLabels()[instance.ClientLabel] != "" {
		return []string{meta.GetLabels()[instance.ClientLabel]}, nil
	}
	return nil, nil
}

// indexWarm files warm pods under their template, and no others.
func indexWarm(obj any) ([]string, error) {
	if pod, ok := obj.(*corev1.Pod); ok && instance.IsWarm(pod) {
		return []string{instance.TemplateOf(pod)}, nil
	}
	return nil, nil
}

// indexByPod files Warning Events under the UID of their pod.
func indexByPod(obj any) ([]string, error) {
	if event, ok := obj.(*corev1.Event); ok && event.InvolvedObject.UID != "" {
		return []string{string(event.InvolvedObject.UID)}, nil
	}
	return nil, nil
}

// slim drops what nothing reads before an object is stored: managedFields alone are
// often half of it.
func slim(obj any) (any, error) {
	if meta, ok := obj.(metav1.Object); ok {
		meta.SetManagedFields(nil)
	}
	return obj, nil
}

// slimWarning leaves of a Warning Event what is read.
func slimWarning(obj any) (any, error) {
	if event, ok := obj.(*corev1.Event); ok {
		return instance.SlimWarning(event), nil
	}
	return obj, nil
}

// slimPod keeps only the node of a pod's spec and how its containers restart: all else
// that is read is in the metadata and the status. It also removes a ready-when annotation
// that contradicts the spec, because that cannot be checked later.
func slimPod(obj any) (any, error) {
	if pod, ok := obj.(*corev1.Pod); ok {
		if earlyready.NeedsMoreThanPort(pod) {
			delete(pod.Annotations, instance.ReadyWhenAnnotation)
		}
		pod.Spec = instance.SlimSpec(pod)
		pod.Status.PodIPs, pod.Status.HostIPs = nil, nil
	}
	return slim(obj)
}
