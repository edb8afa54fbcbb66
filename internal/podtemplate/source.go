package podtemplate

import (
	"context"

	corev1 "k8s.io/api/core/v1"
)

// Source finds templates. Whatever a template was elsewhere, here it is
// a PodTemplate.
type Source interface {
	// Template returns the template of a name, which the caller must not
	// change, or an error that wraps errUnknownTemplate when there is none.
	Template(ctx context.Context, name string) (*corev1.PodTemplate, error)
}
