package podtemplate

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

var (
	// ErrUnknown is wrapped by the error of a Source that has no such template.
	ErrUnknown = errors.New("unknown template")
	// ErrUnavailable is wrapped by the error of a Source that cannot tell whether it
	// has such a template.
	ErrUnavailable = errors.New("the registry of templates does not answer as it should")
)

// Source finds templates by name. Whatever a template is in the place it comes
// from, here it is a PodTemplate, which the caller must not change.
type Source interface {
	Template(ctx context.Context, name string) (*corev1.PodTemplate, error)
}

// Chain asks one Source after another, until one has the template or cannot tell.
type Chain []Source

// Template implements Source.
func (c Chain) Template(ctx context.Context, name string) (*corev1.PodTemplate, error) {
	err := fmt.Errorf("%w: %q", ErrUnknown, name)
	for _, source := range c {
		var template *corev1.PodTemplate
		if template, err = source.Template(ctx, name); !errors.Is(err, ErrUnknown) {
			return template, err
		}
	}
	return nil, err
}
