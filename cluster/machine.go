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

// checkMachine says in one sentence why there can be no cluster here, if so.
func checkMachine() error {
	if runtime.GOOS != "linux" {
		return fmt.Errorf("the cluster's node is this machine itself, which must be Linux and is %s", runtime.GOOS)
	}
	if os.Geteuid() != 0 {
		return errors.New("the cluster's node needs root: run this as root, or by sudo")
	}
	return nil
}

// ownerFile names the directory of the cluster that has the machine: bridge,
// addresses and ports are there only once.
func ownerFile() string { return filepath.Join(socketDir, "owner") }

// own notes that the machine is this cluster's from now on.
func (c *cluster) own() error { return writeFile(ownerFile(), []byte(c.dir+"\n"), 0o644) }

// checkOwner fails if another checkout's cluster has the machine.
func (c *cluster) checkOwner() error {
	data, err := os.ReadFile(ownerFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find out whose cluster runs here: %w", err)
	}
	owner := strings.TrimSpace(string(data))
	if owner == c.dir || !(&cluster{layout: layout{root: c.root, dir: owner}}).anyAlive() {
		return nil
	}
	return fmt.Errorf("a machine has one cluster, and this one has that of %[1]s: take it down first (go -C %[2]s run . down --dir %[1]s)",
		owner, c.source())
}

// anyAlive tells whether a part of the cluster runs.
func (c *cluster) anyAlive() bool {
	return slices.ContainsFunc(c.parts(), func(p part) bool {
		running, err := readRecord(c.record(p.name))
		return err == nil && running.alive()
	})
}

// machineState is what the machine was like before the cluster, for down.
type machineState struct {
	Settings map[string]string `json:"settings"`
	Tables   []nftTable        `json:"tables"` // of the packet filter
}

func (c *cluster) machineFile() string { return c.run("machine.json") }

// noteMachine writes down the machine's state, unless that was done when the
// cluster was first started.
func (c *cluster) noteMachine(ctx context.Context) error {
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

// readMachine returns the state that was noted; empty if none was.
func (c *cluster) readMachine() (machineState, error) {
	var state machineState
	data, err := os.ReadFile(c.machineFile())
	if errors.Is(err, fs.ErrNotExist) {
		return state, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &state)
	}
	if err != nil {
		return state, fmt.Errorf("read what the machine was like: %w", err)
	}
	return state, nil
}
