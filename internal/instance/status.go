package instance

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// DeriveStatus says what state a pod's instance is in, for what reason if it is
// over, and in a sentence what it is waiting for or why it ended. Status is never
// stored: it follows from what the API server knows, so that it cannot disagree
// with it.
func DeriveStatus(pod *corev1.Pod, now time.Time, startTimeout time.Duration) (status Status, reason, message string) {
	if pod.DeletionTimestamp != nil {
		return StatusDeleted, ReasonDeleting, "the instance is being deleted"
	}
	switch pod.Status.Phase {
	case corev1.PodFailed:
		reason, message = Failure(pod)
		return StatusFailed, reason, message
	case corev1.PodSucceeded:
		return StatusDeleted, ReasonCompleted, "the application ended by itself"
	}
	if IsReady(pod) && pod.Status.PodIP != "" {
		return StatusDeployed, "", ""
	}
	if reason, message, found := imageFailure(pod); found {
		return StatusFailed, reason, message
	}
	if waited := now.Sub(ReadyChangedAt(pod)); waited >= startTimeout {
		return StatusFailed, ReasonStartTimeout, startTimeoutMessage(pod, startTimeout)
	}
	if pod.Spec.NodeName == "" {
		return StatusPending, "", pendingMessage(pod)
	}
	return StatusDeploying, "", deployingMessage(pod)
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

func IsReady(pod *corev1.Pod) bool {
	ready := Condition(pod, corev1.PodReady)
	return ready != nil && ready.Status == corev1.ConditionTrue
}

// ReadyChangedAt is when the wait for Ready began: when the pod reached a node,
// or was last Ready; for one without a node, when it was created. So an
// application that restarts after days gets the whole start timeout again, and
// is not taken for a launch that never ended.
func ReadyChangedAt(pod *corev1.Pod) time.Time {
	since := pod.CreationTimestamp.Time
	if ready := Condition(pod, corev1.PodReady); ready != nil && ready.LastTransitionTime.After(since) {
		since = ready.LastTransitionTime.Time
	}
	return since
}

// imageFailure reports an image that cannot be had. The kubelet's first failed
// pull (ErrImagePull) may be a hiccup and is not yet called a failure; it
// repeats the pull, and says ImagePullBackOff from then on.
func imageFailure(pod *corev1.Pod) (reason, message string, found bool) {
	for _, status := range ContainerStatuses(pod) {
		waiting := status.State.Waiting
		if waiting == nil {
			continue
		}
		switch waiting.Reason {
		case "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError":
			return waiting.Reason, fmt.Sprintf("image %s: %s", status.Image, Clip(waiting.Message)), true
		}
	}
	return "", "", false
}

func ContainerStatuses(pod *corev1.Pod) []corev1.ContainerStatus {
	all := make([]corev1.ContainerStatus, 0, len(pod.Status.InitContainerStatuses)+len(pod.Status.ContainerStatuses))
	all = append(all, pod.Status.InitContainerStatuses...)
	return append(all, pod.Status.ContainerStatuses...)
}

// Failure says why a pod is in phase Failed: its own reason (Evicted,
// DeadlineExceeded, …), else that of the first container that broke.
func Failure(pod *corev1.Pod) (reason, message string) {
	if pod.Status.Reason != "" {
		return pod.Status.Reason, Clip(pod.Status.Message)
	}
	for _, status := range ContainerStatuses(pod) {
		ended := status.State.Terminated
		if ended == nil || ended.ExitCode == 0 {
			continue
		}
		message = fmt.Sprintf("container %s exited with code %d", status.Name, ended.ExitCode)
		if ended.Message != "" {
			message += ": " + Clip(ended.Message)
		}
		return ended.Reason, message
	}
	return "Failed", "the pod failed"
}

// startTimeoutMessage tells what the launch was last waiting for.
func startTimeoutMessage(pod *corev1.Pod, startTimeout time.Duration) string {
	message := fmt.Sprintf("not ready within %s", startTimeout)
	if scheduled := Condition(pod, corev1.PodScheduled); pod.Spec.NodeName == "" && scheduled != nil {
		return message + ": " + Clip(scheduled.Message)
	}
	for _, status := range ContainerStatuses(pod) {
		if waiting := status.State.Waiting; waiting != nil && waiting.Reason != "" {
			return strings.TrimSuffix(fmt.Sprintf("%s: container %s: %s: %s", message, status.Name, waiting.Reason, Clip(waiting.Message)), ": ")
		}
	}
	return message
}

// EndedAt is when a pod's last container ended; zero while one runs or when
// the kubelet did not say.
func EndedAt(pod *corev1.Pod) time.Time {
	var last time.Time
	for _, status := range pod.Status.ContainerStatuses {
		ended := status.State.Terminated
		if ended == nil {
			return time.Time{}
		}
		if ended.FinishedAt.After(last) {
			last = ended.FinishedAt.Time
		}
	}
	return last
}

// Clip bounds a message that a container or a registry chose: it ends up in
// API answers, logs and Events.
func Clip(message string) string {
	const most = 512
	message = strings.ToValidUTF8(strings.TrimSpace(message), "�")
	if runes := []rune(message); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return message
}

// Settled reports whether a launch has come to what it comes to.
func Settled(status Status) bool {
	return status != StatusPending && status != StatusDeploying
}

// IsServing reports whether who claims a pod can visit it at once.
func IsServing(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && pod.Status.Phase == corev1.PodRunning && IsReady(pod) && pod.Status.PodIP != ""
}

// Restarts is how often the container that was started most often was started
// again.
func Restarts(pod *corev1.Pod) int32 {
	var most int32
	for _, status := range ContainerStatuses(pod) {
		most = max(most, status.RestartCount)
	}
	return most
}
