package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/prometheus/procfs"
)

// stopShims stops the container shims that are left if containerd could not stop
// its pods. containerd starts the shims, so there is no record of them. They are
// recognized by their program, the one in this cluster's bin directory, and by its
// argument that names their containerd.
func (n node) stopShims(ctx context.Context) error {
	procs, err := procfs.AllProcs()
	if err != nil {
		return fmt.Errorf("list the processes: %w", err)
	}
	program, err := os.Stat(n.bin("containerd-shim-runc-v2"))
	if err != nil {
		return nil // the program was never built
	}
	var errs []error
	for _, proc := range procs {
		running, err := os.Stat(fmt.Sprintf("/proc/%d/exe", proc.PID))
		if err != nil || !os.SameFile(program, running) {
			continue
		}
		if arguments, err := proc.CmdLine(); err != nil || !slices.Contains(arguments, n.socket()) {
			continue
		}
		shim, err := identify(proc.PID)
		if err != nil {
			continue // it has just exited
		}
		errs = append(errs, shim.stop(ctx, stopTimeout))
	}
	return errors.Join(errs...)
}
