package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"
)

// containerd runs the containers. The first node's images survive down; its other
// files do not.
func (n node) containerd() part {
	config := n.config("containerd.toml")
	return part{
		name:    n.own("containerd"),
		command: []string{n.bin("containerd"), "--config", config},
		configs: []string{config},
		ready: func(ctx context.Context) error {
			runtime, err := n.dialRuntime()
			if err != nil {
				return err
			}
			defer runtime.close()
			return runtime.ready(ctx)
		},
	}
}

// table is a table of a TOML document.
type table = map[string]any

// containerdConfig returns containerd's configuration.
func (n node) containerdConfig() ([]byte, error) {
	shim := "io.containerd.runc.v2"
	config := table{
		"version": 3,
		"root":    n.images(),
		"state":   n.state("containerd"),
		"grpc":    table{"address": n.socket()},
		// Unused plugins that would leave files elsewhere on the machine.
		"disabled_plugins": []string{
			"io.containerd.nri.v1.nri",
			"io.containerd.internal.v1.opt",
			"io.containerd.snapshotter.v1.blockfile",
			"io.containerd.snapshotter.v1.btrfs",
			"io.containerd.snapshotter.v1.devmapper",
			"io.containerd.snapshotter.v1.erofs",
			"io.containerd.snapshotter.v1.zfs",
		},
		"plugins": table{
			"io.containerd.shim.v1.manager": table{"socket_dir": filepath.Join(socketDir, n.own("shim"))},
			"io.containerd.cri.v1.images": table{
				"pinned_images": table{"sandbox": pauseImage},
			},
			"io.containerd.cri.v1.runtime": table{
				// No container starts without this where root lacks
				// CAP_SYS_RESOURCE, as in many containers and small virtual
				// machines.
				"restrict_oom_score_adj":              true,
				"netns_mounts_under_state_dir":        true,
				"tolerate_missing_hugetlb_controller": true,
				"cni": table{
					"bin_dirs": []string{n.cniBin()},
					"conf_dir": n.layout.config("cni"),
				},
				"containerd": table{
					"runtimes": table{"runc": table{
						"runtime_type": shim,
						"runtime_path": n.bin("containerd-shim-runc-v2"),
						"options":      table{"Root": n.state("runc"), "SystemdCgroup": false},
					}},
				},
			},
		},
	}
	data, err := toml.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("encode containerd's configuration: %w", err)
	}
	return data, nil
}

// cniConfig returns the configuration of the pods' network: a bridge and addresses
// from podCIDR. All nodes use it, so that no address is given twice. The packet
// filter's rules are those of ensureRules.
func (c *cluster) cniConfig() ([]byte, error) {
	type object = map[string]any
	config := object{
		"cniVersion": "1.0.0",
		"name":       "binder",
		"plugins": []object{
			{
				"type":        "bridge",
				"bridge":      bridgeName,
				"isGateway":   true,
				"hairpinMode": true,
				"ipam": object{
					"type":    "host-local",
					"ranges":  [][]object{{{"subnet": podCIDR, "gateway": bridgeAddress}}},
					"routes":  []object{{"dst": "0.0.0.0/0"}},
					"dataDir": c.run("ipam"),
				},
			},
		},
	}
	data, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the pods' network configuration: %w", err)
	}
	return data, nil
}
