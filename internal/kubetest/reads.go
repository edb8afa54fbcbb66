package kubetest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// Pod returns the pod of an instance.
func (w *World) Pod(id string) (*corev1.Pod, bool) {
	for _, pod := range w.allPods() {
		if instance.IsInstance(pod) && pod.Labels[instance.IDLabel] == id {
			return pod, true
		}
	}
	return nil, false
}

// Instance returns an instance, or what its tombstone remembers.
func (w *World) Instance(id string) (instance.Instance, bool) {
	if pod, ok := w.Pod(id); ok {
		return instance.FromPod(pod, w.Warnings(pod), w.Now(), StartTimeout), true
	}
	for _, event := range watched[*corev1.Event](w, "Event") {
		if event.Name == instance.TombstoneName(id) {
			return instance.FromTombstone(event), true
		}
	}
	return instance.Instance{}, false
}

// ClaimedFor returns the id of the instance whose pod was claimed for another id.
func (w *World) ClaimedFor(template, id string) (claimed string, known bool) {
	for _, pod := range w.allPods() {
		if instance.TemplateOf(pod) == template && pod.Annotations[instance.ClaimedForAnnotation] == id {
			return pod.Labels[instance.IDLabel], true
		}
	}
	return "", false
}

// Instances returns the instances of a template that have a pod; of all templates for "".
func (w *World) Instances(template string) []instance.Instance {
	var all []instance.Instance
	for _, pod := range w.allPods() {
		if instance.IsInstance(pod) && (template == "" || instance.TemplateOf(pod) == template) {
			all = append(all, instance.FromPod(pod, w.Warnings(pod), w.Now(), StartTimeout))
		}
	}
	return all
}

// LaunchTimes returns when a template's instances were launched.
func (w *World) LaunchTimes(template string) []time.Time {
	var times []time.Time
	for _, inst := range w.Instances(template) {
		times = append(times, inst.Launched)
	}
	return times
}

// ClientInstances returns the instances that a client has launched, and what tombstones
// remember of them.
func (w *World) ClientInstances(client string) []instance.Instance {
	var all []instance.Instance
	for _, pod := range w.allPods() {
		if instance.IsInstance(pod) && pod.Labels[instance.ClientLabel] == client {
			all = append(all, instance.FromPod(pod, w.Warnings(pod), w.Now(), StartTimeout))
		}
	}
	for _, event := range watched[*corev1.Event](w, "Event") {
		id := event.Labels[instance.IDLabel]
		if _, hasPod := w.Pod(id); !hasPod && event.Name == instance.TombstoneName(id) && event.Labels[instance.ClientLabel] == client {
			all = append(all, instance.FromTombstone(event))
		}
	}
	return all
}

// Await returns an instance once it is good, or as it is when ctx is done.
func (w *World) Await(ctx context.Context, id string, good func(inst instance.Instance, known bool) bool) (instance.Instance, bool) {
	var inst instance.Instance
	var known bool
	w.await(ctx, func() bool {
		inst, known = w.Instance(id)
		return good(inst, known)
	})
	return inst, known
}

// Warnings returns the Warning Events of a pod.
func (w *World) Warnings(pod *corev1.Pod) []*corev1.Event {
	var all []*corev1.Event
	for _, event := range watched[*corev1.Event](w, "Event") {
		if event.Type == corev1.EventTypeWarning && event.InvolvedObject.UID == pod.UID {
			all = append(all, instance.SlimWarning(event))
		}
	}
	return all
}

// WarmPods returns the pods of a template that wait in the pool.
func (w *World) WarmPods(template string) []*corev1.Pod {
	return slices.DeleteFunc(w.allPods(), func(pod *corev1.Pod) bool {
		return !instance.IsWarm(pod) || instance.TemplateOf(pod) != template
	})
}

// WarmTemplates returns the names of the templates that have warm pods.
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

// PodTemplates returns all templates.
func (w *World) PodTemplates() []*corev1.PodTemplate {
	return watched[*corev1.PodTemplate](w, "PodTemplate")
}

// PodTemplate returns the template of a name.
func (w *World) PodTemplate(name string) (*corev1.PodTemplate, bool) {
	for _, template := range w.PodTemplates() {
		if template.Name == name {
			return template, true
		}
	}
	return nil, false
}

// Template returns the template of a name, as a source of templates does.
func (w *World) Template(_ context.Context, name string) (*corev1.PodTemplate, error) {
	if template, ok := w.PodTemplate(name); ok {
		return template, nil
	}
	return nil, fmt.Errorf("%w: %q", w.unknownTemplate, name)
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
