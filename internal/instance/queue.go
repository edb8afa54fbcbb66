package instance

import (
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// QueueGate keeps a new pod from being scheduled while its instance waits for a place: see
// https://kubernetes.io/docs/concepts/scheduling-eviction/pod-scheduling-readiness/.
const QueueGate = "binder-project.org/queue"

// IsQueued reports whether the instance of a pod waits for a place within the limits. A pod with
// the gate does, whatever its label says: it is on no node, and somebody has to open the gate.
func IsQueued(pod *corev1.Pod) bool {
	return pod.Labels[QueueLabel] == QueueWaiting || IsGated(pod)
}

func isQueueGate(gate corev1.PodSchedulingGate) bool { return gate.Name == QueueGate }

// IsGated reports whether a pod has the gate.
func IsGated(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.SchedulingGates, isQueueGate)
}

// Enqueue makes a pod that is to be created wait for a place. One whose template names its node
// cannot have a gate: it starts, and nobody is let in before it has its place.
func Enqueue(pod *corev1.Pod) {
	pod.Labels[QueueLabel] = QueueWaiting
	if pod.Spec.NodeName == "" && !slices.ContainsFunc(pod.Spec.SchedulingGates, isQueueGate) {
		pod.Spec.SchedulingGates = append(pod.Spec.SchedulingGates, corev1.PodSchedulingGate{Name: QueueGate})
	}
}

// QueueAnnotations returns what is written on the pod of an instance that waits, besides the
// label: how many instances of its template there can be, for when the template is gone. 0 means no
// limit.
func QueueAnnotations(most int) map[string]string {
	if most == 0 {
		return nil
	}
	return map[string]string{MaxInstancesAnnotation: strconv.Itoa(most)}
}

// QueuedMost returns how many instances of the template of a pod there can be, by QueueAnnotations.
func QueuedMost(pod *corev1.Pod) (most int, limited bool) {
	most, err := strconv.Atoi(pod.Annotations[MaxInstancesAnnotation])
	return most, err == nil
}

// Admission returns what gives a queued pod its place at the time now, as JSON merge patches of
// its metadata and its spec. The launch counts from then on: nobody could use the instance
// before. maxAge is the instance's; 0 means no limit. Gates of others stay.
func Admission(pod *corev1.Pod, now time.Time, maxAge time.Duration) (metadata, spec map[string]any) {
	metadata = map[string]any{
		"labels":      map[string]any{QueueLabel: QueueAdmitted},
		"annotations": LaunchAnnotations(now, 0),
	}
	if IsGated(pod) {
		others := slices.DeleteFunc(slices.Clone(pod.Spec.SchedulingGates), isQueueGate)
		return metadata, map[string]any{"schedulingGates": others}
	}
	if deadline := Deadline(pod, now.Sub(pod.CreationTimestamp.Time), maxAge); deadline != nil { // that of a gated pod counts from its start
		spec = map[string]any{"activeDeadlineSeconds": *deadline}
	}
	return metadata, spec
}

// WasQueued reports whether the instance of a pod has got a place that it had to ask for.
func WasQueued(pod *corev1.Pod) bool { return pod.Labels[QueueLabel] == QueueAdmitted }

// BegunAt returns since when a pod starts: its creation, or when its instance got its place if
// it has waited for one.
func BegunAt(pod *corev1.Pod) time.Time {
	created := pod.CreationTimestamp.Time
	if !WasQueued(pod) {
		return created
	}
	if launched := LaunchedAt(pod); launched.After(created) {
		return launched
	}
	return created
}

// Lived returns how long an instance has lived at the time now: not at all while it waits for a
// place.
func Lived(pod *corev1.Pod, now time.Time) time.Duration {
	if IsQueued(pod) {
		return 0
	}
	return now.Sub(LaunchedAt(pod))
}

// queued is the finding of an instance that waits for a place.
func queued() finding {
	return finding{status: StatusPending, reason: ReasonQueued, message: waitingForPlace}
}

// QueuedMessage says how many launches get a place before that of an instance.
func QueuedMessage(ahead int) string {
	if ahead == 0 {
		return nextPlace
	}
	return Fill(placesBefore, "{ahead}", strconv.Itoa(ahead))
}
