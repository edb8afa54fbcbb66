package instance

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// QueueGate keeps a new pod from being scheduled while its instance waits for a place: see
// https://kubernetes.io/docs/concepts/scheduling-eviction/pod-scheduling-readiness/.
const QueueGate = "binder-project.org/queue"

// IsQueued reports whether the instance of a pod waits for a place within the limits. A pod with
// the gate does, whatever its label says: it is on no node, and somebody has to open the gate.
func IsQueued(pod *corev1.Pod) bool {
	return pod.Labels[QueueLabel] == QueueWaiting || slices.ContainsFunc(pod.Spec.SchedulingGates, isQueueGate)
}

func isQueueGate(gate corev1.PodSchedulingGate) bool { return gate.Name == QueueGate }

// Enqueue makes a pod that is to be created wait for a place.
func Enqueue(pod *corev1.Pod) {
	pod.Labels[QueueLabel] = QueueWaiting
	if !slices.ContainsFunc(pod.Spec.SchedulingGates, isQueueGate) {
		pod.Spec.SchedulingGates = append(pod.Spec.SchedulingGates, corev1.PodSchedulingGate{Name: QueueGate})
	}
}

// Admission returns what gives a queued pod its place at the time now, as JSON merge patches of
// its metadata and its spec. The launch counts from then on: nobody could use the instance
// before. Gates of others stay.
func Admission(pod *corev1.Pod, now time.Time) (metadata, spec map[string]any) {
	metadata = map[string]any{
		"labels":      map[string]any{QueueLabel: QueueAdmitted},
		"annotations": LaunchAnnotations(now, 0),
	}
	if slices.ContainsFunc(pod.Spec.SchedulingGates, isQueueGate) {
		others := slices.DeleteFunc(slices.Clone(pod.Spec.SchedulingGates), isQueueGate)
		spec = map[string]any{"schedulingGates": others}
	}
	return metadata, spec
}

// BegunAt returns since when a pod starts: its creation, or when its instance got its place if
// it has waited for one.
func BegunAt(pod *corev1.Pod) time.Time {
	created := pod.CreationTimestamp.Time
	if pod.Labels[QueueLabel] != QueueAdmitted {
		return created
	}
	if launched := LaunchedAt(pod); launched.After(created) {
		return launched
	}
	return created
}

// queued is the finding of an instance that waits for a place.
func queued() finding {
	return finding{status: StatusPending, reason: ReasonQueued, message: "Waiting for a free place."}
}

// QueuedMessage says how many launches get a place before that of an instance.
func QueuedMessage(ahead int) string {
	if ahead == 0 {
		return "Waiting for a free place: the next one is yours."
	}
	return fmt.Sprintf("Waiting for a free place: %d before you.", ahead)
}
