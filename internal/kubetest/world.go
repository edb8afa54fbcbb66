package kubetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/ownwrites"
)

// World is a fake API server together with a read model of it, for tests of parts
// that read the cluster. The read model is up to date at once, without goroutines,
// until PauseWatch; and it calls its handlers during the write.
type World struct {
	*Server

	unknownTemplate error

	pods *ownwrites.Store[*corev1.Pod]
	sets *ownwrites.Store[*appsv1.DaemonSet]

	mu      sync.Mutex
	paused  map[string][]runtime.Object // by resource: what the watch has delivered; nil while it works
	known   map[string]*corev1.Pod      // by name: the pods that handlers were told of
	changed chan struct{}               // closed at the next change

	onPod      []func(*corev1.Pod)
	onGone     []func(*corev1.Pod)
	onTemplate []func(template string)
}

// NewWorld returns a world with objects in it.
//
// unknownTemplate is what the error of Template wraps.
func NewWorld(now func() time.Time, unknownTemplate error, objects ...runtime.Object) *World {
	w := &World{
		Server: NewServer(now, objects...), unknownTemplate: unknownTemplate, known: map[string]*corev1.Pod{}, changed: make(chan struct{}),
	}
	w.pods = ownwrites.New(func(name string) (*corev1.Pod, bool) { return named[*corev1.Pod](w, "Pod", name) }, time.Now)
	w.sets = ownwrites.New(func(name string) (*appsv1.DaemonSet, bool) { return named[*appsv1.DaemonSet](w, "DaemonSet", name) }, time.Now)
	for _, pod := range w.allPods() {
		w.known[pod.Name] = pod
	}
	w.written = w.deliver
	return w
}

