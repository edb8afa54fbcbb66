package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nodeTimeout bounds the time until a node is ready once its parts are.
const nodeTimeout = 90 * time.Second

func upCommand(c *cluster) *cobra.Command {
	var second bool
	command := &cobra.Command{
		Use:   "up",
		Short: "Start the cluster and print the kubeconfig's path",
		Long: `Start the parts of the cluster that are not running and print the path of the
administrator's kubeconfig. The first run builds Kubernetes from its Go modules,
which takes about ten minutes on two cores.

With --second-node the cluster has a second node, until down. Only pods that
tolerate its taint run there, and load gives it images.`,
		Example: `  export KUBECONFIG=$(go -C cluster run . up)
  kubectl get nodes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkMachine(); err != nil {
				return err
			}
			err := c.withLock(cmd.Context(), func() error {
				if err := c.up(cmd.Context()); err != nil || !second {
					return err
				}
				return c.addSecondNode(cmd.Context())
			})
			if err != nil {
				return err
			}
			c.progress.say("the cluster is up")
			return printLine(cmd.OutOrStdout(), "%s", c.kubeconfig())
		},
	}
	command.Flags().BoolVar(&second, "second-node", false, "also add a second node")
	return command
}

// up starts the cluster. It changes only what is missing or out of date.
func (c *cluster) up(ctx context.Context) error {
	if err := c.checkOwner(); err != nil {
		return err
	}
	if err := c.ensurePackages(ctx, nodePackages()); err != nil {
		return err
	}
	if err := c.build(ctx); err != nil {
		return err
	}
	if err := c.prepare(ctx); err != nil {
		return err
	}
	return c.startParts(ctx)
}

// startParts starts the parts that are not running, and waits until all nodes are ready.
func (c *cluster) startParts(ctx context.Context) error {
	if err := c.startAll(ctx, c.firstParts()); err != nil {
		return err
	}
	if err := c.ensurePauseImage(ctx); err != nil {
		return err
	}
	if err := c.startAll(ctx, c.otherParts()); err != nil {
		return err
	}
	for _, n := range c.nodes() {
		if err := c.waitNode(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// prepare creates what the parts need. It first saves the machine's state, which
// down restores.
func (c *cluster) prepare(ctx context.Context) error {
	conflict, err := addressConflict()
	if err != nil {
		return err
	}
	if conflict != "" {
		return fmt.Errorf("the machine's network %s overlaps the cluster's networks (pods %s, Services %s)", conflict, podCIDR, serviceCIDR)
	}
	if err := c.writeOwner(); err != nil {
		return err
	}
	if err := c.ensureBridgeFilter(ctx); err != nil {
		return err
	}
	if err := c.saveMachineState(ctx); err != nil {
		return err
	}
	if err := writeSettings(nodeSettings()); err != nil {
		return err
	}
	if err := ensureBridge(); err != nil {
		return err
	}
	if err := ensureRules(ctx); err != nil {
		return err
	}
	if err := ensurePolicyRules(); err != nil {
		return err
	}
	if err := c.ensurePKI(); err != nil {
		return err
	}
	for _, n := range c.nodes() {
		if err := n.ensureCgroup(); err != nil {
			return err
		}
	}
	return errors.Join(c.writeKubeconfigs(), c.writeConfigs())
}

// startAll starts the parts that are not running and waits until all are ready.
func (c *cluster) startAll(ctx context.Context, parts []part) error {
	for _, p := range parts {
		started, err := c.start(ctx, p)
		if err != nil {
			return err
		}
		if started {
			c.progress.say("starting %s", p.name)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, p := range parts {
		group.Go(func() error { return c.waitReady(ctx, p) })
	}
	return group.Wait()
}

// waitNode waits until pods can be created on a node: it is ready, and the default
// service account exists.
func (c *cluster) waitNode(ctx context.Context, n node) error {
	client, _, err := c.client()
	if err != nil {
		return err
	}
	err = poll(ctx, nodeTimeout, func(ctx context.Context) error {
		node, err := client.CoreV1().Nodes().Get(ctx, n.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status != corev1.ConditionTrue {
				return fmt.Errorf("it is not ready: %s", condition.Message)
			}
		}
		_, err = client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	if err != nil {
		kubelet := n.own("kubelet")
		return fmt.Errorf("wait for %s: %w; end of the kubelet's log %s:\n%s", n.name, err, c.log(kubelet), c.logEnd(kubelet))
	}
	return nil
}
