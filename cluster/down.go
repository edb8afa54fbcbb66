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

// podsPatience bounds how long containerd may take to end all pods.
const podsPatience = time.Minute

func downCommand(c *cluster) *cobra.Command {
	var all bool
	command := &cobra.Command{
		Use:   "down",
		Short: "Stop the cluster and take back what it changed on the machine",
		Long: `Stop the cluster and take back what it changed on the machine: processes,
mounts, network, packet filter, control groups, kernel settings. Every object in
the cluster is lost. What was built, programs and images, is kept for next time.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkMachine(); err != nil {
				return err
			}
			if err := c.locked(cmd.Context(), func() error { return c.down(cmd.Context()) }); err != nil {
				return err
			}
			if all {
				return os.RemoveAll(c.dir)
			}
			return nil
		},
	}
	command.Flags().BoolVar(&all, "all", false, "remove what was built as well: the whole directory")
	return command
}

// down stops everything and takes everything back. A step that fails does not
// keep the others from being done; run again, it does what is left.
func (c *cluster) down(ctx context.Context) error {
	if _, err := os.Stat(c.run()); errors.Is(err, os.ErrNotExist) {
		c.progress.say("the cluster is not running")
		return nil
	}
	c.progress.say("stopping the cluster")
	machine, err := c.readMachine()
	if err != nil {
		return err
	}
	errs := []error{c.stopParts(ctx)}
	for _, step := range []func(context.Context) error{
		c.stopShims,
		func(context.Context) error { return unmountBelow(c.run()) },
		removeCgroups,
		func(context.Context) error { return removeBridge() },
		func(ctx context.Context) error { return c.removeTables(ctx, machine.Tables) },
		func(context.Context) error { return writeSettings(machine.Settings) },
	} {
		errs = append(errs, step(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("what is left goes with another down: %w", err)
	}
	// Last, so that an interrupted down can be repeated.
	if err := errors.Join(os.RemoveAll(socketDir), os.RemoveAll(c.run()), removeFile(c.kubeconfig())); err != nil {
		return fmt.Errorf("remove the cluster's files: %w", err)
	}
	c.progress.say("the cluster is down; what was built is kept in %s", c.dir)
	return nil
}

// stopParts stops the kubelet before the pods that it would start again, those
// before containerd, and what remains at the same time.
func (c *cluster) stopParts(ctx context.Context) error {
	kubelet, runtime := c.kubelet(), c.containerd()
	errs := []error{c.stopPart(ctx, kubelet), c.removePods(ctx), c.stopPart(ctx, runtime)}
	var group errgroup.Group
	for _, p := range c.parts() {
		if p.name != kubelet.name && p.name != runtime.name {
			group.Go(func() error { return c.stopPart(ctx, p) })
		}
	}
	return errors.Join(append(errs, group.Wait())...)
}

func (c *cluster) stopPart(ctx context.Context, p part) error {
	running, err := readRecord(c.record(p.name))
	if err != nil {
		return err
	}
	if err := running.stop(ctx, stopPatience); err != nil {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	return removeFile(c.record(p.name))
}

// removePods ends the pods through containerd, so that their networks go with
// them. Without containerd, the steps that follow find what is left of them.
func (c *cluster) removePods(ctx context.Context) error {
	running, err := readRecord(c.record("containerd"))
	if err != nil || !running.alive() {
		return err
	}
	runtime, err := dialRuntime()
	if err != nil {
		return err
	}
	defer runtime.close()
	limited, cancel := context.WithTimeout(ctx, podsPatience)
	defer cancel()
	if err := runtime.removePods(limited); err != nil {
		c.progress.say("containerd did not end all pods (%v): ending them by force", err)
	}
	return nil
}

// removeTables leaves the packet filter as it was. Where nft is missing, no
// table was made.
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
