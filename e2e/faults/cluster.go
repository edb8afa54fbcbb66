package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Cluster is the local cluster's folder.
type Cluster struct{ Dir string }

// Stop ends a part of the cluster with SIGKILL, as a crash does.
func (c Cluster) Stop(part string) error { return c.signal(part, syscall.SIGKILL) }

// Pause stops a part without ending it: its connections stay open, and nobody answers.
func (c Cluster) Pause(part string) error { return c.signal(part, syscall.SIGSTOP) }

// Continue undoes Pause.
func (c Cluster) Continue(part string) error { return c.signal(part, syscall.SIGCONT) }

func (c Cluster) signal(part string, signal syscall.Signal) error {
	data, err := os.ReadFile(filepath.Join(c.Dir, "run", "parts", part+".json"))
	if err != nil {
		return fmt.Errorf("find the process of %s: %w", part, err)
	}
	var record struct {
		PID int `json:"pid"`
	}
	if err := json.Unmarshal(data, &record); err != nil {
		return fmt.Errorf("read the process of %s: %w", part, err)
	}
	if record.PID <= 1 {
		return fmt.Errorf("%s has no process", part)
	}
	if err := syscall.Kill(record.PID, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %s to %s: %w", signal, part, err)
	}
	return nil
}

// Start starts every part that does not run, and waits until all are ready.
func (c Cluster) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, filepath.Join(c.Dir, "bin", "cluster"), "up", "--dir", c.Dir)
	command.Dir = filepath.Dir(c.Dir) // the clone that it belongs to
	command.WaitDelay = 10 * time.Second
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("start the cluster's parts: %w\n%s", err, output)
	}
	return nil
}
