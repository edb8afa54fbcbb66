//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/kube"
	"helm.sh/helm/v4/pkg/release"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// The release of TestChartInstalls, and its namespaces.
const (
	releaseName      = "binder"
	releaseNamespace = harness.Namespace + "-chart"
	releaseInstances = releaseNamespace + "-instances"
)

// TestChartInstalls installs the chart as helm install does, launches and visits an
// instance, upgrades the release, and uninstalls it.
func TestChartInstalls(t *testing.T) {
	t.Parallel()
	helm := newHelm(t)
	values := map[string]any{
		"image":      map[string]any{"repository": "localhost/binder-deploy-kubernetes", "tag": "dev", "pullPolicy": "IfNotPresent"},
		"replicas":   1,
		"resources":  map[string]any{"requests": map[string]any{"cpu": "10m"}},
		"publicHost": publicHost,
		"service":    map[string]any{"proxy": map[string]any{"type": "ClusterIP"}},
	}
	t.Cleanup(func() { removeRelease(t) })
	removeRelease(t) // of an interrupted run
	notes := helm.install(t, values)
	assert.Contains(t, notes, "https://"+publicHost+"/launch/jupyter")

	key := secretValue(t, "binder-api-key", "api-key")
	secret := secretValue(t, "binder-secret", "secret")
	assert.NotEqual(t, key, secret)
	launchAndVisit(t, key)

	values["replicas"] = 2
	helm.upgrade(t, values)
	assert.Len(t, releasePods(t), 2)
	assert.Equal(t, key, secretValue(t, "binder-api-key", "api-key"), "an upgrade keeps the key")
	assert.Equal(t, secret, secretValue(t, "binder-secret", "secret"))

	helm.uninstall(t)
	assert.Equal(t, key, secretValue(t, "binder-api-key", "api-key"), "the key outlives the release")
	for _, name := range []string{releaseNamespace, releaseInstances} {
		_, err := suite.Kube.Client.SchedulingV1().PriorityClasses().Get(t.Context(), name, metav1.GetOptions{})
		assert.True(t, apierrors.IsNotFound(err), "PriorityClass %s: %v", name, err)
	}
	_, err := suite.Kube.Client.CoreV1().Namespaces().Get(t.Context(), releaseInstances, metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "the instances' namespace: %v", err)
}

// launchAndVisit launches an instance of a template of the operator's own, by the API of the
// release, and visits it through its proxy.
func launchAndVisit(t *testing.T, key string) {
	t.Helper()
	const template = "echo"
	original, err := suite.Kube.Client.CoreV1().PodTemplates(harness.InstancesNamespace).Get(t.Context(), template, metav1.GetOptions{})
	require.NoError(t, err)
	_, err = suite.Kube.Client.CoreV1().PodTemplates(releaseInstances).Create(t.Context(), &corev1.PodTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: template, Annotations: original.Annotations},
		Template:   original.Template,
	}, metav1.CreateOptions{})
	require.NoError(t, err)

	address := releasePods(t)[0].Status.PodIP
	api := suite.API.At("http://" + net.JoinHostPort(address, "8084")).WithKey(key)
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
	assert.Equal(t, path, seenRequest(t, "http://"+net.JoinHostPort(address, "8000")+path).Path)
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

func secretValue(t *testing.T, name, key string) string {
	t.Helper()
	secret, err := suite.Kube.Client.CoreV1().Secrets(releaseNamespace).Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	require.NotEmpty(t, secret.Data[key])
	return string(secret.Data[key])
}

// helm does what the command helm does.
type helm struct{ configuration *action.Configuration }

// helmTimeout bounds how long Helm waits for what it has applied or deleted.
const helmTimeout = 2 * time.Minute

func newHelm(t *testing.T) helm {
	t.Helper()
	flags := genericclioptions.NewConfigFlags(false)
	kubeconfig, namespace := suite.Kube.Kubeconfig(), releaseNamespace
	flags.KubeConfig, flags.Namespace = &kubeconfig, &namespace
	configuration := action.NewConfiguration()
	require.NoError(t, configuration.Init(flags, namespace, "secret"))
	return helm{configuration}
}

// install returns the notes.
func (h helm) install(t *testing.T, values map[string]any) string {
	t.Helper()
	install := action.NewInstall(h.configuration)
	install.ReleaseName, install.Namespace, install.CreateNamespace = releaseName, releaseNamespace, true
	install.WaitStrategy, install.Timeout = kube.StatusWatcherStrategy, helmTimeout
	installed, err := install.RunWithContext(t.Context(), loadChart(t), values)
	require.NoError(t, err)
	accessor, err := release.NewAccessor(installed)
	require.NoError(t, err)
	return accessor.Notes()
}

func (h helm) upgrade(t *testing.T, values map[string]any) {
	t.Helper()
	upgrade := action.NewUpgrade(h.configuration)
	upgrade.Namespace = releaseNamespace
	upgrade.WaitStrategy, upgrade.Timeout = kube.StatusWatcherStrategy, helmTimeout
	_, err := upgrade.RunWithContext(t.Context(), releaseName, loadChart(t), values)
	require.NoError(t, err)
}

func (h helm) uninstall(t *testing.T) {
	t.Helper()
	uninstall := action.NewUninstall(h.configuration)
	uninstall.WaitStrategy, uninstall.Timeout = kube.StatusWatcherStrategy, helmTimeout
	_, err := uninstall.Run(releaseName)
	require.NoError(t, err)
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
