package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// containerID removes the runtime's scheme from an id such as containerd://0123….
func containerID(id string) string {
	if _, bare, found := strings.Cut(id, "://"); found {
		return bare
	}
	return id
}

// Kill kills a replica's processes with SIGKILL, as the out-of-memory killer does,
// so that they cannot clean up. The local cluster's containers are processes of
// this machine, and their control group has the container's id.
func (r Replica) Kill() error { return r.Signal(syscall.SIGKILL) }

// Signal sends a signal to a replica's processes.
func (r Replica) Signal(signal syscall.Signal) error {
	pids, err := r.processes()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("send %s to process %d of %s: %w", signal, pid, r.Name, err)
		}
	}
	return nil
}

// WriteFile writes a file in a replica's container, as root on this machine. The file must be
// in a volume that can be written to.
func (r Replica) WriteFile(path, content string) error {
	pids, err := r.processes()
	if err != nil {
		return err
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root%s", pids[0], path), []byte(content), 0o644); err != nil {
		return fmt.Errorf("write a file of %s: %w", r.Name, err)
	}
	return nil
}

// processes returns a replica's processes, of which there is at least one.
func (r Replica) processes() ([]int, error) {
	pids, err := processesOf(r.ContainerID)
	if err == nil && len(pids) == 0 {
		err = fmt.Errorf("no process of container %s of %s on this machine", r.ContainerID, r.Name)
	}
	return pids, err
}

func processesOf(container string) ([]int, error) {
	if len(container) < 32 { // could match more than one container
		return nil, fmt.Errorf("%q is not a container id", container)
	}
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, path := range groups {
		group, err := os.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ESRCH):
			continue // the process has exited
		case err != nil:
			return nil, fmt.Errorf("read a process's control group: %w", err)
		}
		if !strings.Contains(string(group), container) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, fmt.Errorf("read the process id of %s: %w", path, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}
