package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	policies "sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
)

// policyQueue is the number of the packet queue (NFQUEUE) on which the kernel asks
// whether network policies allow a connection.
const policyQueue = 24460

// networkPolicySocket is the path at which the part answers /readyz.
func networkPolicySocket() string { return filepath.Join(socketDir, "networkpolicy.sock") }

// networkPolicy is the part that enforces NetworkPolicies. It runs this command.
func (c *cluster) networkPolicy() part {
	return part{
		name:    "networkpolicy",
		command: []string{c.bin("cluster"), "networkpolicy", "--dir=" + c.dir},
		configs: []string{c.kubeconfig()},
		ready:   httpCheck(socketClient(networkPolicySocket()), "http://networkpolicy/readyz"),
	}
}

func networkPolicyCommand(c *cluster) *cobra.Command {
	return &cobra.Command{
		Use:   "networkpolicy",
		Short: "Enforce NetworkPolicies (up starts this)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, _, err := c.client()
			if err != nil {
				return err
			}
			return runNetworkPolicy(cmd.Context(), client)
		},
	}
}

// runNetworkPolicy decides about the pods' new connections until ctx is done. If it
// ends, the kernel refuses them.
//
// The decisions are those of kube-network-policies. Its own packet filter rules are
// not used, for two reasons: they need the nftables expression "queue", which not
// every kernel has, and they see forwarded packets only, so that pods could reach
// every port of the node, and with it the API server.
func runNetworkPolicy(ctx context.Context, client kubernetes.Interface) error {
	// The library asks the container runtime for the addresses of pods that are
	// just starting, and looks for the runtime at a path that may be another's. The
	// invalid descriptor keeps it from that. Without the runtime, a pod's policies
	// apply as soon as the API server knows the pod's address.
	if err := os.Setenv("NRI_PLUGIN_SOCKET", "none"); err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	policy, namespace, pod := factory.Networking().V1().NetworkPolicies(), factory.Core().V1().Namespaces(), factory.Core().V1().Pods()
	controller, err := policies.NewController(client, policy, namespace, pod, nil, nil, nil, nil, policies.Config{
		QueueID: policyQueue,
		// A name that is no node's: the library then has no pod to write rules for.
		NodeName:    "none",
		NFTableName: unusedPolicyTable,
	})
	if err != nil {
		return fmt.Errorf("prepare the network policies: %w", err)
	}
	if err := ensurePolicyRules(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	defer factory.Shutdown()
	factory.StartWithContext(ctx)
	group.Go(func() error {
		if err := controller.Run(ctx); err != nil {
			return fmt.Errorf("enforce the network policies: %w", err)
		}
		if ctx.Err() == nil {
			return errors.New("the packet queue was closed")
		}
		return nil
	})
	group.Go(func() error {
		return serveReadiness(ctx, networkPolicySocket(), func() bool { return policyQueueOpen() })
	})
	return group.Wait()
}
