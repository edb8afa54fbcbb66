package instance

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// DefaultPort is the port that Binder images listen on. The pod of an instance names
// its port; one without the annotation listens here.
const DefaultPort = 8888

// PodAddress returns the host:port at which the application of a pod listens, or
// will. The pod must have an IP address.
func PodAddress(pod *corev1.Pod) string {
	return net.JoinHostPort(pod.Status.PodIP, PodPort(pod))
}

// PodPort returns the port at which the application of a pod listens, or will.
func PodPort(pod *corev1.Pod) string {
	return cmp.Or(pod.Annotations[PortAnnotation], strconv.Itoa(DefaultPort))
}

// Condition returns the pod's condition of a type, or nil.
func Condition(pod *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == kind {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// IsReady reports whether the kubelet calls the pod Ready.
func IsReady(pod *corev1.Pod) bool {
	ready := Condition(pod, corev1.PodReady)
	return ready != nil && ready.Status == corev1.ConditionTrue
}

// ReadyChangedAt returns when the pod became Ready, or stopped being so. For a pod
// that was never Ready, it is when it reached a node; before that, its creation. So an
// application that restarts after days has the whole start timeout again, and is not
// taken for a launch that never finished.
func ReadyChangedAt(pod *corev1.Pod) time.Time {
	created := pod.CreationTimestamp.Time
	if ready := Condition(pod, corev1.PodReady); ready != nil && ready.LastTransitionTime.After(created) {
		return ready.LastTransitionTime.Time
	}
	return created
}

// IsServing reports whether somebody who is given the pod can visit it at once.
func IsServing(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && pod.Status.Phase == corev1.PodRunning && IsReady(pod) && pod.Status.PodIP != ""
}

// ContainerStatuses returns the statuses of the init containers, then of the other
// containers, in the order in which they start.
func ContainerStatuses(pod *corev1.Pod) []corev1.ContainerStatus {
	return slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
}

// Restarts returns how often the container with the most restarts was restarted.
func Restarts(pod *corev1.Pod) int32 {
	var most int32
	for _, status := range ContainerStatuses(pod) {
		most = max(most, status.RestartCount)
	}
	return most
}