// PauseWatch makes the read model miss all changes until ResumeWatch, but for what
// is told to Wrote.
func (w *World) PauseWatch() {
	paused := map[string][]runtime.Object{}
	for _, kind := range []string{"Pod", "PodTemplate", "DaemonSet", "Event"} {
		paused[kind] = w.stored(kind)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paused = paused
}

// ResumeWatch delivers all that was missed.
func (w *World) ResumeWatch() {
	w.mu.Lock()
	w.paused = nil
	w.mu.Unlock()
	w.deliver()
}

// deliver tells handlers and waiting clients of what has changed.
func (w *World) deliver() {
	w.mu.Lock()
	if w.paused != nil {
		w.mu.Unlock()
		return
	}
	w.mu.Unlock()
	pods := map[string]*corev1.Pod{}
	for _, obj := range w.stored("Pod") {
		pod := obj.(*corev1.Pod)
		pods[pod.Name] = pod
		w.pods.Delivered(pod)
	}
	w.mu.Lock()
	before := w.known
	w.known = pods
	w.mu.Unlock()
	for name, pod := range before {
		if _, ok := pods[name]; !ok {
			w.pods.Gone(pod)
			w.tell(pod, w.onGone)
		}
	}
	for name, pod := range pods {
		if old, ok := before[name]; !ok || old.ResourceVersion != pod.ResourceVersion {
			if ok {
				w.tellTemplate(old)
			}
			w.tell(pod, w.onPod)
		}
	}
	for _, kind := range []string{"PodTemplate", "DaemonSet"} {
		for _, obj := range w.stored(kind) {
			w.tellTemplate(obj.(metav1.Object))
		}
	}
	w.wake()
}

func (w *World) tell(pod *corev1.Pod, handlers []func(*corev1.Pod)) {
	if instance.IsInstance(pod) {
		for _, handle := range handlers {
			handle(pod)
		}
	}
	w.tellTemplate(pod)
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

// stored are the objects of a kind that the server has.
func (w *World) stored(kind string) []runtime.Object {
	kinds := map[string]schema.GroupVersionResource{
		"Pod":         PodResource,
		"PodTemplate": corev1.SchemeGroupVersion.WithResource("podtemplates"),
		"DaemonSet":   appsv1.SchemeGroupVersion.WithResource("daemonsets"),
		"Event":       corev1.SchemeGroupVersion.WithResource("events"),
	}
	list, err := w.Client.Tracker().List(kinds[kind], kinds[kind].GroupVersion().WithKind(kind), Namespace)
	if err != nil {
		panic(err)
	}
	var objects []runtime.Object
	switch list := list.(type) {
	case *corev1.PodList:
		for i := range list.Items {
			objects = append(objects, &list.Items[i])
		}
	case *corev1.PodTemplateList:
		for i := range list.Items {
			objects = append(objects, &list.Items[i])
		}
	case *appsv1.DaemonSetList:
		for i := range list.Items {
			objects = append(objects, &list.Items[i])
		}
	case *corev1.EventList:
		for i := range list.Items {
			objects = append(objects, &list.Items[i])
		}
	}
	return objects
}

// watched are the objects of a kind that the watch has delivered.
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

// named is the object of a kind and name that the watch has delivered.
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

// Wrote is the read model's.
func (w *World) Wrote(pod *corev1.Pod) {
	w.pods.Add(pod.DeepCopy())
	w.wake()
}

// WrotePreload is the read model's.
func (w *World) WrotePreload(set *appsv1.DaemonSet) {
	w.sets.Add(set.DeepCopy())
	w.wake()
}

// OnPod is the read model's.
func (w *World) OnPod(updated, gone func(*corev1.Pod)) error {
	w.onPod, w.onGone = append(w.onPod, updated), append(w.onGone, gone)
	return nil
}

// OnWarm is the read model's, and calls changed more often than that.
func (w *World) OnWarm(changed func(template string)) error {
	w.onTemplate = append(w.onTemplate, changed)
	return nil
}

// OnPreload is the read model's, and calls changed more often than that.
func (w *World) OnPreload(changed func(template string)) error { return w.OnWarm(changed) }

// Pod is the read model's.
func (w *World) Pod(id string) (*corev1.Pod, bool) {
	for _, pod := range w.allPods() {
		if instance.IsInstance(pod) && pod.Labels[instance.IDLabel] == id {
			return pod, true
		}
	}
	return nil, false
}

// Instance is the read model's.
func (w *World) Instance(id string) (instance.Instance, bool) {
	if pod, ok := w.Pod(id); ok {
		return instance.FromPod(pod, w.Now(), StartTimeout), true
	}
	for _, event := range watched[*corev1.Event](w, "Event") {
		if event.Name == instance.TombstoneName(id) {
			return instance.FromTombstone(event), true
		}
	}
	return instance.Instance{}, false
}

// Instances is the read model's.
func (w *World) Instances(template string) []instance.Instance {
	var all []instance.Instance
	for _, pod := range w.allPods() {
		if instance.IsInstance(pod) && (template == "" || instance.TemplateOf(pod) == template) {
			all = append(all, instance.FromPod(pod, w.Now(), StartTimeout))
		}
	}
	return all
}

// Await is the read model's.
func (w *World) Await(ctx context.Context, id string, good func(inst instance.Instance, known bool) bool) (instance.Instance, bool) {
	for {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		inst, known := w.Instance(id)
		if good(inst, known) || ctx.Err() != nil {
			return inst, known
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// WarmPods is the read model's.
func (w *World) WarmPods(template string) []*corev1.Pod {
	return slices.DeleteFunc(w.allPods(), func(pod *corev1.Pod) bool {
		return !instance.IsWarm(pod) || instance.TemplateOf(pod) != template
	})
}

// WarmTemplates is the read model's.
func (w *World) WarmTemplates() []string {
	var names []string
	for _, pod := range w.allPods() {
		if instance.IsWarm(pod) {
			names = append(names, instance.TemplateOf(pod))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// PodTemplates is the read model's.
func (w *World) PodTemplates() []*corev1.PodTemplate {
	return watched[*corev1.PodTemplate](w, "PodTemplate")
}

// PodTemplate is the read model's.
func (w *World) PodTemplate(name string) (*corev1.PodTemplate, bool) {
	for _, template := range w.PodTemplates() {
		if template.Name == name {
			return template, true
		}
	}
	return nil, false
}

// Template finds the templates of the world, as a source of templates does.
func (w *World) Template(_ context.Context, name string) (*corev1.PodTemplate, error) {
	if template, ok := w.PodTemplate(name); ok {
		return template, nil
	}
	return nil, fmt.Errorf("%w: %q", w.unknownTemplate, name)
}

// Preloads is the read model's.
func (w *World) Preloads(template string) []*appsv1.DaemonSet {
	sets := w.sets.Overlay(func() []*appsv1.DaemonSet { return watched[*appsv1.DaemonSet](w, "DaemonSet") })
	return slices.DeleteFunc(sets, func(set *appsv1.DaemonSet) bool {
		return set.DeletionTimestamp != nil || template != "" && instance.TemplateOf(set) != template
	})
}

// PreloadPods is the read model's.
func (w *World) PreloadPods(set *appsv1.DaemonSet) []*corev1.Pod {
	return slices.DeleteFunc(w.allPods(), func(pod *corev1.Pod) bool {
		return pod.Labels[instance.PreloadNameLabel] != set.Name
	})
}

// AwaitPreload is the read model's.
func (w *World) AwaitPreload(ctx context.Context, template string, good func([]*appsv1.DaemonSet) bool) []*appsv1.DaemonSet {
	for {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		sets := w.Preloads(template)
		if good(sets) || ctx.Err() != nil {
			return sets
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// Put creates or replaces a template, as kubectl does.
func (w *World) Put(t testing.TB, template *corev1.PodTemplate) {
	t.Helper()
	templates := w.Client.CoreV1().PodTemplates(Namespace)
	_, err := templates.Update(t.Context(), template, metav1.UpdateOptions{})
	if err != nil {
		_, err = templates.Create(t.Context(), template, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// WritesOf are the names of the objects of a resource that a client asked to write
// with a verb, in order, refused ones too.
func (s *Server) WritesOf(verb, resource string) []string {
	var names []string
	for _, action := range s.Calls(verb) {
		if action.GetResource().Resource == strings.ToLower(resource) {
			names = append(names, NameOf(action))
		}
	}
	return names
}
