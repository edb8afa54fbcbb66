//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	helm "helm.sh/helm/v4/pkg/cmd"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/commands"
	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// helmName is the name by which the program of the tests is helm: see TestMain.
const helmName = "helm"

// runHelm is what the program helm does.
func runHelm() error {
	command, err := helm.NewRootCmd(os.Stdout, os.Args[1:], helm.SetupLogging)
	if err != nil {
		return err
	}
	return command.Execute()
}

// helmRelease is a release of the chart in a namespace of its own.
type helmRelease struct {
	namespace string
	// shell has the command helm. It puts the release's namespace, the local cluster's image
	// and the test's values in place of what the documentation has.
	shell *commands.Shell
}

// newHelm returns a release that is not installed yet. values are added to those of a small
// release. It removes what an interrupted run has left, and the release when the test ends.
func newHelm(t *testing.T, namespace string, values map[string]any) helmRelease {
	t.Helper()
	bin := t.TempDir()
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.Symlink(self, filepath.Join(bin, helmName)))
	all := map[string]any{
		"image":     map[string]any{"pullPolicy": "IfNotPresent"},
		"replicas":  1,
		"resources": map[string]any{"requests": map[string]any{"cpu": "10m"}},
	}
	maps.Copy(all, values)
	data, err := yaml.Marshal(all)
	require.NoError(t, err)
	file := filepath.Join(bin, "values.yaml")
	require.NoError(t, os.WriteFile(file, data, 0o600))
	names := strings.NewReplacer("--namespace binder", "--namespace "+namespace+" --wait --timeout=2m", "registry.example.com", "localhost",
		"tag=v1", "tag=dev --values="+file, "tag=v2", "tag=dev --set=replicas=2 --values="+file)
	h := helmRelease{namespace, commands.NewShell(t, "..", bin, names, "KUBECONFIG="+suite.Kube.Kubeconfig())}
	t.Cleanup(func() { h.remove(t) })
	h.remove(t)
	return h
}

// install installs the release by the command of docs/install.md, which TestChartInstalls
// runs from there.
func (h helmRelease) install(t *testing.T) {
	t.Helper()
	h.shell.Run(t, "helm", "helm install binder "+chartDir+" --namespace binder --create-namespace "+
		"--set image.repository=registry.example.com/binder-deploy-kubernetes --set image.tag=v1")
}

// instances returns the namespace of the release's instances.
func (h helmRelease) instances() string { return h.namespace + "-instances" }

// launchAndVisit launches an instance of a template of the operator's own, by the API of the
// release, and visits it through its proxy. It returns the instance's id.
func (h helmRelease) launchAndVisit(t *testing.T, key string) (id string) {
	t.Helper()
	const template = "echo"
	h.addTemplate(t, template)
	api := h.api(t, key)
	var launched struct{ ID string }
	harness.Until(t, 20*time.Second, "the service knows the template", func(context.Context) error {
		answer := api.Do(t, http.MethodPost, "/applications/"+template, "")
		if answer.Code != http.StatusOK {
			return fmt.Errorf("it returned %d: %s", answer.Code, answer.Body)
		}
		answer.Decode(t, &launched)
		return nil
	})
	harness.Until(t, harness.StartTimeout, "the instance is deployed", func(context.Context) error {
		if status := api.Status(t, template, launched.ID); status.Status != "deployed" {
			return fmt.Errorf("it is %s: %s %s", status.Status, status.Reason, status.Message)
		}
		return nil
	})
	assert.Equal(t, publicHost+"/user/"+launched.ID, api.Status(t, template, launched.ID).Location)
	assert.Len(t, api.List(t, template), 1, "the release's key is valid")
	path := "/user/" + launched.ID + "/tree"
	assert.Equal(t, path, seenRequest(t, "http://"+net.JoinHostPort(h.pods(t)[0].Status.PodIP, "8000")+path).Path)
	return launched.ID
}

// addTemplate copies a template of the suite's into the release.
func (h helmRelease) addTemplate(t *testing.T, name string) {
	t.Helper()
	original, err := suite.Kube.Client.CoreV1().PodTemplates(harness.InstancesNamespace).Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	_, err = suite.Kube.Client.CoreV1().PodTemplates(h.instances()).Create(t.Context(), &corev1.PodTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: original.Annotations},
		Template:   original.Template,
	}, metav1.CreateOptions{})
	require.NoError(t, err)
}

// api returns a client of the API at a replica of the release.
func (h helmRelease) api(t *testing.T, key string) harness.API {
	t.Helper()
	return suite.API.At("http://" + net.JoinHostPort(h.pods(t)[0].Status.PodIP, "8084")).WithKey(key)
}

// replaceKey replaces the API key of the release, as an operator does, and returns the new
// one.
func (h helmRelease) replaceKey(t *testing.T) (key string) {
	t.Helper()
	key = rand.Text()
	patch, err := json.Marshal(map[string]any{"stringData": map[string]string{"api-key": key}})
	require.NoError(t, err)
	_, err = suite.Kube.Client.CoreV1().Secrets(h.namespace).Patch(t.Context(), "binder-api-key", types.MergePatchType, patch, metav1.PatchOptions{})
	require.NoError(t, err)
	return key
}

// pods returns the replicas of the release that are not being deleted.
func (h helmRelease) pods(t *testing.T) (living []corev1.Pod) {
	t.Helper()
	pods, err := suite.Kube.Client.CoreV1().Pods(h.namespace).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for _, pod := range pods.Items {
		if pod.DeletionTimestamp == nil {
			living = append(living, pod)
		}
	}
	require.NotEmpty(t, living)
	return living
}

// remove removes what is left of the release, and waits until it is gone.
func (h helmRelease) remove(t *testing.T) {
	t.Helper()
	namespace := &unstructured.Unstructured{}
	namespace.SetAPIVersion("v1")
	namespace.SetKind("Namespace")
	namespace.SetName(h.namespace)
	objects := []*unstructured.Unstructured{namespace} // first, so that the service writes nothing more
	for _, object := range renderChart(t, h.namespace, nil) {
		if object.GetNamespace() == "" {
			objects = append(objects, object)
		}
	}
	suite.Kube.Remove(t, objects)
}
