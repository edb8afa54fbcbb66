package instance

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// ended returns the finding of an instance whose application has ended and is not
// started again, and whether that is so. The container that serves decides: a helper may
// run on, and sidecars are killed after it.
func ended(pod *corev1.Pod, warnings []*corev1.Event) (f finding, over bool) {
	if pod.Status.Phase == corev1.PodFailed && pod.Status.Reason != "" {
		cause, _ := causeOf(WherePod, pod.Status.Reason, pod.Status.Message)
		return failed(pod.Status.Reason, cause.Message, detailOf(pod.Status.Reason, pod.Status.Message), cause.Fault, endTime(pod)), true
	}
	if serving := servingStatus(pod); serving != nil && serving.State.Terminated != nil &&
		(isOver(pod, serving) || pod.Status.Phase == corev1.PodFailed) {
		if serving.State.Terminated.ExitCode == 0 {
			return completed(pod, serving.State.Terminated), true
		}
		return exited(pod, serving, serving.State.Terminated, warnings), true
	}
	switch pod.Status.Phase {
	case corev1.PodSucceeded:
		return completed(pod, nil), true
	case corev1.PodFailed:
		return phaseFailed(pod, warnings), true
	}
	return helperEnded(pod, warnings)
}

// Failure returns why a pod is in phase Failed, for operators.
func Failure(pod *corev1.Pod) (reason, detail string) {
	f, _ := ended(pod, nil)
	if f.status != StatusFailed {
		f = phaseFailed(pod, nil)
	}
	if f.detail == "" || f.detail == f.reason {
		return f.reason, withLastOutput(f.message, f.output)
	}
	return f.reason, strings.TrimPrefix(f.detail, f.reason+": ")
}

// completed is the finding of an application that ended by itself. ended can be nil.
func completed(pod *corev1.Pod, ended *corev1.ContainerStateTerminated) finding {
	f := finding{status: StatusDeleted, reason: ReasonCompleted, message: endedByItself}
	if ended != nil {
		f.detail = Clip(withoutSecrets(pod, ended.Message))
	}
	return f
}

// exited is the finding of a container that ended with an error and is not started again.
func exited(pod *corev1.Pod, status *corev1.ContainerStatus, ended *corev1.ContainerStateTerminated, warnings []*corev1.Event) finding {
	message := sentence(endCause(ended).Message, pod, status, endWords(pod, status, ended, warnings))
	at := ended.FinishedAt.Time
	if at.IsZero() {
		at = endTime(pod)
	}
	return failedByEnd(pod, ended, ended.Reason, message, at)
}

// failedByEnd is the finding of a failure by the end of a container.
func failedByEnd(pod *corev1.Pod, ended *corev1.ContainerStateTerminated, reason, message string, at time.Time) finding {
	f := failed(reason, message, endDetail(pod, ended), endFault(pod, ended), at)
	f.output = LastOutput(pod, ended)
	if f.fault == FaultChance {
		f.message += " " + tellIfAgain
	}
	return f
}

// endCause returns the row for the end of a container. A reason that the table does not
// know counts as an error of the application.
func endCause(ended *corev1.ContainerStateTerminated) Cause {
	cause, known := causeOf(WhereTerminated, ended.Reason, ended.Message)
	if !known || cause.Reason == "Completed" {
		cause, _ = causeOf(WhereTerminated, "Error", "")
	}
	return cause
}

// endFault says who can mend that a container ended. An application that was Ready once
// works, so a new one may go well. One that never was has not been used, so its visitor
// has done nothing wrong.
func endFault(pod *corev1.Pod, ended *corev1.ContainerStateTerminated) Fault {
	switch fault := endCause(ended).Fault; {
	case fault == FaultTemplate && WasReady(pod):
		return FaultChance
	case fault == FaultVisitor && !WasReady(pod):
		return FaultTemplate
	default:
		return fault
	}
}

// phaseFailed is the finding of a pod in phase Failed that gives no reason, and whose
// application has no error: the first container with an error speaks. Sidecars do not,
// as they are killed at the end.
func phaseFailed(pod *corev1.Pod, warnings []*corev1.Event) finding {
	statuses, sidecars := speakers(pod)
	for _, status := range statuses[:len(statuses)-sidecars] {
		if ended := status.State.Terminated; ended != nil && ended.ExitCode != 0 {
			return exited(pod, status, ended, warnings)
		}
	}
	if cause, detail, found := disruption(pod); found {
		return failed(cause.Reason, cause.Message, detail, cause.Fault, endTime(pod))
	}
	return failed("Failed", endNotSaid, "", FaultChance, endTime(pod))
}

// helperEnded returns the finding of a pod that can never be Ready again, because a
// container beside the one that serves has ended and is not started again. The kubelet
// calls only a pod Ready in which all containers run.
func helperEnded(pod *corev1.Pod, warnings []*corev1.Event) (f finding, over bool) {
	for i := range pod.Status.ContainerStatuses {
		status := &pod.Status.ContainerStatuses[i]
		if !isOver(pod, status) {
			continue
		}
		ended := status.State.Terminated
		message := sentence(helperHasEnded, pod, status, endWords(pod, status, ended, warnings))
		return failedByEnd(pod, ended, ReasonHelperEnded, message, ended.FinishedAt.Time), true
	}
	return finding{}, false
}

// endTime returns when the last container of a pod ended, or when the pod stopped being
// Ready, if that is later.
func endTime(pod *corev1.Pod) time.Time {
	at := ReadyChangedAt(pod)
	for _, status := range pod.Status.ContainerStatuses {
		if ended := status.State.Terminated; ended != nil && ended.FinishedAt.After(at) {
			at = ended.FinishedAt.Time
		}
	}
	return at
}
