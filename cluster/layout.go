package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Names and addresses of the nodes. They are fixed because a machine has at most
// one cluster.
const (
	firstName     = "node1"
	secondName    = "node2"
	bridgeName    = "binder0"
	bridgeAddress = "10.244.0.1"
	podCIDR       = "10.244.0.0/16"
	serviceCIDR   = "10.96.0.0/16"
	apiService    = "10.96.0.1" // the kubernetes Service: the first address of serviceCIDR
	apiPort       = 6443
	apiURL        = "https://127.0.0.1:6443"
)

// socketDir holds the sockets, whose paths must be short, and the owner file,
// which names the running cluster's directory.
const socketDir = "/run/binder-cluster"

// layout holds the locations of the cluster's files.
type layout struct {
	root string // the repository's root
	dir  string // the cluster's directory, absolute
}

// findLayout returns the layout of the repository that contains the working
// directory. If dir is empty, the cluster's directory is .cluster in the
// repository's root.
func findLayout(dir string) (layout, error) {
	wd, err := os.Getwd()
	if err != nil {
		return layout{}, fmt.Errorf("find the working directory: %w", err)
	}
	root := wd
	for !isFile(filepath.Join(root, "cluster", "tools", "kubernetes", "go.mod")) {
		parent := filepath.Dir(root)
		if parent == root {
			return layout{}, errors.New("run this in the repository: go -C cluster run . <command>")
		}
		root = parent
	}
	if dir == "" {
		dir = filepath.Join(root, ".cluster")
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return layout{}, fmt.Errorf("find the cluster's directory: %w", err)
	}
	return layout{root: root, dir: dir}, nil
}

func (l layout) source(elem ...string) string {
	return filepath.Join(append([]string{l.root, "cluster"}, elem...)...)
}

func (l layout) bin(name string) string   { return filepath.Join(l.dir, "bin", name) }
func (l layout) cniBin() string           { return filepath.Join(l.dir, "cni") }
func (l layout) image(name string) string { return filepath.Join(l.dir, "images", name+".tar") }
func (l layout) kubeconfig() string       { return filepath.Join(l.dir, "kubeconfig") }
func (l layout) lock() string             { return filepath.Join(l.dir, "lock") }

// run is the directory of the running cluster's files. down removes it.
func (l layout) run(elem ...string) string {
	return filepath.Join(append([]string{l.dir, "run"}, elem...)...)
}

func (l layout) pki(name string) string    { return l.run("pki", name) }
func (l layout) config(name string) string { return l.run("config", name) }
func (l layout) log(part string) string    { return l.run("logs", part+".log") }
func (l layout) record(part string) string { return l.run("parts", part+".json") }

// content is the first node's image store. Like bin and images, it survives down.
func (l layout) content() string { return filepath.Join(l.dir, "containerd") }

func loadBalancerSocket() string { return filepath.Join(socketDir, "loadbalancer.sock") }

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
