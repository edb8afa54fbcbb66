package podtemplate

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// mostWarm bounds a pool: a typing error must not fill the cluster.
const mostWarm = 1000

// PoolSize is how many pods of a template are kept warm.
func PoolSize(template *corev1.PodTemplate) (int, error) {
	value, ok := template.Annotations[instance.PoolSizeAnnotation]
	if !ok {
		return 0, nil
	}
	size, err := strconv.Atoi(value)
	if err != nil || size < 0 || size > mostWarm {
		return 0, fmt.Errorf("annotation %s: %q is not a whole number from 0 to %d", instance.PoolSizeAnnotation, value, mostWarm)
	}
	return size, nil
}

// NewWarmPod makes a pod that is nobody's yet: an instance's in all but that
// it has not been used, and so has no last activity.
func NewWarmPod(template *corev1.PodTemplate, id string) (*corev1.Pod, error) {
	pod, err := NewPod(template, id, time.Time{}, 0)
	if err != nil {
		return nil, err
	}
	pod.Labels[instance.PoolLabel] = instance.PoolWarm
	delete(pod.Annotations, instance.LastActivityAnnotation)
	return pod, nil
}
