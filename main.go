// Command binder-deploy-kubernetes is Binder's deploy service for Kubernetes. It launches
// a container for each visitor, tells clients where it is, routes the browser to it, and deletes
// it when it has been idle for too long.
//
// There is no database. The id, template and last activity of an instance are labels and
// annotations on its pod, and requests are answered from a cache that a watch keeps up to
// date: any replica can answer any request. README.md says more.
package main

import (
	"context"
	cryptorand "crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/transport"

	"github.com/binder-project/binder-deploy-kubernetes/internal/config"
	"github.com/binder-project/binder-deploy-kubernetes/internal/contact"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
	"github.com/binder-project/binder-deploy-kubernetes/internal/leader"
	"github.com/binder-project/binder-deploy-kubernetes/internal/logging"
	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
	"github.com/binder-project/binder-deploy-kubernetes/internal/registry"
	"github.com/binder-project/binder-deploy-kubernetes/internal/webhook"
)

// version is set by the linker: -X main.version=v1.2.3.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Args[1:], config.OSEnvironment(), os.Stdout, os.Stderr)
	stop()
	if err != nil {
		if logged := (*loggedError)(nil); !errors.As(err, &logged) {
			fmt.Fprintln(os.Stderr, "binder-deploy-kubernetes:", err)
		}
		os.Exit(1)
	}
}

// loggedError is an error that the log has already. It is not printed as well: who
// reads the log as JSON must not find other lines in it.
type loggedError struct{ error }

func (e *loggedError) Unwrap() error { return e.error }

// run runs the service from its arguments to its end. It returns nil after ctx is done and
// the service has shut down in order.
func run(ctx context.Context, args []string, from config.Environment, stdout, stderr io.Writer) error {
	c, err := config.Parse(args, from, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case c.Version:
		_, err := fmt.Fprintln(stdout, version)
		return err
	}
	if c.APIKeyGenerated {
		// Not through the log: no log line ever holds the key.
		fmt.Fprintf(stderr, "No API key is set. This random key is valid until the process ends: %s\n", c.APIKeys[0])
	}
	log := logging.New(stderr, c.LogFormat, c.LogLevel)
	for _, warning := range c.Warnings {
		log.Warn(warning)
	}
	others := logging.Sparse(log)
	logging.RouteClientGo(others)
	logging.RouteDefault(others)
	if err := runService(ctx, c, log); err != nil {
		log.Error("the service cannot run", "error", err)
		return &loggedError{err}
	}
	return nil
}

// runService runs the service with its settings and its log.
func runService(ctx context.Context, c *config.Config, log *slog.Logger) error {
	metrics := metrics.New(version, metricValues())
	cluster, err := newCluster(c.Kubeconfig, metrics.WatchAPIServer)
	if err != nil {
		return err
	}
	app, err := newApp(c, cluster, metrics, log, cluster.clock.Now, cryptorand.Reader)
	if err != nil {
		return err
	}
	return app.run(ctx)
}

// templates is where templates come from: the cluster first, then the registry, if
// there is one.
func (a *app) templates() podtemplate.Source {
	if a.config.RegistryURL == "" {
		return a.cache
	}
	return podtemplate.Chain{a.cache, registry.New(registry.Deps{
		BaseURL: a.config.RegistryURL, Key: a.config.RegistryAPIKey, UserAgent: userAgent(),
		Namespace: a.config.InstancesNamespace, Metrics: a.metrics, Log: a.log, Now: a.now,
	})}
}

// makeWebhook makes what tells a receiver of instances, if there is one.
func (a *app) makeWebhook() launch.Reporter {
	if a.config.WebhookURL == "" {
		return nil
	}
	a.webhook = webhook.New(webhook.Deps{
		URL: a.config.WebhookURL, Key: a.config.WebhookKey, Namespace: a.config.InstancesNamespace, UserAgent: userAgent(),
		Ended: a.cache.Ended, Metrics: a.metrics, Log: a.log, Now: a.now, Random: rand.Float64,
	})
	return a.webhook
}

// ignoreEnd turns the error of an end that was asked for into nil.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// cluster is how the service reaches the API server.
type cluster struct {
	// client is for what visitors and clients cause, and for what all replicas do.
	client kube.Client
	// leading is for the Lease and the culler. It has a connection and a rate of its own,
	// so that no flood of launches is in their way.
	leading kube.Client
	// contact is told of the watches that client opens.
	contact *contact.Contact
	// clock tells the API server's time.
	clock *contact.Clock
	// renewals are those of this replica's Lease.
	renewals leader.Renewals
}

// isSure reports whether this replica leads, and knows of all that others did until a moment ago.
func (k *cluster) isSure() bool {
	return k.renewals.Sure(time.Now()) && !k.contact.Behind() && k.contact.Age() < contact.BehindAfter
}

// The rate of what the leader writes, per second. A sweep that ends many instances stays
// below it, so that it delays neither the Lease nor others at the API server.
const (
	leadingRate  = 50
	leadingBurst = 100
)

// newCluster returns the clients for the cluster that a kubeconfig file names, or for "",
// the cluster that the process runs in. watch sees all their requests.
func newCluster(kubeconfig string, watch transport.WrapperFunc) (*cluster, error) {
	config, err := rest.InClusterConfig()
	if kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	switch {
	case errors.Is(err, rest.ErrNotInCluster):
		return nil, errors.New("not in a cluster: --kubeconfig must name a kubeconfig file")
	case err != nil:
		return nil, fmt.Errorf("read the cluster's configuration: %w", err)
	}
	config.UserAgent = userAgent()
	config.Wrap(watch)
	c := &cluster{contact: contact.New(time.Now), clock: contact.NewClock(time.Now)}
	config.Wrap(c.clock.Watch)
	leading := leadingConfig(config)
	// No limit on this side: bursts of launches are normal here, and the API server
	// protects itself by priority and fairness.
	config.QPS = -1
	config.Wrap(c.contact.Watch)
	if c.client, err = kube.NewClient(config); err == nil {
		c.leading, err = kube.NewClient(leading)
	}
	if err != nil {
		return nil, fmt.Errorf("make a client for the cluster: %w", err)
	}
	return c, nil
}

// leadingConfig returns the configuration of the client for the Lease and the culler.
func leadingConfig(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.UserAgent += " (leader)"
	config.QPS, config.Burst = leadingRate, leadingBurst
	// client-go shares one connection between all clients with the same options. A dialer
	// of its own makes this one different. The values are client-go's.
	config.Dial = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	return config
}

// userAgent is the User-Agent of the requests that this service makes.
func userAgent() string { return instance.ManagerName + "/" + version }
