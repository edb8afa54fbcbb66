//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/commands"
	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// The release of TestChartInstalls, and its namespaces.
const (
	releaseNamespace = harness.Namespace + "-chart"
	releaseInstances = releaseNamespace + "-instances"
)

// TestChartInstalls installs the chart as docs/install.md says, launches and visits an instance,
// upgrades the release and rolls back as docs/operate.md says, and uninstalls it.
func TestChartInstalls(t *testing.T) {
	t.Parallel()
	script := commands.For(t, "..")
	t.Cleanup(func() { removeRelease(t) })
	removeRelease(t) // of an interrupted run
	shell := helmShell(t)
	blocks := script.Blocks(t, "docs/install.md", "With Helm")
	require.Len(t, blocks, 2)
	notes := script.Run(t, shell, blocks[0])
	script.SameAs(t, script.Blocks(t, chartDir+"/README.md", "binder-deploy-kubernetes")[0], blocks[0])
	assert.Contains(t, notes, "https://"+publicHost+"/launch/jupyter")

	key := secretIn(t, releaseNamespace, "binder-api-key", "api-key")
	secret := secretIn(t, releaseNamespace, "binder-secret", "secret")
	assert.NotEqual(t, key, secret)
	id := launchAndVisit(t, key)

	changes := script.Blocks(t, "docs/operate.md", "Upgrade and roll back with Helm")[0]
	steps := changes.Commands()
	require.Len(t, steps, 2)
	script.RunCommand(t, shell, changes, steps[0])
	assert.Len(t, releasePods(t), 2)
	assert.Equal(t, key, secretIn(t, releaseNamespace, "binder-api-key", "api-key"), "an upgrade keeps the key")
	assert.Equal(t, secret, secretIn(t, releaseNamespace, "binder-secret", "secret"))
	assert.Equal(t, "deployed", releaseAPI(t, key).Status(t, "echo", id).Status)

	key = replaceKey(t)
	script.RunCommand(t, shell, changes, steps[1])
	assert.Len(t, releasePods(t), 1)
	assert.Equal(t, key, secretIn(t, releaseNamespace, "binder-api-key", "api-key"), "a roll back keeps a key that was replaced")
	assert.Equal(t, secret, secretIn(t, releaseNamespace, "binder-secret", "secret"))
	assert.Equal(t, "deployed", releaseAPI(t, key).Status(t, "echo", id).Status)

	script.Run(t, shell, blocks[1])
	assert.Equal(t, key, secretIn(t, releaseNamespace, "binder-api-key", "api-key"), "the key outlives the release")
	for _, name := range []string{releaseNamespace, releaseInstances} {
		_, err := suite.Kube.Client.SchedulingV1().PriorityClasses().Get(t.Context(), name, metav1.GetOptions{})
		assert.True(t, apierrors.IsNotFound(err), "PriorityClass %s: %v", name, err)
	}
	_, err := suite.Kube.Client.CoreV1().Namespaces().Get(t.Context(), releaseInstances, metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "the instances' namespace: %v", err)
}

// helmShell returns a shell with helm. It installs the image of this machine, and values that a
// small cluster carries.
func helmShell(t *testing.T) *commands.Shell {
	t.Helper()
	bin := t.TempDir()
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.Symlink(self, filepath.Join(bin, helmName)))
	values := filepath.Join(bin, "values.yaml")
	require.NoError(t, os.WriteFile(values, []byte(`
image: {pullPolicy: IfNotPresent}
replicas: 1
resources: {requests: {cpu: 10m}}
publicHost: `+publicHost+`
service: {proxy: {type: ClusterIP}}
`), 0o600))
	wait := " --wait --timeout=2m"
	names := strings.NewReplacer("--namespace binder", "--namespace "+releaseNamespace+wait, "registry.example.com", "localhost",
		"tag=v1", "tag=dev --values="+values, "tag=v2", "tag=dev --set=replicas=2 --values="+values)
	return commands.NewShell(t, "..", bin, names, "KUBECONFIG="+suite.Kube.Kubeconfig())
}

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

// launchAndVisit launches an instance of a template of the operator's own, by the API of the
// release, and visits it through its proxy. It returns the instance's id.
func launchAndVisit(t *testing.T, key string) (id string) {
	t.Helper()
	const template = "echo"
	original, err := suite.Kube.Client.CoreV1().PodTemplates(harness.InstancesNamespace).Get(t.Context(), template, metav1.GetOptions{})
	require.NoError(t, err)
	_, err = suite.Kube.Client.CoreV1().PodTemplates(releaseInstances).Create(t.Context(), &corev1.PodTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: template, Annotations: original.Annotations},
		Template:   original.Template,
	}, metav1.CreateOptions{})
	require.NoError(t, err)

	api := releaseAPI(t, key)
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
	assert.Equal(t, path, seenRequest(t, "http://"+net.JoinHostPort(releasePods(t)[0].Status.PodIP, "8000")+path).Path)
	return launched.ID
}

// releaseAPI returns a client of the API at a replica of the release.
func releaseAPI(t *testing.T, key string) harness.API {
	t.Helper()
	return suite.API.At("http://" + net.JoinHostPort(releasePods(t)[0].Status.PodIP, "8084")).WithKey(key)
}

// replaceKey replaces the API key of the release, as an operator does, and returns the new
// one.
func replaceKey(t *testing.T) (key string) {
	t.Helper()
	key = rand.Text()
	patch, err := json.Marshal(map[string]any{"stringData": map[string]string{"api-key": key}})
	require.NoError(t, err)
	_, err = suite.Kube.Client.CoreV1().Secrets(releaseNamespace).Patch(t.Context(), "binder-api-key", types.MergePatchType, patch, metav1.PatchOptions{})
	require.NoError(t, err)
	return key
}

// releasePods returns the replicas of the release that are not being deleted.
func releasePods(t *testing.T) (living []corev1.Pod) {
	t.Helper()
	pods, err := suite.Kube.Client.CoreV1().Pods(releaseNamespace).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for _, pod := range pods.Items {
		if pod.DeletionTimestamp == nil {
			living = append(living, pod)
		}
	}
	require.NotEmpty(t, living)
	return living
}

// removeRelease removes what is left of the release, and waits until it is gone.
func removeRelease(t *testing.T) {
	t.Helper()
	namespace := &unstructured.Unstructured{}
	namespace.SetAPIVersion("v1")
	namespace.SetKind("Namespace")
	namespace.SetName(releaseNamespace)
	objects := []*unstructured.Unstructured{namespace} // first, so that the service writes nothing more
	for _, object := range renderChart(t, releaseNamespace, nil) {
		if object.GetNamespace() == "" {
			objects = append(objects, object)
		}
	}
	suite.Kube.Remove(t, objects)
}
