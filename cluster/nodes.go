package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// secondTaint is the taint of the second node. Without it, pods would run there whose
// images it does not have.
const secondTaint = "binder-project.org/second-node"

// node is a node of the cluster: a kubelet and a containerd. All nodes are this
// machine, and have its bridge, packet filter and kube-proxy in common.
type node struct {
	layout
	name       string // of the Node
	suffix     string // of the names of its parts, sockets and certificates
	port       int32  // the kubelet's
	healthPort int32
	cgroupRoot string // in which the kubelet puts its pods' groups; "" is the hierarchy's root
	taints     []corev1.Taint
}

func firstNode(l layout) node {
	return node{layout: l, name: firstName, port: 10250, healthPort: 10248}
}

func secondNode(l layout) node {
	return node{
		layout: l, name: secondName, suffix: "2", port: 10251, healthPort: 10247,
		// A kubelet kills the pods in its group that it does not know.
		cgroupRoot: "/binder-" + secondName,
		taints:     []corev1.Taint{{Key: secondTaint, Effect: corev1.TaintEffectNoSchedule}},
	}
}

// nodes returns the first node, and the second if it was added.
func (c *cluster) nodes() []node {
	nodes := []node{firstNode(c.layout)}
	if second := secondNode(c.layout); isDir(second.state()) {
		nodes = append(nodes, second)
	}
	return nodes
}

// own returns a name that no other node has.
func (n node) own(name string) string { return name + n.suffix }

// state returns a path in the directory of the node's files. down removes them.
func (n node) state(elem ...string) string {
	if n.suffix == "" {
		return n.run(elem...)
	}
	return n.run(append([]string{n.name}, elem...)...)
}

func (n node) config(name string) string { return n.state("config", name) }
func (n node) socket() string            { return filepath.Join(socketDir, n.own("containerd")+".sock") }

// images is containerd's directory of images.
func (n node) images() string {
	if n.suffix == "" {
		return n.content()
	}
	return n.state("images")
}

// podCgroup is the control group that holds the node's pods and nothing else.
func (n node) podCgroup() string {
	if n.cgroupRoot == "" {
		return "kubepods" // the kubelet's own choice
	}
	return n.cgroupRoot
}

// addSecondNode adds the second node to the running cluster, or starts what of it does
// not run.
func (c *cluster) addSecondNode(ctx context.Context) error {
	n := secondNode(c.layout)
	if !isFile(n.pki(n.own("kubelet") + ".crt")) {
		return fmt.Errorf("add %s: an earlier version of this command started the cluster: run down first", n.name)
	}
	if err := os.MkdirAll(n.state(), 0o755); err != nil {
		return fmt.Errorf("add %s: %w", n.name, err)
	}
	if err := c.prepare(ctx); err != nil {
		return err
	}
	return c.startParts(ctx)
}

// removeSecondNode stops the second node with its pods, and removes it from the
// cluster. A second run does what is left.
func (c *cluster) removeSecondNode(ctx context.Context) error {
	n := secondNode(c.layout)
	if !isDir(n.state()) {
		c.progress.say("there is no second node")
		return nil
	}
	c.progress.say("removing %s", n.name)
	err := errors.Join(c.stopNode(ctx, n), n.stopShims(ctx), unmountBelow(n.state()), n.removeCgroups(ctx), c.deleteNode(ctx, n))
	if err == nil {
		err = os.RemoveAll(n.state())
	}
	if err != nil {
		return fmt.Errorf("remove %s, run this again: %w", n.name, err)
	}
	return nil
}

// deleteNode deletes the Node. Kubernetes then forgets its pods.
func (c *cluster) deleteNode(ctx context.Context, n node) error {
	client, _, err := c.client()
	if err != nil {
		return err
	}
	if err := client.CoreV1().Nodes().Delete(ctx, n.name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete the Node: %w", err)
	}
	return nil
}
