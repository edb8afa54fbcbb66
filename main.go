// Command binder-deploy-kubernetes is Binder's deploy service for Kubernetes. It
// launches a container per visitor, says where it is, routes the browser to it,
// and deletes it when it has been idle.
//
// There is no database: an instance's id, template and last activity are labels
// and annotations on its pod, requests are answered from shared informers'
// caches, and any replica can answer any request. See README.md.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/logging"

	"github.com/binder-project/binder-deploy-kubernetes/internal/config"
)

// version is set by the linker: -X main.version=v1.2.3.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Args[1:], config.OSEnvironment(), os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "binder-deploy-kubernetes:", err)
		os.Exit(1)
	}
}

// run is the service from its arguments to its end. It returns nil after ctx is
// done and everything has been put in order.
func run(ctx context.Context, args []string, from config.Environment, stdout, stderr io.Writer) error {
	config, err := config.Parse(args, from, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case config.Version:
		_, err := fmt.Fprintln(stdout, version)
		return err
	}
	if config.APIKeyGenerated {
		// To the terminal and not to the log: the key is in no log line.
		fmt.Fprintf(stderr, "No API key was given. This one lasts until the process ends: %s\n", config.APIKey)
	}
	log := logging.New(stderr, config.LogFormat, config.LogLevel)
	if config.Warning != "" {
		log.Warn(config.Warning)
	}
	logging.RouteClientGo(log)
	client, err := newClient(config.Kubeconfig)
	if err != nil {
		return err
	}
	app, err := newApp(config, client, log, time.Now, rand.Reader)
	if err != nil {
		return err
	}
	return app.run(ctx)
}

// newClient talks to the cluster that a kubeconfig names, or that the process
// runs in.
func newClient(kubeconfig string) (kubernetes.Interface, error) {
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
	// No limit on our side: a burst of launches is what we are for, and the API
	// server has priority and fairness to defend itself with.
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for the cluster: %w", err)
	}
	return client, nil
}

// userAgent names this service in the requests that it makes.
func userAgent() string { return instance.ManagerName + "/" + version }
