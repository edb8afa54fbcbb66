package instance

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// pendingMessage tells a person what a pod without a node is waiting for.
func pendingMessage(pod *corev1.Pod) string {
	scheduled := Condition(pod, corev1.PodScheduled)
	if scheduled == nil || scheduled.Message == "" {
		return "waiting for a node"
	}
	return "waiting for a node: " + Clip(scheduled.Message)
}

// deployingMessage tells what a pod on a node is waiting for: the first of its
// containers that does not run, in the order in which they are started.
func deployingMessage(pod *corev1.Pod) string {
	sandbox := Condition(pod, corev1.PodReadyToStartContainers)
	for _, status := range ContainerStatuses(pod) {
		waiting := status.State.Waiting
		if waiting == nil {
			continue
		}
		switch waiting.Reason {
		case "ContainerCreating":
			// The kubelet says the same of pulling the image and of making the
			// container, and the pull is what takes long.
			if sandbox != nil && sandbox.Status == corev1.ConditionTrue {
				return fmt.Sprintf("pulling image %s", Clip(status.Image))
			}
		case "ErrImagePull", "ImagePullBackOff":
			return fmt.Sprintf("pulling image %s again: %s", Clip(status.Image), Clip(waiting.Message))
		case "CrashLoopBackOff":
			return "starting the application again, which has ended"
		}
	}
	for _, status := range pod.Status.ContainerStatuses {
		if status.State.Running != nil {
			return "starting the application"
		}
	}
	return "preparing the pod on its node"
}
