package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestNodesShareNothing checks that the second node has its own of everything that two
// kubelets or two containerds cannot share, and that only it has a taint.
func TestNodesShareNothing(t *testing.T) {
	l := layout{root: "..", dir: t.TempDir()}
	first, second := firstNode(l), secondNode(l)
	for what, of := range map[string]func(node) string{
		"name":          func(n node) string { return n.name },
		"kubelet":       func(n node) string { return n.kubelet().name },
		"containerd":    func(n node) string { return n.containerd().name },
		"socket":        node.socket,
		"images":        node.images,
		"control group": node.podCgroup,
		"state":         func(n node) string { return n.state("kubelet") },
		"configuration": func(n node) string { return n.config("kubelet.yaml") },
		"certificate":   func(n node) string { return n.own("kubelet") },
	} {
		if of(first) == of(second) {
			t.Errorf("both nodes have the %s %q", what, of(first))
		}
	}
	for _, port := range second.kubelet().ports {
		if slices.Contains(first.kubelet().ports, port) {
			t.Errorf("both kubelets listen on port %d", port)
		}
	}
	for _, n := range []node{first, second} {
		config, err := n.kubeletConfig()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := strings.Contains(string(config), secondTaint), n.name == secondName; got != want {
			t.Errorf("%s registers with the taint: %t, want %t", n.name, got, want)
		}
	}
}

// TestSecondNodeHasParts checks that the second node's parts are the cluster's once it was
// added.
func TestSecondNodeHasParts(t *testing.T) {
	c := testCluster(t)
	if names := c.partNames(); slices.Contains(names, "kubelet2") || !slices.Contains(names, "kubelet") {
		t.Errorf("before: %q", names)
	}
	if err := os.MkdirAll(secondNode(c.layout).state(), 0o755); err != nil {
		t.Fatal(err)
	}
	if names := c.partNames(); !slices.Contains(names, "kubelet2") || !slices.Contains(names, "containerd2") {
		t.Errorf("after: %q", names)
	}
}

// TestSecondNodeNeedsCertificates checks that a cluster that an earlier version has started,
// which made none for the second node, is not changed.
func TestSecondNodeNeedsCertificates(t *testing.T) {
	c := testCluster(t)
	if err := c.addSecondNode(t.Context()); err == nil || !strings.Contains(err.Error(), "run down first") {
		t.Errorf("got %v", err)
	}
	if nodes := c.nodes(); len(nodes) != 1 {
		t.Errorf("the cluster has %d nodes", len(nodes))
	}
}
