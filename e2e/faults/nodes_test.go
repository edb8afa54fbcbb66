//go:build faults

package faults

import (
	"encoding/json"
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestSecondNode checks that an instance on the second node can be visited, and that the
// network policies hold it there, too. A pod without policies would reach every target.
func TestSecondNode(t *testing.T) {
	const name = "second-node"
	suite.CopyTemplate(t, "echo", name, func(made *corev1.PodTemplate) { onSecondNode(&made.Template.Spec) })
	instance := suite.Launch(t, name, harness.LongTimeout).AwaitDeployed(t)
	other := suite.Launch(t, name, harness.LongTimeout).AwaitDeployed(t)
	require.Equal(t, secondNode, instance.Pod(t).Spec.NodeName)

	targets := url.Values{"to": {"tcp://10.244.0.1:6443", "tcp://" + injectorAddress, "tcp://" + other.Pod(t).Status.PodIP + ":8888"}}
	for _, replica := range suite.Replicas(t) {
		base, err := url.Parse(replica.Proxy)
		require.NoError(t, err)
		targets.Add("to", "tcp://"+base.Host)
	}
	response, err := http.Get(instance.URL("/dial?" + targets.Encode()))
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
	var failures map[string]string
	require.NoError(t, json.NewDecoder(response.Body).Decode(&failures))
	require.Len(t, failures, len(targets["to"]))
	for target, failure := range failures {
		assert.NotEmpty(t, failure, "it reaches %s", target)
	}
}
