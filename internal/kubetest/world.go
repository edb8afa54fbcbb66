package kubetest

import (
	"context"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/ownwrites"
)

// World is a fake API server and a read model of it, for tests of parts that read the
// cluster. The read model needs no goroutines: it is always up to date, and its handlers
// are called during each write. PauseWatch stops that.
//
// Methods with the name of a read model's method do the same.
type World struct {
	*Server

	unknownTemplate error

	pods *ownwrites.Store[*corev1.Pod]
	sets *ownwrites.Store[*appsv1.DaemonSet]

	mu      sync.Mutex
	paused  map[string][]runtime.Object // by resource: what the watch has delivered; nil while it works
	told    map[string]metav1.Object    // by kind and name: the objects at the last delivery
	changed chan struct{}               // closed at the next change

	onPod      []func(*corev1.Pod)
	onGone     []func(*corev1.Pod)
	onTemplate []func(template string)
}

// NewWorld returns a World that has some objects. now is its clock. The error of
// Template wraps unknownTemplate.
func NewWorld(now func() time.Time, unknownTemplate error, objects ...runtime.Object) *World {
	w := &World{Server: NewServer(now, objects...), unknownTemplate: unknownTemplate, changed: make(chan struct{})}
	w.pods = ownwrites.New(func(name string) (*corev1.Pod, bool) { return named[*corev1.Pod](w, "Pod", name) }, time.Now)
	w.sets = ownwrites.New(func(name string) (*appsv1.DaemonSet, bool) { return named[*appsv1.DaemonSet](w, "DaemonSet", name) }, time.Now)
	w.deliver()
	w.written = w.deliver
	return w
}

// PauseWatch makes the read model miss all changes until ResumeWatch, except for those
// given to Wrote and WrotePreload.
func (w *World) PauseWatch() {
	paused := map[string][]runtime.Object{}
	for _, kind := range []string{"Pod", "PodTemplate", "DaemonSet", "Event"} {
		paused[kind] = w.stored(kind)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paused = paused
}

// ResumeWatch delivers all changes that were missed.
func (w *World) ResumeWatch() {
	w.mu.Lock()
	w.paused = nil
	w.mu.Unlock()
	w.deliver()
}

// deliver reports what has changed to handlers and waiting callers.
func (w *World) deliver() {
	before, objects, ok := w.advance()
	if !ok {
		return
	}
	for _, object := range objects {
		w.delivered(object)
	}
	for key, object := range before {
		if _, ok := objects[key]; !ok {
			w.gone(object)
		}
	}
	for key, object := range objects {
		w.tellChanged(before[key], object)
	}
	w.wake()
}

// advance returns the objects at the last delivery and those of now, by kind and name;
// ok is false while the watch is paused.
func (w *World) advance() (before, objects map[string]metav1.Object, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.paused != nil {
		return nil, nil, false
	}
	before, w.told = w.told, map[string]metav1.Object{}
	for _, kind := range []string{"Pod", "PodTemplate", "DaemonSet"} {
		for _, obj := range w.stored(kind) {
			object := obj.(metav1.Object)
			w.told[kind+" "+object.GetName()] = object
		}
	}
	return before, w.told, true
}

func (w *World) delivered(object metav1.Object) {
	switch object := object.(type) {
	case *corev1.Pod:
		w.pods.Delivered(object)
	case *appsv1.DaemonSet:
		w.sets.Delivered(object)
	}
}

func (w *World) gone(object metav1.Object) {
	switch object := object.(type) {
	case *corev1.Pod:
		w.pods.Gone(object)
		tellPod(object, w.onGone)
	case *appsv1.DaemonSet:
		w.sets.Gone(object)
	}
	w.tellTemplate(object)
}

// tellChanged tells the handlers of an object. Only pods are known to be unchanged: the
// fake gives other objects no new resourceVersion.
func (w *World) tellChanged(before, object metav1.Object) {
	if pod, ok := object.(*corev1.Pod); ok {
		if before != nil {
			if before.GetResourceVersion() == pod.ResourceVersion {
				return
			}
			w.tellTemplate(before)
		}
		tellPod(pod, w.onPod)
	}
	w.tellTemplate(object)
}

func tellPod(pod *corev1.Pod, handlers []func(*corev1.Pod)) {
	if instance.IsInstance(pod) {
		for _, handle := range handlers {
			handle(pod)
		}
	}
}

func (w *World) tellTemplate(object metav1.Object) {
	name := instance.TemplateOf(object)
	if template, ok := object.(*corev1.PodTemplate); ok {
		name = template.Name
	}
	for _, handle := range w.onTemplate {
		handle(name)
	}
}

func (w *World) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.changed)
	w.changed = make(chan struct{})
}

