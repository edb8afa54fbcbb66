//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestComponentsAreAccepted lets the API server check manifests with every component, and
// the chart, with the definitions of the types that it does not know by itself. The Go types
// of the Prometheus operator come without definitions, so its objects are left out.
func TestComponentsAreAccepted(t *testing.T) {
	installGatewayAPI(t, "gateways", "httproutes")
	installDefinitions(t, "github.com/cert-manager/cert-manager", "deploy/crds/cert-manager.io_certificates.yaml")
	for name, source := range sources(t) {
		t.Run(name, func(t *testing.T) {
			objects := slices.DeleteFunc(source.render(t), func(object *unstructured.Unstructured) bool {
				return object.GroupVersionKind().Group == monitoring.GroupName
			})
			require.NoError(t, suite.Kube.DryRun(t.Context(), inTestNamespaces(t, objects)))
		})
	}
}

// installDefinitions installs types from files of the modules with their Go types, until the
// test ends.
func installDefinitions(t *testing.T, module string, files ...string) {
	t.Helper()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	require.NoError(t, err)
	var definitions []*unstructured.Unstructured
	for _, file := range files {
		data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), file))
		require.NoError(t, err)
		definition := &unstructured.Unstructured{}
		require.NoError(t, yaml.Unmarshal(data, &definition.Object))
		definitions = append(definitions, definition)
	}
	suite.Kube.InstallCRDs(t, definitions)
}

// installGatewayAPI installs types of the Gateway API.
func installGatewayAPI(t *testing.T, resources ...string) {
	t.Helper()
	var files []string
	for _, resource := range resources {
		files = append(files, "config/crd/standard/gateway.networking.k8s.io_"+resource+".yaml")
	}
	installDefinitions(t, "sigs.k8s.io/gateway-api", files...)
}

// inTestNamespaces moves objects to the namespaces of the tests, which exist.
func inTestNamespaces(t *testing.T, objects []*unstructured.Unstructured) []*unstructured.Unstructured {
	t.Helper()
	for _, object := range objects {
		switch {
		case object.GetNamespace() == "":
		case strings.HasSuffix(object.GetNamespace(), "-instances"):
			object.SetNamespace(harness.InstancesNamespace)
		default:
			object.SetNamespace(harness.Namespace)
		}
	}
	return objects
}

// TestInstancesTakeTheRoomOfPlaceholders fills the node with a placeholder of the component
// headroom. A pod with the class of its instances takes the place, and the placeholder then
// waits, for which a cluster autoscaler adds a node. It runs alone, because no other pod
// fits on the node.
func TestInstancesTakeTheRoomOfPlaceholders(t *testing.T) {
	replica, err := suite.Kube.Client.CoreV1().Pods(harness.Namespace).Get(t.Context(), suite.Replicas(t)[0].Name, metav1.GetOptions{})
	require.NoError(t, err)
	free := freeCPU(t, replica.Spec.NodeName)
	placeholders := applyHeadroom(t, free.String())
	pods := suite.Kube.Client.CoreV1().Pods(placeholders)
	placeholder := func(what string, is func(corev1.Pod) bool) {
		t.Helper()
		harness.Until(t, time.Minute, what, func(ctx context.Context) error {
			list, err := pods.List(ctx, metav1.ListOptions{})
			if err == nil && (len(list.Items) != 1 || !is(list.Items[0])) {
				err = errors.New("it is not")
			}
			return err
		})
	}
	placeholder("the placeholder runs", func(pod corev1.Pod) bool { return pod.Status.Phase == corev1.PodRunning })
	container := echoContainer()
	container.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: free}
	runPod(t, harness.Namespace, "visitor", nil, container, func(spec *corev1.PodSpec) {
		spec.PriorityClassName = harness.InstancesNamespace + "-preempting"
	})
	placeholder("the placeholder waits for room", func(pod corev1.Pod) bool {
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodScheduled && condition.Reason == corev1.PodReasonUnschedulable {
				return true
			}
		}
		return false
	})
}

// applyHeadroom applies the component with names of the tests, and one placeholder that
// requests as much CPU. It returns the placeholders' namespace.
func applyHeadroom(t *testing.T, cpu string) string {
	t.Helper()
	const namespace = harness.Namespace + "-headroom"
	var objects []*unstructured.Unstructured
	for _, object := range (source{dir: "manifests", components: []string{"headroom"}}).render(t) {
		if object.GetLabels()["app.kubernetes.io/component"] != "headroom" {
			continue
		}
		data, err := json.Marshal(object.Object)
		require.NoError(t, err)
		for from, to := range map[string]string{
			`"binder-headroom"`:                      `"` + namespace + `"`,
			`"binder-instances-preempting"`:          `"` + harness.InstancesNamespace + `-preempting"`,
			`"image":"registry.k8s.io/pause:3.10.1"`: `"image":"localhost/binder-pause:dev","imagePullPolicy":"IfNotPresent"`,
			`"cpu":"100m"`:                           `"cpu":"` + cpu + `"`,
			`"replicas":3`:                           `"replicas":1`,
		} {
			data = bytes.ReplaceAll(data, []byte(from), []byte(to))
		}
		renamed := &unstructured.Unstructured{}
		require.NoError(t, json.Unmarshal(data, &renamed.Object))
		objects = append(objects, renamed)
	}
	t.Cleanup(func() { suite.Kube.Remove(t, objects) })
	require.NoError(t, suite.Kube.Apply(t.Context(), objects))
	return namespace
}
