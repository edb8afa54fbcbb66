package main

import corev1 "k8s.io/api/core/v1"

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
