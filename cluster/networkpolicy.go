package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	policies "sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
)

// policyQueue is the number of the packet queue (NFQUEUE) on which the kernel asks
// whether network policies allow a connection.
const policyQueue = 24460

// networkPolicy is the part that enforces NetworkPolicies. It runs this command.
func (c *cluster) networkPolicy() part {
	return part{
		name:    "networkpolicy",
		command: []string{c.bin("cluster"), "networkpolicy", "--dir=" + c.dir},
		configs: []string{c.kubeconfig()},
		ready:   func(context.Context) error { return checkPolicyEnforcement() },
	}
}

func networkPolicyCommand(c *cluster) *cobra.Command {
	return &cobra.Command{
		Use:   "networkpolicy",
		Short: "Enforce NetworkPolicies (up starts this)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.agentClient()
			if err != nil {
				return err
			}
			return runNetworkPolicy(cmd.Context(), client)
		},
	}
}

// runNetworkPolicy decides about the pods' new connections until ctx is done. If it
// ends, the kernel drops them: ensurePolicyRules is up's, and stays in force.
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
	ctx, cancel := context.WithCancel(ctx)
	defer factory.Shutdown()
	defer cancel() // Shutdown waits for it
	factory.StartWithContext(ctx)
	if err := controller.Run(ctx); err != nil {
		return fmt.Errorf("enforce the network policies: %w (the kernel needs NETFILTER_NETLINK_QUEUE)", err)
	}
	if ctx.Err() == nil {
		return errors.New("the packet queue was closed")
	}
	return nil
}
