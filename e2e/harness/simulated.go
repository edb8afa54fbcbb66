package harness

import (
	"bytes"
	"cmp"
	"context"
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

	kwokStopTimeout = 10 * time.Second
)

// SimulateNodes starts kwok, which acts as the kubelet of simulated nodes. It
// stops when the test ends.
func (s *Suite) SimulateNodes(t testing.TB) {
	t.Helper()
	dir := cmp.Or(os.Getenv("BINDER_CLUSTER_DIR"), filepath.Join(s.root, ".cluster"))
	command := exec.Command(filepath.Join(dir, "bin", "kwok"),
		"--kubeconfig", s.Kube.kubeconfig,
		"--config", filepath.Join(s.root, "e2e", "testdata", "kwok.yaml"),
		"--manage-nodes-with-label-selector", SimulatedKey)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	command.WaitDelay = kwokStopTimeout
	// Stop kwok if the test process is killed.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := command.Start(); err != nil {
		t.Fatalf("start kwok: %v", err)
	}
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM) // fails if kwok has exited
		kill := time.AfterFunc(kwokStopTimeout, func() { _ = command.Process.Kill() })
		defer kill.Stop()
		_ = command.Wait() // returns an error because of the signal
		if t.Failed() {
			t.Logf("output of kwok:\n%s", &output)
		}
	})
}

// AddSimulatedNode adds a node and removes it when the test ends.
func (s *Suite) AddSimulatedNode(t testing.TB, name string) {
	t.Helper()
	nodes := s.Kube.Client.CoreV1().Nodes()
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{SimulatedKey: "true"}},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: SimulatedKey, Effect: corev1.TaintEffectNoSchedule}}},
	}
	if _, err := nodes.Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatalf("add node %s: %v", name, err)
	}
	t.Cleanup(func() {
		// The test's own context is already canceled.
		ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
		defer cancel()
		if err := nodes.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("remove node %s: %v", name, err)
		}
	})
}
