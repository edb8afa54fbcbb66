package podtemplate

import (
	"fmt"
	"strconv"

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
