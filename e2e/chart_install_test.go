//go:build e2e

package e2e

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/commands"
	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestChartInstalls installs the chart as docs/install.md says, launches and visits an instance,
// upgrades the release and rolls back as docs/operate.md says, and uninstalls it.
func TestChartInstalls(t *testing.T) {
	t.Parallel()
	script := commands.For(t, "..")
	helm := newHelm(t, harness.Namespace+"-chart", map[string]any{
		"publicHost": publicHost,
		"service":    map[string]any{"proxy": map[string]any{"type": "ClusterIP"}},
	})
	blocks := script.Blocks(t, "docs/install.md", "With Helm")
	require.Len(t, blocks, 2)
	notes := script.Run(t, helm.shell, blocks[0])
	script.SameAs(t, script.Blocks(t, chartDir+"/README.md", "binder-deploy-kubernetes")[0], blocks[0])
	assert.Contains(t, notes, "https://"+publicHost+"/launch/jupyter")

	key := secretIn(t, helm.namespace, "binder-api-key", "api-key")
	secret := secretIn(t, helm.namespace, "binder-secret", "secret")
	assert.NotEqual(t, key, secret)
	id := helm.launchAndVisit(t, key)

	changes := script.Blocks(t, "docs/operate.md", "Upgrade and roll back with Helm")[0]
	steps := changes.Commands()
	require.Len(t, steps, 2)
	script.RunCommand(t, helm.shell, changes, steps[0])
	assert.Len(t, helm.pods(t), 2)
	assert.Equal(t, key, secretIn(t, helm.namespace, "binder-api-key", "api-key"), "an upgrade keeps the key")
	assert.Equal(t, secret, secretIn(t, helm.namespace, "binder-secret", "secret"))
	assert.Equal(t, "deployed", helm.api(t, key).Status(t, "echo", id).Status)

	key = helm.replaceKey(t)
	script.RunCommand(t, helm.shell, changes, steps[1])
	assert.Len(t, helm.pods(t), 1)
	assert.Equal(t, key, secretIn(t, helm.namespace, "binder-api-key", "api-key"), "a roll back keeps a key that was replaced")
	assert.Equal(t, secret, secretIn(t, helm.namespace, "binder-secret", "secret"))
	assert.Equal(t, "deployed", helm.api(t, key).Status(t, "echo", id).Status)

	script.Run(t, helm.shell, blocks[1])
	assert.Equal(t, key, secretIn(t, helm.namespace, "binder-api-key", "api-key"), "the key outlives the release")
	for _, name := range []string{helm.namespace, helm.instances()} {
		_, err := suite.Kube.Client.SchedulingV1().PriorityClasses().Get(t.Context(), name, metav1.GetOptions{})
		assert.True(t, apierrors.IsNotFound(err), "PriorityClass %s: %v", name, err)
	}
	_, err := suite.Kube.Client.CoreV1().Namespaces().Get(t.Context(), helm.instances(), metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "the instances' namespace: %v", err)
}
