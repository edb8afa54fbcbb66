package podstore

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/earlyready"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// Slim returns what is read of a pod, and shares its parts. The rest is most of it: the
// spec, managedFields, and the labels and annotations of others. It leaves out a ready-when
// annotation that contradicts the spec, because that cannot be checked later.
func Slim(pod *corev1.Pod) *corev1.Pod {
	slim := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
			CreationTimestamp: pod.CreationTimestamp, DeletionTimestamp: pod.DeletionTimestamp,
			Labels: own(pod.Labels), Annotations: own(pod.Annotations),
		},
		Spec: instance.SlimSpec(pod),
		Status: corev1.PodStatus{
			Phase: pod.Status.Phase, Reason: pod.Status.Reason, Message: pod.Status.Message,
			HostIP: pod.Status.HostIP, PodIP: pod.Status.PodIP, StartTime: pod.Status.StartTime,
			Conditions:            slimConditions(pod.Status.Conditions),
			InitContainerStatuses: slimContainers(pod.Status.InitContainerStatuses),
			ContainerStatuses:     slimContainers(pod.Status.ContainerStatuses),
		},
	}
	if metav1.GetControllerOfNoCopy(pod) != nil { // who it is, nobody asks
		slim.OwnerReferences = []metav1.OwnerReference{{Controller: new(true)}}
	}
	if earlyready.NeedsMoreThanPort(pod) {
		delete(slim.Annotations, instance.ReadyWhenAnnotation)
	}
	return slim
}

// own returns a copy of labels or annotations with only those that this service reads.
func own(all map[string]string) map[string]string {
	kept := make(map[string]string, len(all))
	for key, value := range all {
		if strings.HasPrefix(key, instance.KeyPrefix) || key == instance.ManagedByLabel || key == instance.DefaultContainerAnnotation {
			kept[key] = value
		}
	}
	return kept
}

func slimConditions(all []corev1.PodCondition) []corev1.PodCondition {
	kept := make([]corev1.PodCondition, 0, len(all))
	for i := range all {
		kept = append(kept, corev1.PodCondition{
			Type: all[i].Type, Status: all[i].Status, LastTransitionTime: all[i].LastTransitionTime,
			Reason: all[i].Reason, Message: all[i].Message,
		})
	}
	return kept
}

func slimContainers(all []corev1.ContainerStatus) []corev1.ContainerStatus {
	kept := make([]corev1.ContainerStatus, 0, len(all))
	for i := range all {
		status := &all[i]
		slim := corev1.ContainerStatus{
			Name: status.Name, Image: status.Image, Ready: status.Ready, RestartCount: status.RestartCount,
			State: slimState(status.State), LastTerminationState: slimState(status.LastTerminationState),
		}
		if status.Resources != nil {
			if limit, ok := status.Resources.Limits[corev1.ResourceMemory]; ok {
				slim.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: limit}}
			}
		}
		kept = append(kept, slim)
	}
	return kept
}

func slimState(state corev1.ContainerState) corev1.ContainerState {
	if ended := state.Terminated; ended != nil {
		state.Terminated = &corev1.ContainerStateTerminated{
			ExitCode: ended.ExitCode, Reason: ended.Reason, Message: ended.Message, StartedAt: ended.StartedAt, FinishedAt: ended.FinishedAt,
		}
	}
	return state
}

// pack encodes a slim pod. The keys of this service's labels and annotations are written
// without their prefix, which would be a third of the whole.
func pack(pod *corev1.Pod) string {
	short := *pod
	short.Labels, short.Annotations = renamed(pod.Labels, shortKey), renamed(pod.Annotations, shortKey)
	data, err := short.Marshal()
	if err != nil { // every pod can be encoded
		panic(fmt.Sprintf("encode a pod: %v", err))
	}
	return string(data)
}

// unpack decodes a pod that pack has encoded.
func unpack(packed string) *corev1.Pod {
	pod := &corev1.Pod{}
	if err := pod.Unmarshal([]byte(packed)); err != nil { // pack has encoded it
		panic(fmt.Sprintf("decode a pod: %v", err))
	}
	pod.Labels, pod.Annotations = renamed(pod.Labels, fullKey), renamed(pod.Annotations, fullKey)
	return pod
}

func renamed(all map[string]string, rename func(string) string) map[string]string {
	result := make(map[string]string, len(all))
	for key, value := range all {
		result[rename(key)] = value
	}
	return result
}

func shortKey(key string) string {
	if name, ok := strings.CutPrefix(key, instance.KeyPrefix); ok {
		return name
	}
	return key
}

// fullKey returns the key that shortKey has shortened. Other keys that are kept have a
// slash, and a name has none.
func fullKey(key string) string {
	if strings.Contains(key, "/") {
		return key
	}
	return instance.KeyPrefix + key
}
