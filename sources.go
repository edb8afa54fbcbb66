package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/config"
	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"

	"github.com/binder-project/binder-deploy-kubernetes/internal/registry"
)

// newTemplateSource is where templates come from: the cluster first, then the
// registry, if there is one.
func newTemplateSource(config *config.Config, cluster *Cluster, metrics *metrics.Metrics, log *slog.Logger, now func() time.Time) podtemplate.Source {
	if config.RegistryURL == "" {
		return clusterTemplates{cluster}
	}
	return templateChain{
		clusterTemplates{cluster},
		registry.New(config.RegistryURL, config.RegistryAPIKey, config.InstancesNamespace, userAgent(), metrics, log, now),
	}
}

// templateChain asks one source after another, until one knows the template or
// cannot say.
type templateChain []podtemplate.Source

func (c templateChain) Template(ctx context.Context, name string) (*corev1.PodTemplate, error) {
	err := fmt.Errorf("%w: %q", podtemplate.ErrUnknown, name)
	for _, source := range c {
		var template *corev1.PodTemplate
		if template, err = source.Template(ctx, name); !errors.Is(err, podtemplate.ErrUnknown) {
			return template, err
		}
	}
	return nil, err
}

// clusterTemplates are the PodTemplates in the instances' namespace.
type clusterTemplates struct{ cluster *Cluster }

func (s clusterTemplates) Template(_ context.Context, name string) (*corev1.PodTemplate, error) {
	if template, ok := s.cluster.PodTemplate(name); ok {
		return template, nil
	}
	return nil, fmt.Errorf("%w: %q", podtemplate.ErrUnknown, name)
}
