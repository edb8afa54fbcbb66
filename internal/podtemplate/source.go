package podtemplate

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

var (
	// ErrUnknown says that a Source does not have a template.
	ErrUnknown = errors.New("unknown template")
	// ErrUnavailable says that a Source cannot tell whether it has a template.
	ErrUnavailable = errors.New("the registry of templates does not answer as it should")
)

// Source finds templates by name. It gives them all as PodTemplates, wherever they
// come from.
type Source interface {
	// Template returns a template that the caller must not change. The error wraps
	// ErrUnknown if the source does not have the template, ErrUnavailable if it cannot
	// tell, and is an *Error if the template cannot be used.
	Template(ctx context.Context, name string) (*corev1.PodTemplate, error)
}

// Chain is a Source that asks other sources in turn. It goes on to the next one only
// if a source does not have the template.
type Chain []Source

// Template returns the template of the first source that has it.
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
