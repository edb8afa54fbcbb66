package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/prometheus/procfs"
)

// stopShims ends the container shims that are left when containerd could not
// end its pods. containerd starts them, so no record of ours has their numbers;
// what tells them is that they run the very program in this cluster's bin.
func (c *cluster) stopShims(ctx context.Context) error {
	procs, err := procfs.AllProcs()
	if err != nil {
		return fmt.Errorf("list the processes: %w", err)
	}
	program, err := os.Stat(c.bin("containerd-shim-runc-v2"))
	if err != nil {
		return nil // never built, never run
	}
	var errs []error
	for _, proc := range procs {
		running, err := os.Stat(fmt.Sprintf("/proc/%d/exe", proc.PID))
		if err != nil || !os.SameFile(program, running) {
			continue
		}
		shim, err := identify(proc.PID)
		if err != nil {
			continue // it has just ended
		}
		errs = append(errs, shim.stop(ctx, stopPatience))
	}
	return errors.Join(errs...)
}
