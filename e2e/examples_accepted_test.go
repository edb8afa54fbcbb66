//go:build e2e

package e2e

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// TestExamplesAreAccepted lets the API server check a pod of each example as if it was
// launched: its fields, the pod security standard and the namespace's limits. It also checks
// that the service has warned of none.
func TestExamplesAreAccepted(t *testing.T) {
	t.Parallel()
	core := suite.Kube.Client.CoreV1()
	all := examples(t)
	for name := range all {
		template, err := core.PodTemplates(harness.InstancesNamespace).Get(t.Context(), name, metav1.GetOptions{})
		require.NoError(t, err)
		pod, err := podtemplate.NewPod(template, unknownID, unknownID)
		require.NoError(t, err, name)
		pod.Spec.PriorityClassName = harness.InstancesNamespace // the class of the tests' instances
		_, err = core.Pods(harness.InstancesNamespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		assert.NoError(t, err, name)
	}
	warnings, err := core.Events(harness.InstancesNamespace).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=InvalidAnnotation"})
	require.NoError(t, err)
	for _, warning := range warnings.Items {
		assert.NotContains(t, all, warning.InvolvedObject.Name, warning.Message)
	}
}
