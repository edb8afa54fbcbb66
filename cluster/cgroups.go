package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hierarchies returns the roots of the machine's control groups: one for cgroup v2,
// and one for each controller of cgroup v1.
func hierarchies() ([]string, error) {
	const root = "/sys/fs/cgroup"
	if isFile(filepath.Join(root, "cgroup.controllers")) {
		return []string{root}, nil
	}
	roots, err := filepath.Glob(root + "/*")
	if err != nil {
		return nil, fmt.Errorf("find the control groups: %w", err)
	}
	return slices.DeleteFunc(roots, func(path string) bool { return !isDir(path) }), nil
}

// ensureCgroup creates the control group in which a kubelet puts its pods' groups. The
// kubelet demands that it exists.
func (n node) ensureCgroup() error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range roots {
		if err := os.MkdirAll(filepath.Join(root, n.cgroupRoot), 0o755); err != nil {
			return fmt.Errorf("create the control group of %s: %w", n.name, err)
		}
	}
	return nil
}

// removeCgroups kills the processes left in the pods' control groups and removes
// the groups.
func (n node) removeCgroups(ctx context.Context) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	for i := range roots {
		roots[i] = filepath.Join(roots[i], n.podCgroup())
	}
	return poll(ctx, 10*time.Second, func(context.Context) error {
		var errs []error
		for _, root := range roots {
			errs = append(errs, removeCgroup(root))
		}
		return errors.Join(errs...)
	})
}

// removeCgroup removes a group and its subgroups, innermost first. It fails until
// the killed processes have exited.
func removeCgroup(root string) error {
	var groups []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			groups = append(groups, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list the control groups in %s: %w", root, err)
	}
	for _, group := range slices.Backward(groups) {
		if err := killGroup(group); err != nil {
			return err
		}
		if err := os.Remove(group); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the control group: %w", err)
		}
	}
	return nil
}

func killGroup(group string) error {
	data, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list the processes of a control group: %w", err)
	}
	for field := range strings.FieldsSeq(string(data)) {
		pid, err := strconv.Atoi(field)
		if err != nil || pid <= 1 {
			continue
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d of a pod: %w", pid, err)
		}
	}
	return nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
