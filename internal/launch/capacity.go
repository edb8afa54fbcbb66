package launch

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// templateWithRoom returns a template whose limit allows one more instance.
func (l *Launcher) templateWithRoom(ctx context.Context, name string) (*corev1.PodTemplate, error) {
	template, err := l.deps.Templates.Template(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := l.checkCapacity(template); err != nil {
		return nil, err
	}
	return template, nil
}

// checkCapacity counts the instances that this replica knows. So launches by several
// replicas at the same time can exceed the limit; a ResourceQuota cannot be exceeded.
func (l *Launcher) checkCapacity(template *corev1.PodTemplate) error {
	limit, err := podtemplate.MaxInstances(template)
	if err != nil {
		return &podtemplate.Error{Template: template.Name, Err: err}
	}
	if limit == 0 {
		return nil
	}
	alive := 0
	for _, inst := range l.deps.Cache.Instances(template.Name) {
		if inst.Alive() {
			alive++
		}
	}
	if alive >= limit {
		return fmt.Errorf("%w: template %q has %d of at most %d", ErrCapacity, template.Name, alive, limit)
	}
	return nil
}
