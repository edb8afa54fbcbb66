package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// nodeSettings are the kernel settings that the cluster writes itself.
func nodeSettings() map[string]string {
	return map[string]string{
		"net/ipv4/ip_forward": "1", // for the pods
		// No address is made up for the link of each pod that starts: a browser on
		// this machine takes that for another network, and breaks off all that it
		// is loading (ERR_NETWORK_CHANGED).
		"net/ipv6/conf/default/addr_gen_mode": "1",
	}
}

// changedSettings are all that change while the cluster runs: its own, and what
// the kubelet wants on a node.
func changedSettings() []string {
	return append(slices.Sorted(maps.Keys(nodeSettings())),
		"net/bridge/bridge-nf-call-iptables",
		"vm/overcommit_memory",
		"vm/panic_on_oom",
		"kernel/panic",
		"kernel/panic_on_oops",
		"kernel/keys/root_maxkeys",
		"kernel/keys/root_maxbytes",
	)
}

// readSettings returns the values of the settings that this kernel has.
func readSettings(names []string) (map[string]string, error) {
	values := map[string]string{}
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the kernel setting %s: %w", name, err)
		}
		values[name] = strings.TrimSpace(string(data))
	}
	return values, nil
}

// writeSettings sets those that differ. Settings that the kernel has not are
// left out: a module that was there may have gone.
func writeSettings(values map[string]string) error {
	var errs []error
	for name, value := range values {
		path := filepath.Join("/proc/sys", name)
		now, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || strings.TrimSpace(string(now)) == value {
			continue
		}
		errs = append(errs, os.WriteFile(path, []byte(value), 0))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("write kernel settings: %w", err)
	}
	return nil
}
