package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// record identifies a process that was started. Process ids are reused, so a
// process matches the record only if its start time and boot match, too.
type record struct {
	PID         int       `json:"pid"`
	StartTicks  uint64    `json:"startTicks"` // since boot, as in /proc/<pid>/stat
	BootID      string    `json:"bootID"`
	Started     time.Time `json:"started"`
	Fingerprint string    `json:"fingerprint"` // hash of its command and configuration
}

// readRecord returns the record at path, or an empty record if there is none.
func readRecord(path string) (record, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, nil
	}
	if err != nil {
		return record{}, fmt.Errorf("read a process record: %w", err)
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, fmt.Errorf("parse the process record %s: %w", path, err)
	}
	return r, nil
}

// identify returns a record that distinguishes process pid from a later one with
// the same id.
func identify(pid int) (record, error) {
	boot, err := bootID()
	if err != nil {
		return record{}, err
	}
	proc, err := procfs.NewProc(pid)
	if err != nil {
		return record{}, fmt.Errorf("inspect process %d: %w", pid, err)
	}
	stat, err := proc.Stat()
	if err != nil {
		return record{}, fmt.Errorf("inspect process %d: %w", pid, err)
	}
	return record{PID: pid, StartTicks: stat.Starttime, BootID: boot}, nil
}

func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// alive reports whether the recorded process is running. A zombie counts as
// ended.
func (r record) alive() bool {
	if r.PID == 0 {
		return false
	}
	now, err := identify(r.PID)
	if err != nil || now.StartTicks != r.StartTicks || now.BootID != r.BootID {
		return false
	}
	proc, err := procfs.NewProc(r.PID)
	if err != nil {
		return false
	}
	stat, err := proc.Stat()
	return err == nil && stat.State != "Z" && stat.State != "X"
}

// startProcess starts a command in its own session, so that it outlives this
// process. It has no standard input, and its output goes to the file log.
// startProcess writes the process record to path and returns it.
func startProcess(cmd *exec.Cmd, log, path, fingerprint string) (record, error) {
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return record{}, fmt.Errorf("create the log directory: %w", err)
	}
	if err := os.Rename(log, log+".old"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return record{}, fmt.Errorf("rename the old log: %w", err)
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return record{}, fmt.Errorf("open a log: %w", err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// Descriptors that this process inherited, such as the lock of flock(1), would
	// stay open for as long as the part runs.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return record{}, fmt.Errorf("keep descriptors from %s: %w", cmd.Path, err)
	}
	if err := cmd.Start(); err != nil {
		return record{}, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	r, err := identify(cmd.Process.Pid)
	if err == nil {
		r.Started, r.Fingerprint = time.Now(), fingerprint
		err = writeJSON(path, r)
	}
	if err != nil {
		return record{}, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	return r, cmd.Process.Release()
}

// stop ends the recorded process. It sends SIGTERM, and SIGKILL if the process
// does not exit within timeout. It never signals another process.
func (r record) stop(ctx context.Context, timeout time.Duration) error {
	if !r.alive() {
		return nil
	}
	// FindProcess holds a handle to this process. If the id is reused between
	// the check and the signal, the signal does not reach the other process.
	process, err := os.FindProcess(r.PID)
	if err != nil {
		return fmt.Errorf("find process %d: %w", r.PID, err)
	}
	defer process.Release()
	if !r.alive() {
		return nil
	}
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("send %s to process %d: %w", signal, r.PID, err)
		}
		if err := poll(ctx, timeout, func(context.Context) error {
			if r.alive() {
				return errors.New("still running")
			}
			return nil
		}); err == nil {
			return nil
		}
	}
	return fmt.Errorf("process %d is still running after SIGKILL", r.PID)
}

// writeJSON replaces the file at path with the encoded value.
func writeJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return writeFile(path, append(data, '\n'), 0o644)
}

// writeFile replaces the file at path atomically: a reader sees the old or the
// new content, even if writeFile is interrupted.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	next := path + ".next"
	if err := os.WriteFile(next, data, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
