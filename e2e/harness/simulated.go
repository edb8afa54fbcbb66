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
	// SimulatedKey is the label of simulated nodes, and the taint that keeps away
	// from them whatever does not ask for them: nothing runs there.
	SimulatedKey = "binder-e2e/simulated"

	kwokStopTimeout = 10 * time.Second
)

// SimulateNodes starts kwok, which plays the kubelet of simulated nodes until
// the test ends.
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
	// If the test is killed, so is kwok.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := command.Start(); err != nil {
		t.Fatalf("start kwok: %v", err)
	}
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM) // gone already is what Wait tells
		kill := time.AfterFunc(kwokStopTimeout, func() { _ = command.Process.Kill() })
		defer kill.Stop()
		_ = command.Wait() // ended by the signal
		if t.Failed() {
			t.Logf("kwok said:\n%s", &output)
		}
	})
}

// AddSimulatedNode lets a node join, which leaves when the test ends.
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
		// The test's own context is over by now.
		ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
		defer cancel()
		if err := nodes.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("remove node %s: %v", name, err)
		}
	})
}

// CopyTemplate makes a template like another, with changes made to it. It is
// deleted when the test ends, and what was preloaded of it is waited for.
func (s *Suite) CopyTemplate(t testing.TB, from, name string, changes ...func(*corev1.PodTemplate)) {
	t.Helper()
	templates := s.Kube.Client.CoreV1().PodTemplates(InstancesNamespace)
	original, err := templates.Get(t.Context(), from, metav1.GetOptions{})
	if err != nil {
		t.Fatalf("get template %s: %v", from, err)
	}
	template := &corev1.PodTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: original.Annotations},
		Template:   original.Template,
	}
	for _, change := range changes {
		change(template)
	}
	if _, err := templates.Create(t.Context(), template, metav1.CreateOptions{}); err != nil {
		t.Fatalf("create template %s: %v", name, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
		defer cancel()
		if err := templates.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("delete template %s: %v", name, err)
		}
		if err := poll(ctx, cleanupTimeout, func(ctx context.Context) error { return s.NothingPreloaded(ctx, name) }); err != nil {
			t.Errorf("preload of %s: %v", name, err)
		}
	})
}

// ChangeTemplate changes a template in place.
func (s *Suite) ChangeTemplate(t testing.TB, name string, change func(*corev1.PodTemplate)) {
	t.Helper()
	templates := s.Kube.Client.CoreV1().PodTemplates(InstancesNamespace)
	template, err := templates.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatalf("get template %s: %v", name, err)
	}
	change(template)
	if _, err := templates.Update(t.Context(), template, metav1.UpdateOptions{}); err != nil {
		t.Fatalf("change template %s: %v", name, err)
	}
}

// NothingPreloaded returns nil when there is no DaemonSet of a template, and no
// pod of one.
func (s *Suite) NothingPreloaded(ctx context.Context, template string) error {
	of := metav1.ListOptions{LabelSelector: "binder-project.org/preload=true,binder-project.org/template=" + template}
	sets, err := s.Kube.Client.AppsV1().DaemonSets(InstancesNamespace).List(ctx, of)
	if err != nil {
		return err
	}
	pods, err := s.Kube.Client.CoreV1().Pods(InstancesNamespace).List(ctx, of)
	if err != nil {
		return err
	}
	if len(sets.Items)+len(pods.Items) > 0 {
		return fmt.Errorf("there are still %d DaemonSets and %d pods", len(sets.Items), len(pods.Items))
	}
	return nil
}
