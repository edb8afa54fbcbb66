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

// Slow lets a part run for a share of the time only, in turns: stopped and running are the
// lengths of a turn's halves. It returns a function that waits until all turns are over. The
// part then runs, even if the suite has ended meanwhile: a process of its own takes the turns.
func (c Cluster) Slow(part string, stopped, running time.Duration, turns int) (wait func() error, err error) {
	pid, err := c.process(part)
	if err != nil {
		return nil, err
	}
	const script = `trap 'kill -CONT "$1"' EXIT
for _ in $(seq "$4"); do kill -STOP "$1"; sleep "$2"; kill -CONT "$1"; sleep "$3"; done`
	command := exec.Command("bash", "-ec", script, "slow", fmt.Sprint(pid), fmt.Sprint(stopped.Seconds()), fmt.Sprint(running.Seconds()), fmt.Sprint(turns))
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("make %s slow: %w", part, err)
	}
	return command.Wait, nil
}

func (c Cluster) signal(part string, signal syscall.Signal) error {
	pid, err := c.process(part)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %s to %s: %w", signal, part, err)
	}
	return nil
}

// process returns the id of a part's process.
func (c Cluster) process(part string) (pid int, err error) {
	data, err := os.ReadFile(filepath.Join(c.Dir, "run", "parts", part+".json"))
	if err != nil {
		return 0, fmt.Errorf("find the process of %s: %w", part, err)
	}
	var record struct {
		PID int `json:"pid"`
	}
	if err := json.Unmarshal(data, &record); err != nil {
		return 0, fmt.Errorf("read the process of %s: %w", part, err)
	}
	if record.PID <= 1 {
		return 0, fmt.Errorf("%s has no process", part)
	}
	return record.PID, nil
}

// Start starts every part that does not run, and waits until all are ready.
func (c Cluster) Start(ctx context.Context) error { return c.command(ctx, "up") }

// command runs a command of the local cluster.
func (c Cluster) command(ctx context.Context, arguments ...string) error {
	return c.program(ctx, "cluster", append(arguments, "--dir", c.Dir)...)
}

// program runs one of the local cluster's programs.
func (c Cluster) program(ctx context.Context, name string, arguments ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, filepath.Join(c.Dir, "bin", name), arguments...)
	command.Dir = filepath.Dir(c.Dir) // the clone that it belongs to
	command.WaitDelay = 10 * time.Second
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, arguments[0], err, output)
	}
	return nil
}
