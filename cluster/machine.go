package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// checkMachine returns an error if this machine cannot run a cluster.
func checkMachine() error {
	if runtime.GOOS != "linux" {
		return fmt.Errorf("the cluster runs on Linux only, and this machine runs %s", runtime.GOOS)
	}
	if os.Geteuid() != 0 {
		return errors.New("the cluster needs root: run this as root or with sudo")
	}
	return nil
}

// ownerFile holds the directory of the cluster that runs on this machine. The
// bridge, addresses and ports exist once per machine.
func ownerFile() string { return filepath.Join(socketDir, "owner") }

// writeOwner records that this cluster runs on the machine.
func (c *cluster) writeOwner() error { return writeFile(ownerFile(), []byte(c.dir+"\n"), 0o644) }

// checkOwner fails if another checkout's cluster runs on the machine.
func (c *cluster) checkOwner() error {
	data, err := os.ReadFile(ownerFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the owner of the running cluster: %w", err)
	}
	owner := strings.TrimSpace(string(data))
	if owner == c.dir || !(&cluster{layout: layout{root: c.root, dir: owner}}).anyAlive() {
		return nil
	}
	return fmt.Errorf("the cluster of %[1]s already runs on this machine: stop it first (go -C %[2]s run . down --dir %[1]s)",
		owner, c.source())
}

// anyAlive reports whether a part of the cluster is running.
func (c *cluster) anyAlive() bool {
	return slices.ContainsFunc(c.parts(), func(p part) bool {
		running, err := readRecord(c.record(p.name))
		return err == nil && running.alive()
	})
}

// machineState is the machine's state before the cluster started. down restores
// it.
type machineState struct {
	Settings map[string]string `json:"settings"`
	Tables   []nftTable        `json:"tables"` // packet filter tables
}

func (c *cluster) machineFile() string { return c.run("machine.json") }

// saveMachineState saves the machine's state, unless an earlier start has saved
// it.
func (c *cluster) saveMachineState(ctx context.Context) error {
	if isFile(c.machineFile()) {
		return nil
	}
	settings, err := readSettings(changedSettings())
	if err != nil {
		return err
	}
	tables, err := nftTables(ctx)
	if err != nil {
		return err
	}
	return writeJSON(c.machineFile(), machineState{Settings: settings, Tables: tables})
}

// readMachineState returns the saved state, or an empty one if there is none.
func (c *cluster) readMachineState() (machineState, error) {
	var state machineState
	data, err := os.ReadFile(c.machineFile())
	if errors.Is(err, fs.ErrNotExist) {
		return state, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &state)
	}
	if err != nil {
		return state, fmt.Errorf("read the machine's saved state: %w", err)
	}
	return state, nil
}
