package main

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const (

	// mostRestarts is how often the containers of a warm pod may have been started
	// again. Once may be a matter of what was up first; a pod that keeps breaking
	// down while nobody uses it will do so for a visitor, too.
	mostRestarts = 3

	warmIndex = "warm"
)

// isPromising reports whether a pod that does not serve yet is at least as good
// as a new one: on its way for not too long, and nothing has gone wrong so far.
// It may have used up half of its start timeout, so that enough is left of it.
func isPromising(pod *corev1.Pod, now time.Time, startTimeout time.Duration) bool {
	if pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
		return false
	}
	if now.Sub(pod.CreationTimestamp.Time) > startTimeout/2 || instance.Restarts(pod) > 0 {
		return false
	}
	if scheduled := instance.Condition(pod, corev1.PodScheduled); scheduled != nil && scheduled.Status != corev1.ConditionTrue {
		return false
	}
	for _, status := range instance.ContainerStatuses(pod) {
		if waiting := status.State.Waiting; waiting != nil {
			switch waiting.Reason {
			case "", "ContainerCreating", "PodInitializing":
			default:
				return false
			}
		}
	}
	return true
}

// WarmPods returns the pods of a template that are nobody's yet.
func (c *Cluster) WarmPods(template string) []*corev1.Pod {
	objs, err := c.pods.GetIndexer().ByIndex(warmIndex, template)
	if err != nil { // only when the index does not exist
		panic(err)
	}
	var pods []*corev1.Pod
	for _, obj := range objs {
		if pod, ok := obj.(*corev1.Pod); ok {
			pods = append(pods, pod)
		}
	}
	return pods
}

// WarmTemplates returns the names of the templates that warm pods were made of.
func (c *Cluster) WarmTemplates() []string {
	return c.pods.GetIndexer().ListIndexFuncValues(warmIndex)
}

// PodTemplates returns all templates of the cluster.
func (c *Cluster) PodTemplates() []*corev1.PodTemplate {
	var templates []*corev1.PodTemplate
	for _, obj := range c.templates.GetStore().List() {
		if template, ok := obj.(*corev1.PodTemplate); ok {
			templates = append(templates, template)
		}
	}
	return templates
}

// managedPod returns the pod of a name, whosever it is.
func (c *Cluster) managedPod(name string) (*corev1.Pod, bool) {
	return lookup[*corev1.Pod](c.pods, c.namespace+"/"+name)
}

// OnWarm calls changed whenever a warm pod comes, changes, is claimed or goes,
// and when a template does. It runs on the informers' goroutines and must not
// block.
func (c *Cluster) OnWarm(changed func()) error {
	ifWarm := func(objs ...any) {
		for _, obj := range objs {
			if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = lost.Obj
			}
			if pod, ok := obj.(*corev1.Pod); ok && instance.IsWarm(pod) {
				changed()
				return
			}
		}
	}
	if _, err := c.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { ifWarm(obj) },
		UpdateFunc: func(before, obj any) { ifWarm(before, obj) },
		DeleteFunc: func(obj any) { ifWarm(obj) },
	}); err != nil {
		return fmt.Errorf("add the handler of warm pods: %w", err)
	}
	if _, err := c.templates.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { changed() },
		UpdateFunc: func(_, _ any) { changed() },
		DeleteFunc: func(any) { changed() },
	}); err != nil {
		return fmt.Errorf("add the handler of templates: %w", err)
	}
	return nil
}

// indexWarm files warm pods under their template, and all others not at all.
func indexWarm(obj any) ([]string, error) {
	if pod, ok := obj.(*corev1.Pod); ok && instance.IsWarm(pod) {
		return []string{instance.TemplateOf(pod)}, nil
	}
	return nil, nil
}
