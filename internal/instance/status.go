package instance

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Status is the state of an instance in the words of the Binder deploy protocol.
type Status string

// The statuses of an instance.
const (
	StatusPending   Status = "pending"   // not yet on a node
	StatusDeploying Status = "deploying" // on a node, but not yet listening
	StatusDeployed  Status = "deployed"  // listening; only now it has a location
	StatusFailed    Status = "failed"    // did not start, or broke down
	StatusDeleted   Status = "deleted"   // ended: culled, stopped, or by itself
)

// Statuses returns every Status, in the order in which an instance goes through them.
func Statuses() []Status {
	return []Status{StatusPending, StatusDeploying, StatusDeployed, StatusFailed, StatusDeleted}
}

// Settled reports whether a client that waits for a launch has its answer: the
// instance is deployed, has failed or has ended.
func (s Status) Settled() bool { return s != StatusPending && s != StatusDeploying }

// deriveStatus returns the status of a pod's instance, with the Reason and Message of
// Instance. The status is never stored, so it cannot disagree with the pod.
func deriveStatus(pod *corev1.Pod, now time.Time, startTimeout time.Duration) (status Status, reason, message string) {
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

// imageFailure reports an image that cannot be had. A first failed pull
// (ErrImagePull) can be a passing fault of the network, so it does not count. Then
// the kubelet says ImagePullBackOff, and ErrImagePull again for a moment after each
// further try.
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

// Failure returns why a pod is in phase Failed: the pod's own reason (Evicted,
// DeadlineExceeded and others), else that of the first container that exited with an
// error.
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
