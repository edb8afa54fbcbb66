package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// podsTimeout bounds how long containerd may take to stop all pods.
const podsTimeout = time.Minute

func downCommand(c *cluster) *cobra.Command {
	var all, second bool
	command := &cobra.Command{
		Use:   "down",
		Short: "Stop the cluster and undo its changes to the machine",
		Long: `Stop the cluster and undo its changes to the machine: processes, mounts,
network, packet filter, control groups, kernel settings. All objects in the
cluster are lost. The programs and images that were built are kept.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkMachine(); err != nil {
				return err
			}
			stop := c.down
			if second {
				stop = c.removeSecondNode
			}
			if err := c.withLock(cmd.Context(), func() error { return stop(cmd.Context()) }); err != nil {
				return err
			}
			if all {
				return os.RemoveAll(c.dir)
			}
			return nil
		},
	}
	command.Flags().BoolVar(&second, "second-node", false, "stop only the second node, and remove it from the cluster")
	command.Flags().BoolVar(&all, "all", false, "also remove the programs and images that were built, with the whole directory")
	command.MarkFlagsMutuallyExclusive("all", "second-node")
	return command
}

// down stops the cluster and undoes its changes. A failed step does not prevent
// the others. A second run does what is left.
func (c *cluster) down(ctx context.Context) error {
	if _, err := os.Stat(c.run()); errors.Is(err, os.ErrNotExist) {
		c.progress.say("the cluster is not running")
		return nil
	}
	c.progress.say("stopping the cluster")
	machine, err := c.readMachineState()
	if err != nil {
		return err
	}
	errs := []error{c.stopParts(ctx)}
	for _, n := range c.nodes() {
		errs = append(errs, n.stopShims(ctx), n.removeCgroups(ctx))
	}
	for _, step := range []func(context.Context) error{
		func(context.Context) error { return unmountBelow(c.run()) },
		func(context.Context) error { return removeBridge() },
		func(ctx context.Context) error { return c.removeTables(ctx, machine.Tables) },
		func(context.Context) error { return writeSettings(machine.Settings) },
	} {
		errs = append(errs, step(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("some steps failed, run down again: %w", err)
	}
	// Removed last, so that an interrupted down can be repeated.
	if err := errors.Join(os.RemoveAll(socketDir), os.RemoveAll(c.run()), removeFile(c.kubeconfig())); err != nil {
		return fmt.Errorf("remove the cluster's files: %w", err)
	}
	c.progress.say("the cluster is down; programs and images are kept in %s", c.dir)
	return nil
}

// stopParts stops the nodes, and then the other parts in parallel.
func (c *cluster) stopParts(ctx context.Context) error {
	var errs []error
	for _, n := range c.nodes() {
		errs = append(errs, c.stopNode(ctx, n))
	}
	var group errgroup.Group
	for _, p := range c.parts() {
		group.Go(func() error { return c.stopPart(ctx, p) })
	}
	return errors.Join(append(errs, group.Wait())...)
}

// stopNode stops the kubelet, then the pods, which the kubelet would start again, and
// then containerd.
func (c *cluster) stopNode(ctx context.Context, n node) error {
	return errors.Join(c.stopPart(ctx, n.kubelet()), c.removePods(ctx, n), c.stopPart(ctx, n.containerd()))
}

func (c *cluster) stopPart(ctx context.Context, p part) error {
	running, err := readRecord(c.record(p.name))
	if err != nil {
		return err
	}
	if err := running.stop(ctx, stopTimeout); err != nil {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	return removeFile(c.record(p.name))
}

// removePods stops a node's pods through containerd, which also removes their
// networks. If containerd is not running, the later steps of down clean up.
func (c *cluster) removePods(ctx context.Context, n node) error {
	running, err := readRecord(c.record(n.own("containerd")))
	if err != nil || !running.alive() {
		return err
	}
	runtime, err := n.dialRuntime()
	if err != nil {
		return err
	}
	defer runtime.close()
	limited, cancel := context.WithTimeout(ctx, podsTimeout)
	defer cancel()
	if err := runtime.removePods(limited); err != nil {
		c.progress.say("containerd did not stop all pods (%v): killing them", err)
	}
	return nil
}

// removeTables restores the packet filter. If nft is missing, the cluster has
// created no table.
func (c *cluster) removeTables(ctx context.Context, before []nftTable) error {
	if _, err := exec.LookPath("nft"); err != nil {
		return nil
	}
	return removeTables(ctx, before)
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
