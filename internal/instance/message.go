package instance

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Clip limits the length of a message that a container or a registry chose, and makes
// it valid UTF-8: it goes into API answers, logs and Events.
func Clip(message string) string {
	const most = 512
	message = strings.ToValidUTF8(strings.TrimSpace(message), "\uFFFD")
	if runes := []rune(message); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return message
}

// pendingMessage says what a pod without a node is waiting for.
func pendingMessage(pod *corev1.Pod) string {
	scheduled := Condition(pod, corev1.PodScheduled)
	if scheduled == nil || scheduled.Message == "" {
		return "waiting for a node"
	}
	return "waiting for a node: " + Clip(scheduled.Message)
}

// deployingMessage says what a pod on a node is waiting for: the first of its
// containers that does not run, in the order in which they start.
func deployingMessage(pod *corev1.Pod) string {
	sandbox := Condition(pod, corev1.PodReadyToStartContainers)
	for _, status := range ContainerStatuses(pod) {
		waiting := status.State.Waiting
		if waiting == nil {
			continue
		}
		switch waiting.Reason {
		case "ContainerCreating":
			// The kubelet says this while it pulls the image and while it creates the
			// container. The pull is what takes long.
			if sandbox != nil && sandbox.Status == corev1.ConditionTrue {
				return fmt.Sprintf("pulling image %s", Clip(status.Image))
			}
		case "ErrImagePull", "ImagePullBackOff":
			return fmt.Sprintf("pulling image %s again: %s", Clip(status.Image), Clip(waiting.Message))
		case "CrashLoopBackOff":
			return "starting the application again after it ended"
		}
	}
	for _, status := range pod.Status.ContainerStatuses {
		if status.State.Running != nil {
			return "starting the application"
		}
	}
	return "preparing the pod on its node"
}

// startTimeoutMessage says what a launch that took too long was last waiting for.
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
