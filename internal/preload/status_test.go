package preload

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// podOn is a pod of a preload on a node, whose container waits for a reason; for ""
// it is ready.
func podOn(node, reason, message string) *corev1.Pod {
	return kubetest.Pod(kubetest.ID(1), kubetest.Noon, func(pod *corev1.Pod) {
		pod.Name, pod.Spec.NodeName = "preload-"+node, node
		if reason != "" {
			kubetest.Starting(pod)
			pod.Status.ContainerStatuses[0].State = kubetest.Waiting(reason, message)
		}
	})
}

func TestProgress(t *testing.T) {
	counts := func(desired, current, ready int32) appsv1.DaemonSetStatus {
		return appsv1.DaemonSetStatus{ObservedGeneration: 1, DesiredNumberScheduled: desired, CurrentNumberScheduled: current, NumberReady: ready}
	}
	unschedulable := kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.Unscheduled)
	evicted := podOn("n1", "x", "")
	evicted.Status = corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "disk pressure"}
	ending := podOn("n1", "ImagePullBackOff", "no such image")
	kubetest.Deleting(ending)

	for _, test := range []struct {
		name    string
		status  appsv1.DaemonSetStatus
		pods    []*corev1.Pod
		hash    string // of the template now; the DaemonSet's is "h"
		want    Progress
		message string // part of it
	}{
		{"not counted by Kubernetes yet", appsv1.DaemonSetStatus{}, nil, "h",
			Progress{Status: Loading}, ""},
		{"all nodes", counts(2, 2, 2), nil, "h",
			Progress{Status: Completed, Done: 2}, ""},
		{"some nodes", counts(3, 3, 1), []*corev1.Pod{podOn("n1", "ContainerCreating", "")}, "h",
			Progress{Status: Loading, Done: 1, ToDo: 2}, ""},
		{"no node", counts(0, 0, 0), nil, "h",
			Progress{Status: Loading, Reason: "NoNodes"}, "no node"},
		{"another version of the template", counts(2, 2, 2), nil, "other",
			Progress{Status: Loading, ToDo: 2, Reason: "TemplateChanged"}, "has changed"},
		{"the template cannot be read", counts(2, 2, 2), nil, "",
			Progress{Status: Completed, Done: 2}, ""},
		{"a first failed pull", counts(1, 1, 0), []*corev1.Pod{podOn("n1", "ErrImagePull", "refused")}, "h",
			Progress{Status: Loading, ToDo: 1, Reason: "ErrImagePull"}, "node n1: refused"},
		{"an image that cannot be pulled", counts(1, 1, 0), []*corev1.Pod{podOn("n1", "ImagePullBackOff", "no app:1")}, "h",
			Progress{Status: Failed, ToDo: 1, Reason: "ErrImagePull"}, "node n1: no app:1"},
		{"a runtime without image volumes", counts(1, 1, 0), []*corev1.Pod{podOn("n1", "CreateContainerError", "mount")}, "h",
			Progress{Status: Failed, ToDo: 1, Reason: "CreateContainerError"}, "mount"},
		{"failed goes before slow, and nodes by name", counts(5, 5, 1), []*corev1.Pod{
			podOn("n4", "ImagePullBackOff", "later"), podOn("n1", "ErrImagePull", "slow"),
			podOn("n3", "ImagePullBackOff", "first"), podOn("n2", "", ""),
		}, "h", Progress{Status: Failed, Done: 1, ToDo: 4, Reason: "ErrImagePull"}, "node n3: first"},
		{"no room on a node", counts(1, 1, 0), []*corev1.Pod{unschedulable}, "h",
			Progress{Status: Loading, ToDo: 1, Reason: "Unschedulable"}, "nodes are available"},
		{"evicted", counts(1, 1, 0), []*corev1.Pod{evicted}, "h",
			Progress{Status: Loading, ToDo: 1, Reason: "Evicted"}, "node n1: disk pressure"},
		{"a pod that ends says nothing any more", counts(1, 1, 0), []*corev1.Pod{ending}, "h",
			Progress{Status: Loading, ToDo: 1}, ""},
		{"no pod, as when the quota is used up", counts(3, 1, 1), []*corev1.Pod{podOn("n1", "", "")}, "h",
			Progress{Status: Loading, Done: 1, ToDo: 2, Reason: "NoPod"}, "2 of 3 nodes have no pod yet; if this lasts, the events of DaemonSet set"},
	} {
		t.Run(test.name, func(t *testing.T) {
			set := &appsv1.DaemonSet{
				ObjectMeta: metav1.ObjectMeta{
					Name: "set", Generation: 1, CreationTimestamp: metav1.NewTime(kubetest.Noon),
					Labels:      map[string]string{instance.TemplateHashLabel: "h"},
					Annotations: map[string]string{instance.TemplateNameAnnotation: "jupyter"},
				},
				Status: test.status,
			}
			test.want.Template, test.want.Started = "jupyter", kubetest.Noon
			got := progressOf(set, test.pods, func(*corev1.Pod) []*corev1.Event { return nil }, test.hash)
			if (test.message == "") != (got.Message == "") || !strings.Contains(got.Message, test.message) {
				t.Errorf("message is %q, want %q in it", got.Message, test.message)
			}
			if got.Message = ""; got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}
