package main

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// Preloads returns the preloads of a template, or of all for "", without those
// that are being deleted.
func (c *Cluster) Preloads(template string) []*appsv1.DaemonSet {
	var sets []*appsv1.DaemonSet
	for _, obj := range byTemplate(c.daemonSets, template) {
		if set, ok := obj.(*appsv1.DaemonSet); ok && set.Labels[instance.PreloadLabel] != "" && set.DeletionTimestamp == nil {
			sets = append(sets, set)
		}
	}
	return sets
}

// PreloadPods returns the pods of one preload.
func (c *Cluster) PreloadPods(set *appsv1.DaemonSet) []*corev1.Pod {
	var pods []*corev1.Pod
	for _, obj := range byTemplate(c.pods, instance.TemplateOf(set)) {
		if pod, ok := obj.(*corev1.Pod); ok && pod.Labels[instance.PreloadNameLabel] == set.Name {
			pods = append(pods, pod)
		}
	}
	return pods
}

// AwaitPreload returns the preloads of a template as soon as good accepts them,
// or else when ctx is done.
func (c *Cluster) AwaitPreload(ctx context.Context, template string, good func([]*appsv1.DaemonSet) bool) []*appsv1.DaemonSet {
	changed, stop := c.waiters.add(preloadWaiters + template)
	defer stop()
	for {
		sets := c.Preloads(template)
		if good(sets) {
			return sets
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return sets
		}
	}
}

const warmIndex = "warm"

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

// ManagedPod returns the pod of a name, whosever it is.
func (c *Cluster) ManagedPod(name string) (*corev1.Pod, bool) {
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