// await calls good until it returns true or ctx is done: at once and after each change.
func (w *World) await(ctx context.Context, good func() bool) {
	for {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		if good() || ctx.Err() != nil {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// stored returns the objects of a kind that the server has.
func (w *World) stored(kind string) []runtime.Object {
	resource := map[string]schema.GroupVersionResource{
		"Pod":         PodResource,
		"PodTemplate": corev1.SchemeGroupVersion.WithResource("podtemplates"),
		"DaemonSet":   appsv1.SchemeGroupVersion.WithResource("daemonsets"),
		"Event":       corev1.SchemeGroupVersion.WithResource("events"),
	}[kind]
	list, err := w.Client.Tracker().List(resource, resource.GroupVersion().WithKind(kind), Namespace)
	if err != nil {
		panic(err)
	}
	objects, err := meta.ExtractList(list)
	if err != nil {
		panic(err)
	}
	return objects
}

// watched returns the objects of a kind that the watch has delivered.
func watched[T any](w *World, kind string) []T {
	w.mu.Lock()
	paused := w.paused
	w.mu.Unlock()
	objects := paused[kind]
	if paused == nil {
		objects = w.stored(kind)
	}
	var all []T
	for _, obj := range objects {
		all = append(all, obj.(T))
	}
	return all
}

// named returns the object of a kind and name that the watch has delivered.
func named[T metav1.Object](w *World, kind, name string) (found T, ok bool) {
	for _, object := range watched[T](w, kind) {
		if object.GetName() == name {
			return object, true
		}
	}
	return found, false
}

func (w *World) allPods() []*corev1.Pod {
	return w.pods.Overlay(func() []*corev1.Pod { return watched[*corev1.Pod](w, "Pod") })
}

// Wrote makes the read model know a written pod before the watch delivers it.
func (w *World) Wrote(pod *corev1.Pod) {
	w.pods.Add(pod.DeepCopy())
	w.wake()
}

// WrotePreload makes the read model know a written DaemonSet before the watch delivers
// it.
func (w *World) WrotePreload(set *appsv1.DaemonSet) {
	w.sets.Add(set.DeepCopy())
	w.wake()
}

// OnPod adds handlers for instances' pods that were created or changed, and that are gone.
func (w *World) OnPod(updated, gone func(*corev1.Pod)) error {
	w.onPod, w.onGone = append(w.onPod, updated), append(w.onGone, gone)
	return nil
}

// OnInstance is OnPod with a handler that is told the id of the instance.
func (w *World) OnInstance(updated func(id string), gone func(*corev1.Pod)) error {
	return w.OnPod(func(pod *corev1.Pod) { updated(pod.Labels[instance.IDLabel]) }, gone)
}

// OnWarm adds a handler for changes that concern the pool of a template. It is called
// more often than the read model calls it.
func (w *World) OnWarm(changed func(template string)) error {
	w.onTemplate = append(w.onTemplate, changed)
	return nil
}

// OnPreload adds a handler for changes that concern the preloads of a template. It is
// called more often than the read model calls it.
func (w *World) OnPreload(changed func(template string)) error { return w.OnWarm(changed) }

// Preloads returns the DaemonSets that preload a template; all for "".
func (w *World) Preloads(template string) []*appsv1.DaemonSet {
	sets := w.sets.Overlay(func() []*appsv1.DaemonSet { return watched[*appsv1.DaemonSet](w, "DaemonSet") })
	return slices.DeleteFunc(sets, func(set *appsv1.DaemonSet) bool {
		return set.DeletionTimestamp != nil || template != "" && instance.TemplateOf(set) != template
	})
}

// PreloadPods returns the pods of a preload.
func (w *World) PreloadPods(set *appsv1.DaemonSet) []*corev1.Pod {
	return slices.DeleteFunc(w.allPods(), func(pod *corev1.Pod) bool {
		return pod.Labels[instance.PreloadNameLabel] != set.Name
	})
}

// AwaitPreload returns the preloads of a template once they are good, or as they are when
// ctx is done.
func (w *World) AwaitPreload(ctx context.Context, template string, good func([]*appsv1.DaemonSet) bool) []*appsv1.DaemonSet {
	var sets []*appsv1.DaemonSet
	w.await(ctx, func() bool {
		sets = w.Preloads(template)
		return good(sets)
	})
	return sets
}
