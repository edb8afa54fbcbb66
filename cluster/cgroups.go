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

// podCgroup is the control group under which the kubelet puts all pods.
const podCgroup = "kubepods"

// removeCgroups kills the processes left in the pods' control groups and removes
// the groups. It handles cgroup v1 and v2.
func removeCgroups(ctx context.Context) error {
	roots, err := filepath.Glob("/sys/fs/cgroup/*/" + podCgroup)
	if err != nil {
		return fmt.Errorf("find the pods' control groups: %w", err)
	}
	if unified := "/sys/fs/cgroup/" + podCgroup; isDir(unified) { // cgroup v2
		roots = append(roots, unified)
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
