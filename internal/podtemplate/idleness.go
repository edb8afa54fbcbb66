package podtemplate

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// IdlenessAnnotations say of an application what is no use of it, and how it is
// asked whether it is at work. A template works without one that is not valid.
func IdlenessAnnotations() map[string]func(value string) error {
	return map[string]func(string) error{
		instance.IdlePathsAnnotation: func(value string) error {
			_, err := instance.CompileIdlePaths(value)
			return err
		},
		instance.ActivityProbeAnnotation: func(value string) error {
			_, err := instance.ParseProbePath(value)
			return err
		},
	}
}

// copyIdleness gives a pod what is valid of its template's.
func copyIdleness(pod *corev1.Pod, template *corev1.PodTemplate) {
	for name, check := range IdlenessAnnotations() {
		if value, ok := template.Annotations[name]; ok && check(value) == nil {
			pod.Annotations[name] = value
		}
	}
}

// MaxAge is the template's own max age; 0 when it has none.
func MaxAge(template *corev1.PodTemplate) (time.Duration, error) {
	return templateDuration(template, instance.MaxAgeAnnotation)
}
