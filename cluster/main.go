// Command cluster runs a complete one-node Kubernetes cluster as processes of
// this machine: etcd, the control plane, containerd, a kubelet, kube-proxy, an
// enforcement of NetworkPolicies, and a load balancer that serves Services of type
// LoadBalancer on 127.0.0.1. The demo, the tests and the benchmarks use it. It needs no container engine and no
// image registry: it builds Kubernetes from its Go modules, and it builds the
// images.
//
// Its files are in one directory, .cluster in the repository's root. Outside of
// it a node needs a bridge (binder0), packet filter rules, control groups, a few
// kernel settings, and sockets in /run/binder-cluster. The command down undoes
// these changes.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}
