package kube

import (
	"fmt"

	appsv1 "k8s.io/client-go/kubernetes/typed/apps/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
)

// Client is the part of client-go's clientset that this service uses.
type Client interface {
	CoreV1() corev1.CoreV1Interface
	AppsV1() appsv1.AppsV1Interface
	CoordinationV1() coordinationv1.CoordinationV1Interface
}

type client struct {
	core         *corev1.CoreV1Client
	apps         *appsv1.AppsV1Client
	coordination *coordinationv1.CoordinationV1Client
}

// CoreV1 returns the client of the core group.
func (c *client) CoreV1() corev1.CoreV1Interface { return c.core }

// AppsV1 returns the client of DaemonSets.
func (c *client) AppsV1() appsv1.AppsV1Interface { return c.apps }

// CoordinationV1 returns the client of Leases.
func (c *client) CoordinationV1() coordinationv1.CoordinationV1Interface { return c.coordination }

// NewClient returns a client. All its parts share one connection and one rate, as those of
// client-go's clientset do. The clientset itself makes the process several megabytes larger.
func NewClient(config *rest.Config) (Client, error) {
	config = rest.CopyConfig(config)
	if config.RateLimiter == nil && config.QPS > 0 {
		config.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(config.QPS, config.Burst)
	}
	over, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make the HTTP client: %w", err)
	}
	c := &client{}
	if c.core, err = corev1.NewForConfigAndClient(config, over); err != nil {
		return nil, err
	}
	if c.apps, err = appsv1.NewForConfigAndClient(config, over); err != nil {
		return nil, err
	}
	if c.coordination, err = coordinationv1.NewForConfigAndClient(config, over); err != nil {
		return nil, err
	}
	return c, nil
}
