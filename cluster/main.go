// Command cluster runs a complete one-node Kubernetes cluster as processes of
// this machine: etcd, the control plane, containerd, a kubelet, kube-proxy, and
// a load balancer that serves Services of type LoadBalancer on 127.0.0.1. It is
// for the demo, the tests and the benchmarks, and needs no container engine and
// no image registry: Kubernetes is built from its Go modules, images are built
// here.
//
// Everything it makes is in one directory, .cluster in the repository's root,
// but for what a node is by nature: a bridge (binder0), packet filter rules,
// control groups, a few kernel settings, and sockets in /run/binder-cluster.
// The verb down takes all of that back.
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
