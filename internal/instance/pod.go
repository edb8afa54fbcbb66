package instance

import (
	"cmp"
	"net"
	"net/netip"
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

// AddressKey names what a pod is reached by: no two pods that live can have the same key.
// If they do, the cache is behind, or the cluster has given an address away too early, and
// nobody knows to whom it leads. A pod has its IP address for itself, with all ports. Pods
// in the network of their node share the node's address, and the port tells them apart. The
// key is "" for a pod that has no address, or has ended. A pod that is being deleted has
// its address until its containers have ended.
func AddressKey(pod *corev1.Pod) string {
	switch ip, err := netip.ParseAddr(pod.Status.PodIP); {
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || err != nil:
		return ""
	case pod.Status.PodIP == pod.Status.HostIP:
		return ip.Unmap().String() + " " + PodPort(pod)
	default:
		return ip.Unmap().String()
	}
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

// readinessGates is the kubelet's reason for a pod that waits for a readiness gate, though
// its containers are ready (ReadinessGatesNotReady in pkg/kubelet/status).
const readinessGates = "ReadinessGatesNotReady"

// OnSilentNode reports whether a pod was Ready, and only the silence of its node's kubelet
// makes it not Ready. The node lifecycle controller then sets the condition Ready of all
// pods of the node to False, and leaves ContainersReady as the kubelet wrote it
// (MarkPodsNotReady in pkg/controller/util/node). What the pod's containers do, nobody
// knows: most often they run on.
func OnSilentNode(pod *corev1.Pod) bool {
	ready, containers := Condition(pod, corev1.PodReady), Condition(pod, corev1.ContainersReady)
	return ready != nil && ready.Status != corev1.ConditionTrue && ready.Reason != readinessGates &&
		containers != nil && containers.Status == corev1.ConditionTrue &&
		pod.Status.Phase == corev1.PodRunning && WasReady(pod)
}

// ReadyChangedAt returns when the pod became Ready, or stopped being so. For a pod
// that was never Ready, it is when it reached a node; before that, BegunAt. So an
// application that restarts after days has the whole start timeout again, and is not
// taken for a launch that never finished. The same holds for one whose containers the
// kubelet found not ready after it had been silent.
func ReadyChangedAt(pod *corev1.Pod) time.Time {
	changed := BegunAt(pod)
	ready, containers := Condition(pod, corev1.PodReady), Condition(pod, corev1.ContainersReady)
	if ready != nil && ready.LastTransitionTime.After(changed) {
		changed = ready.LastTransitionTime.Time
	}
	if ready != nil && ready.Status != corev1.ConditionTrue &&
		containers != nil && containers.Status != corev1.ConditionTrue && containers.LastTransitionTime.After(changed) {
		changed = containers.LastTransitionTime.Time
	}
	return changed
}

// StartTook returns how long a pod took from BegunAt until it was Ready for the first time.
// ok is false if the pod does not tell: it is not Ready, its container was restarted, it started
// while it waited for a place, as one without a gate does, or it has become Ready later than a
// start may take, as after the silence of its node.
func StartTook(pod *corev1.Pod, startTimeout time.Duration) (took time.Duration, ok bool) {
	begun := BegunAt(pod)
	took = ReadyChangedAt(pod).Sub(begun)
	early := WasQueued(pod) && becameTrue(pod, corev1.PodScheduled).Before(begun.Truncate(time.Second)) // it is in whole seconds
	return took, IsServing(pod) && Restarts(pod) == 0 && !early && took >= 0 && took <= startTimeout
}

// ReportLag is how long the first status that a kubelet writes of a pod may take to arrive.
// It carries the times at which things happened on the node, so it can tell of one from
// before the end of the start timeout when that has passed.
const ReportLag = 15 * time.Second

// StartEnds returns when the start timeout of a pod that is not Ready ends. It counts from
// ReadyChangedAt. Instances must not go back from failed to deploying when the API server,
// the scheduler or the kubelet was away: so a pod of which no kubelet has written yet has
// ReportLag longer, and one that has reached its node only after a whole start timeout stays
// failed, as clients were told, unless it becomes Ready.
func StartEnds(pod *corev1.Pod, startTimeout time.Duration) time.Time {
	changed, begun := ReadyChangedAt(pod), BegunAt(pod)
	if Unreported(pod) || changed.Sub(begun) >= startTimeout && !WasReady(pod) {
		return begun.Add(startTimeout + ReportLag)
	}
	return changed.Add(startTimeout)
}

// Unreported reports whether no kubelet has written of a pod yet.
func Unreported(pod *corev1.Pod) bool { return Condition(pod, corev1.PodReady) == nil }

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
