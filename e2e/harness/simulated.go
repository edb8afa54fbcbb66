package harness

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// SimulatedKey is the key of the simulated nodes' label and taint. The taint
	// keeps other pods away, because nothing really runs on these nodes.
	SimulatedKey = "binder-e2e/simulated"

	// simulatedPods has the addresses of pods on simulated nodes. The network is reserved for
	// benchmarks, so they lead nowhere.
	simulatedPods = "198.18.0.1/15"

	kwokStopTimeout = 10 * time.Second
)

// SimulateNodes starts kwok, which acts as the kubelet of simulated nodes. It
// stops when the test ends.
func (s *Suite) SimulateNodes(t testing.TB) {
	t.Helper()
	stop, err := s.StartSimulation()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		output := stop()
		if t.Failed() {
			t.Logf("output of kwok:\n%s", output)
		}
	})
}

// StartSimulation starts kwok, until stop is called, which returns kwok's output.
func (s *Suite) StartSimulation() (stop func() (output string), err error) {
	dir := cmp.Or(os.Getenv("BINDER_CLUSTER_DIR"), filepath.Join(s.root, ".cluster"))
	command := exec.Command(filepath.Join(dir, "bin", "kwok"),
		"--kubeconfig", s.Kube.kubeconfig,
		"--config", filepath.Join(s.root, "e2e", "testdata", "kwok.yaml"),
		"--cidr", simulatedPods,
		"--node-lease-duration-seconds", "40", // without a lease, the node counts as silent
		"--manage-nodes-with-label-selector", SimulatedKey)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	command.WaitDelay = kwokStopTimeout
	// Stop kwok if the test process is killed.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start kwok: %w", err)
	}
	return func() string {
		_ = command.Process.Signal(syscall.SIGTERM) // fails if kwok has exited
		kill := time.AfterFunc(kwokStopTimeout, func() { _ = command.Process.Kill() })
		defer kill.Stop()
		_ = command.Wait() // returns an error because of the signal
		return output.String()
	}, nil
}

// AddSimulatedNode adds a node and removes it when the test ends.
func (s *Suite) AddSimulatedNode(t testing.TB, name string) {
	t.Helper()
	if err := s.CreateSimulatedNode(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test's own context is already canceled.
		ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
		defer cancel()
		if err := s.DeleteSimulatedNode(ctx, name); err != nil {
			t.Error(err)
		}
	})
}

// CreateSimulatedNode adds a node, which kwok makes ready.
func (s *Suite) CreateSimulatedNode(ctx context.Context, name string) error {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{SimulatedKey: "true"}},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: SimulatedKey, Effect: corev1.TaintEffectNoSchedule}}},
	}
	if _, err := s.Kube.Client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("add node %s: %w", name, err)
	}
	return nil
}

// DeleteSimulatedNode removes a node, if it is there.
func (s *Suite) DeleteSimulatedNode(ctx context.Context, name string) error {
	err := s.Kube.Client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove node %s: %w", name, err)
	}
	return nil
}

// OnSimulatedNodes lets the pods of a template run on simulated nodes, and nowhere else.
func OnSimulatedNodes(template *corev1.PodTemplate) {
	template.Template.Spec.NodeSelector = map[string]string{SimulatedKey: "true"}
	template.Template.Spec.Tolerations = []corev1.Toleration{{Key: SimulatedKey, Operator: corev1.TolerationOpExists}}
}
