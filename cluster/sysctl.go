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

// nodeSettings returns the kernel settings that this command writes.
func nodeSettings() map[string]string {
	return map[string]string{
		"net/ipv4/ip_forward": "1", // for the pods
		bridgeFilterSetting:   "1", // for network policies between pods
		// Generate no IPv6 address for the link of each new pod. A browser on
		// this machine takes a new address for a network change and aborts its
		// requests (ERR_NETWORK_CHANGED).
		"net/ipv6/conf/default/addr_gen_mode": "1",
	}
}

// changedSettings returns all settings that change while the cluster runs:
// nodeSettings and those that the kubelet changes.
func changedSettings() []string {
	return append(slices.Sorted(maps.Keys(nodeSettings())),
		"vm/overcommit_memory",
		"vm/panic_on_oom",
		"kernel/panic",
		"kernel/panic_on_oops",
		"kernel/keys/root_maxkeys",
		"kernel/keys/root_maxbytes",
	)
}

// readSettings returns the values of the settings. It skips settings that this
// kernel does not have.
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

// writeSettings writes the settings that differ. It skips settings that the
// kernel does not have, because a kernel module may have been unloaded.
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
