package main

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/preload"
)

var preloadTestTime = time.Date(2026, time.January, 2, 12, 0, 0, 0, time.UTC)

// preloadTestPod is a pod of a preload on a node, whose container waits for a
// reason; for "" it is ready.
func preloadTestPod(node, reason, message string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "preload-" + node},
		Spec:       corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{
			Phase:      corev1.PodPending,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}},
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: "wait", Image: preloadTestHelper,
				State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}},
			}},
		},
	}
	if reason == "" {
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions[0].Status = corev1.ConditionTrue
		pod.Status.ContainerStatuses[0].State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	}
	return pod
}

func TestPreloadStatus(t *testing.T) {
	counts := func(desired, current, ready int32) appsv1.DaemonSetStatus {
		return appsv1.DaemonSetStatus{ObservedGeneration: 1, DesiredNumberScheduled: desired, CurrentNumberScheduled: current, NumberReady: ready}
	}
	unschedulable := preloadTestPod("", "x", "")
	unschedulable.Status.ContainerStatuses = nil
	unschedulable.Status.Conditions = append(unschedulable.Status.Conditions, corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes: Insufficient memory",
	})
	evicted := preloadTestPod("n1", "x", "")
	evicted.Status = corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "disk pressure"}
	ending := preloadTestPod("n1", "ImagePullBackOff", "no such image")
	ending.DeletionTimestamp = new(metav1.NewTime(preloadTestTime))

	for _, test := range []struct {
		name    string
		status  appsv1.DaemonSetStatus
		pods    []*corev1.Pod
		hash    string // of the template now; the DaemonSet's is "h"
		want    preload.Preload
		message string // part of it
	}{
		{"not looked at by Kubernetes yet", appsv1.DaemonSetStatus{}, nil, "h",
			preload.Preload{Status: preload.PreloadLoading}, ""},
		{"all nodes", counts(2, 2, 2), nil, "h",
			preload.Preload{Status: preload.PreloadCompleted, Done: 2}, ""},
		{"some nodes", counts(3, 3, 1), []*corev1.Pod{preloadTestPod("n1", "ContainerCreating", "")}, "h",
			preload.Preload{Status: preload.PreloadLoading, Done: 1, ToDo: 2}, ""},
		{"no node", counts(0, 0, 0), nil, "h",
			preload.Preload{Status: preload.PreloadLoading, Reason: "NoNodes"}, "no node"},
		{"another version of the template", counts(2, 2, 2), nil, "other",
			preload.Preload{Status: preload.PreloadLoading, ToDo: 2, Reason: "TemplateChanged"}, "has changed"},
		{"the template cannot be read", counts(2, 2, 2), nil, "",
			preload.Preload{Status: preload.PreloadCompleted, Done: 2}, ""},
		{"a first failed pull", counts(1, 1, 0), []*corev1.Pod{preloadTestPod("n1", "ErrImagePull", "refused")}, "h",
			preload.Preload{Status: preload.PreloadLoading, ToDo: 1, Reason: "ErrImagePull"}, "node n1: refused"},
		{"an image that cannot be pulled", counts(1, 1, 0), []*corev1.Pod{preloadTestPod("n1", "ImagePullBackOff", "no app:1")}, "h",
			preload.Preload{Status: preload.PreloadFailed, ToDo: 1, Reason: "ImagePullBackOff"}, "node n1: no app:1"},
		{"a runtime without image volumes", counts(1, 1, 0), []*corev1.Pod{preloadTestPod("n1", "CreateContainerError", "mount")}, "h",
			preload.Preload{Status: preload.PreloadFailed, ToDo: 1, Reason: "CreateContainerError"}, "mount"},
		{"failed goes before slow, and nodes by name", counts(5, 5, 1), []*corev1.Pod{
			preloadTestPod("n4", "ImagePullBackOff", "later"), preloadTestPod("n1", "ErrImagePull", "slow"),
			preloadTestPod("n3", "ImagePullBackOff", "first"), preloadTestPod("n2", "", ""),
		}, "h", preload.Preload{Status: preload.PreloadFailed, Done: 1, ToDo: 4, Reason: "ImagePullBackOff"}, "node n3: first"},
		{"no room on a node", counts(1, 1, 0), []*corev1.Pod{unschedulable}, "h",
			preload.Preload{Status: preload.PreloadLoading, ToDo: 1, Reason: "Unschedulable"}, "Insufficient memory"},
		{"evicted", counts(1, 1, 0), []*corev1.Pod{evicted}, "h",
			preload.Preload{Status: preload.PreloadLoading, ToDo: 1, Reason: "Evicted"}, "node n1: disk pressure"},
		{"a pod that ends says nothing any more", counts(1, 1, 0), []*corev1.Pod{ending}, "h",
			preload.Preload{Status: preload.PreloadLoading, ToDo: 1}, ""},
		{"no pod, as when the quota is used up", counts(3, 1, 1), []*corev1.Pod{preloadTestPod("n1", "", "")}, "h",
			preload.Preload{Status: preload.PreloadLoading, Done: 1, ToDo: 2, Reason: "NoPod"}, "2 of 3 nodes have no pod yet; if it stays so, the events of DaemonSet set"},
	} {
		t.Run(test.name, func(t *testing.T) {
			set := &appsv1.DaemonSet{
				ObjectMeta: metav1.ObjectMeta{
					Name: "set", Generation: 1, CreationTimestamp: metav1.NewTime(preloadTestTime),
					Labels:      map[string]string{instance.TemplateHashLabel: "h"},
					Annotations: map[string]string{instance.TemplateNameAnnotation: "jupyter"},
				},
				Status: test.status,
			}
			test.want.Template, test.want.Started = "jupyter", preloadTestTime
			got := preload.ComputeStatus(set, test.pods, test.hash)
			if (test.message == "") != (got.Message == "") || !strings.Contains(got.Message, test.message) {
				t.Errorf("message is %q, want %q in it", got.Message, test.message)
			}
			if got.Message = ""; got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}
