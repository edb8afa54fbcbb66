package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// changedSettings are the kernel settings that the cluster changes: forwarding
// for the pods, the rest by the kubelet, to the values it wants on a node.
func changedSettings() []string {
	return []string{
		"net/ipv4/ip_forward",
		"net/bridge/bridge-nf-call-iptables",
		"vm/overcommit_memory",
		"vm/panic_on_oom",
		"kernel/panic",
		"kernel/panic_on_oops",
		"kernel/keys/root_maxkeys",
		"kernel/keys/root_maxbytes",
	}
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
