//go:build e2e

package e2e

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestInstancesMakeRoomForTheService fills the node with a pod of the instances'
// priority. A pod with the priority of the service's pods, which needs as much, then takes
// its place: what pods of other tests free meanwhile is less. It runs alone, because no
// other pod fits on the node.
func TestInstancesMakeRoomForTheService(t *testing.T) {
	replica, err := suite.Kube.Client.CoreV1().Pods(harness.Namespace).Get(t.Context(), suite.Replicas(t)[0].Name, metav1.GetOptions{})
	require.NoError(t, err)
	service := replica.Spec
	template, err := suite.Kube.Client.CoreV1().PodTemplates(harness.InstancesNamespace).Get(t.Context(), "jupyter", metav1.GetOptions{})
	require.NoError(t, err)

	requests := corev1.ResourceList{corev1.ResourceCPU: freeCPU(t, service.NodeName)}
	run := func(name, class string) {
		container := echoContainer()
		container.Resources.Requests = requests
		runPod(t, harness.Namespace, name, nil, container, func(spec *corev1.PodSpec) { spec.PriorityClassName = class })
	}
	run("filler", template.Template.Spec.PriorityClassName)
	run("replica", service.PriorityClassName)
	_, err = suite.Kube.Client.CoreV1().Pods(harness.Namespace).Get(t.Context(), "filler", metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "the scheduler evicts it: %v", err)
}

// freeCPU returns how much CPU a pod can request on the node.
func freeCPU(t *testing.T, nodeName string) resource.Quantity {
	t.Helper()
	node, err := suite.Kube.Client.CoreV1().Nodes().Get(t.Context(), nodeName, metav1.GetOptions{})
	require.NoError(t, err)
	pods, err := suite.Kube.Client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=" + nodeName})
	require.NoError(t, err)
	free := node.Status.Allocatable.Cpu().DeepCopy()
	for _, pod := range pods.Items {
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		for _, container := range pod.Spec.Containers {
			free.Sub(*container.Resources.Requests.Cpu())
		}
	}
	return free
}
