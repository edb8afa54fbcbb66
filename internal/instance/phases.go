package instance

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Phase is a part of the start of an instance, named for what ends it. It is the value of a
// metric's label.
type Phase string

// The phases of a start, in their order.
const (
	PhaseScheduled Phase = "scheduled" // a node was found
	PhaseSandbox   Phase = "sandbox"   // the pod has its network, and its volumes are there
	PhaseStarted   Phase = "started"   // images were pulled, and the containers were started
	PhaseListening Phase = "listening" // the application is ready
)

// StartPhases lists every Phase.
func StartPhases() []Phase {
	return []Phase{PhaseScheduled, PhaseSandbox, PhaseStarted, PhaseListening}
}

// PhaseTime is how long a phase took.
type PhaseTime struct {
	Phase Phase
	Took  time.Duration
}

// Phases returns how long each part of the start of a pod took that was created for a launch:
// from launched until it was found to be deployed. Kubernetes notes seconds, so a phase is that
// exact. It does not note when the images of a pod were pulled, so that belongs to
// PhaseStarted. A phase whose end is not noted belongs to the next. ok is false as long as the
// pod does not say that its containers run.
func Phases(pod *corev1.Pod, launched, deployed time.Time) (all []PhaseTime, ok bool) {
	started := lastStart(pod)
	if started.IsZero() {
		return nil, false
	}
	ends := []struct {
		phase Phase
		at    time.Time
	}{
		{PhaseScheduled, becameTrue(pod, corev1.PodScheduled)},
		{PhaseSandbox, becameTrue(pod, corev1.PodReadyToStartContainers)},
		{PhaseStarted, started},
		{PhaseListening, deployed},
	}
	last := launched
	for _, end := range ends {
		if end.at.IsZero() {
			continue
		}
		took := max(0, end.at.Sub(last)) // the whole second may be before
		all = append(all, PhaseTime{end.phase, took})
		last = last.Add(took)
	}
	return all, true
}

// becameTrue returns when a condition became true, or zero if it is not.
func becameTrue(pod *corev1.Pod, kind corev1.PodConditionType) time.Time {
	if condition := Condition(pod, kind); condition != nil && condition.Status == corev1.ConditionTrue {
		return condition.LastTransitionTime.Time
	}
	return time.Time{}
}

// firstStart returns when the last of a pod's containers started for the first time that the pod
// still tells of, or zero if one has not.
func firstStart(pod *corev1.Pod) (last time.Time) {
	for _, status := range pod.Status.ContainerStatuses {
		var at time.Time
		for _, state := range []corev1.ContainerState{status.LastTerminationState, status.State} {
			switch {
			case !at.IsZero():
			case state.Running != nil:
				at = state.Running.StartedAt.Time
			case state.Terminated != nil:
				at = state.Terminated.StartedAt.Time
			}
		}
		if at.IsZero() {
			return at
		}
		if at.After(last) {
			last = at
		}
	}
	return last
}

// lastStart returns when the last of a pod's containers started, or zero if one has not.
func lastStart(pod *corev1.Pod) (last time.Time) {
	for _, status := range pod.Status.ContainerStatuses {
		if status.State.Running == nil {
			return time.Time{}
		}
		if at := status.State.Running.StartedAt.Time; at.After(last) {
			last = at
		}
	}
	return last
}
