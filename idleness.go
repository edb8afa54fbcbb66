package main

import (
	"context"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
)

// idlenessAnnotations say of an application what is no use of it, and how it is
// asked whether it is at work. A template works without one that is not valid.
func idlenessAnnotations() map[string]func(value string) error {
	return map[string]func(string) error{
		idlePathsAnnotation: func(value string) error {
			_, err := compileIdlePaths(value)
			return err
		},
		activityProbeAnnotation: func(value string) error {
			_, err := parseProbePath(value)
			return err
		},
	}
}

// copyIdleness gives a pod what is valid of its template's.
func copyIdleness(pod *corev1.Pod, template *corev1.PodTemplate) {
	for name, check := range idlenessAnnotations() {
		if value, ok := template.Annotations[name]; ok && check(value) == nil {
			pod.Annotations[name] = value
		}
	}
}

// warnOfIdleness logs once of every version of a template what is not valid.
func warnOfIdleness(cluster *Cluster, log *slog.Logger) error {
	warn := func(before, template *corev1.PodTemplate) {
		for name, check := range idlenessAnnotations() {
			value, ok := template.Annotations[name]
			if !ok || before != nil && before.Annotations[name] == value {
				continue
			}
			if err := check(value); err != nil {
				log.WarnContext(context.Background(), "template has an annotation that is not valid, is launched without it",
					"template", template.Name, "annotation", name, "problem", err)
			}
		}
	}
	_, err := cluster.templates.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if template, ok := obj.(*corev1.PodTemplate); ok {
				warn(nil, template)
			}
		},
		UpdateFunc: func(before, obj any) {
			old, _ := before.(*corev1.PodTemplate)
			if template, ok := obj.(*corev1.PodTemplate); ok {
				warn(old, template)
			}
		},
	})
	if err != nil {
		return fmt.Errorf("add the handler of templates' annotations: %w", err)
	}
	return nil
}
