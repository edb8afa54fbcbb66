package earlyready

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// needsOnlyPort reports whether a pod that is not Ready will be Ready as soon as its
// port is open. That is the case if the ready-when annotation says so, nothing in the
// spec contradicts it, and everything but the application has started. After a
// container has exited, the kubelet decides.
func needsOnlyPort(pod *corev1.Pod) bool {
	if pod.Annotations[instance.ReadyWhenAnnotation] != instance.ReadyWhenListening || NeedsMoreThanPort(pod) {
		return false
	}
	if pod.DeletionTimestamp != nil || pod.Status.PodIP == "" || instance.IsReady(pod) {
		return false
	}
	if pod.Status.Phase != corev1.PodPending && pod.Status.Phase != corev1.PodRunning {
		return false
	}
	return initContainersDone(pod) && containersStarted(pod)
}

// NeedsMoreThanPort reports whether the spec of a pod says that the pod can stay not
// Ready while its port is open. The ready-when annotation was written when the
// pod was made from its template; admission webhooks may since have added readiness
// gates, sidecars or other probes. With host network the port may be another pod's.
//
// It needs the containers of the spec: of a pod without them it reports false.
func NeedsMoreThanPort(pod *corev1.Pod) bool {
	if len(pod.Spec.ReadinessGates) > 0 || pod.Spec.HostNetwork {
		return true
	}
	probes := 0
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if containers[i].StartupProbe != nil || hasPostStart(&containers[i]) {
				return true
			}
			if probe := containers[i].ReadinessProbe; probe != nil {
				probes++
				if !probesOnlyPort(probe, pod.Annotations[instance.PortAnnotation]) {
					return true
				}
			}
		}
	}
	return probes > 1
}

// hasPostStart reports whether a container has a hook that must end before it counts
// as running.
func hasPostStart(c *corev1.Container) bool {
	return c.Lifecycle != nil && c.Lifecycle.PostStart != nil
}

// probesOnlyPort reports whether a readiness probe succeeds at once when a port is
// open.
func probesOnlyPort(probe *corev1.Probe, port string) bool {
	return probe.TCPSocket != nil && probe.TCPSocket.Host == "" && probe.TCPSocket.Port.String() == port &&
		probe.InitialDelaySeconds == 0 && probe.SuccessThreshold <= 1
}

// initContainersDone reports whether the application's container can be the one that
// listens: an init container, which runs before it, could do so too.
func initContainersDone(pod *corev1.Pod) bool {
	if len(pod.Status.InitContainerStatuses) == 0 {
		return true
	}
	initialized := instance.Condition(pod, corev1.PodInitialized)
	return initialized != nil && initialized.Status == corev1.ConditionTrue
}

// containersStarted reports whether no container holds the pod up. A pod with several
// containers is not Ready before all of them run. With a single one, an open port
// shows that it runs, before the kubelet says so.
func containersStarted(pod *corev1.Pod) bool {
	for i := range pod.Status.ContainerStatuses {
		status := &pod.Status.ContainerStatuses[i]
		if status.State.Terminated != nil || status.LastTerminationState.Terminated != nil {
			return false
		}
		if status.State.Running == nil && len(pod.Status.ContainerStatuses) > 1 {
			return false
		}
	}
	return true
}
