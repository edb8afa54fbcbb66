package preload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

const (
	// workers is how many templates are reconciled at the same time. Their source may
	// be a registry that answers slowly.
	workers = 2
	// resync is how often a template with a preload is looked at when no event tells
	// of a change: no watch covers the templates of a registry.
	resync = time.Minute
	// firstRetry and longestRetry bound the wait before a template is reconciled
	// again after an error. Each wait is twice as long as the one before.
	firstRetry   = time.Second
	longestRetry = time.Minute
)

// Run keeps preloads in step with their templates for one term of leading: until ctx
// is done. When it returns, nothing of it is running.
func (p *Preloader) Run(ctx context.Context) {
	p.controller.Run(ctx, p.preloaded, func(ctx context.Context, template string) (time.Duration, error) {
		if err := p.reconcile(ctx, template); err != nil || len(p.deps.Cache.Preloads(template)) == 0 {
			return 0, err
		}
		return resync, nil
	})
}

// preloaded are the names of all templates that have a preload.
func (p *Preloader) preloaded() []string {
	var names []string
	for _, set := range p.deps.Cache.Preloads("") {
		names = append(names, instance.TemplateOf(set))
	}
	return names
}

// reconcile brings the preloads of a template in step with it. A template that is
// gone has none. One that has changed gets a new preload first; the old one is
// deleted at a later look, once the new one is known, so that a crash in between loses
// nothing.
func (p *Preloader) reconcile(ctx context.Context, name string) error {
	sets := p.deps.Cache.Preloads(name)
	if len(sets) == 0 {
		return nil // nobody asked for one, or somebody deletes it
	}
	template, err := p.deps.Templates.Template(ctx, name)
	if errors.Is(err, podtemplate.ErrUnknown) {
		p.deps.Log.InfoContext(ctx, "preload ends, its template is gone", "template", name)
		return p.delete(ctx, sets)
	}
	if err != nil {
		return err // the source of templates is away, which says nothing about the template
	}
	wanted, err := newDaemonSet(template, p.deps.Namespace, p.deps.HelperImage)
	if err != nil {
		return notPreloaded(name, err)
	}
	isWanted := func(set *appsv1.DaemonSet) bool { return set.Name == wanted.Name }
	if !slices.ContainsFunc(sets, isWanted) {
		return p.create(ctx, wanted)
	}
	return p.delete(ctx, slices.DeleteFunc(slices.Clone(sets), isWanted))
}

// delete deletes DaemonSets; Kubernetes then deletes their pods.
func (p *Preloader) delete(ctx context.Context, sets []*appsv1.DaemonSet) error {
	ctx, cancel := context.WithTimeout(ctx, kube.WriteTimeout)
	defer cancel()
	var errs []error
	for _, set := range sets {
		err := p.deps.DaemonSets.Delete(ctx, set.Name, metav1.DeleteOptions{
			Preconditions:     metav1.NewUIDPreconditions(string(set.UID)),
			PropagationPolicy: new(metav1.DeletePropagationBackground),
		})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("delete DaemonSet %s: %w", set.Name, err))
			continue
		}
		// After a conflict, another DaemonSet has the name, which is newer than this.
		deleted := set.DeepCopy()
		deleted.DeletionTimestamp = new(metav1.NewTime(p.deps.Now()))
		p.deps.Cache.WrotePreload(deleted)
	}
	return errors.Join(errs...)
}
