package instance

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// listenGrace is how long a container may run before a visitor is told that nothing
// listens on its port. Most applications take a while to start.
const listenGrace = 30 * time.Second

// trouble is what keeps a pod from being Ready. It has a fault if it is more than the
// usual steps of a start.
type trouble struct {
	reason, message, detail string
	fault                   Fault
	final                   bool      // it will not be Ready without a change
	since                   time.Time // when it became final; zero if nothing says
}

// troubleOf returns what keeps a pod from being Ready.
func troubleOf(pod *corev1.Pod, warnings []*corev1.Event, now time.Time) trouble {
	statuses, _ := speakers(pod)
	var first, past trouble // past is that of a container that runs again, and is not Ready
	for _, status := range statuses {
		t := containerTrouble(pod, status, warnings)
		switch runs := status.State.Running != nil; {
		case t.final:
			return t
		case t.fault != "" && runs && past.fault == "":
			past = t
		case t.fault != "" && !runs && first.fault == "":
			first = t
		}
	}
	switch {
	case first.fault != "":
		return first
	case pod.Spec.NodeName == "":
		return schedulingTrouble(pod, warnings)
	}
	present := startingTrouble(pod, warnings, now)
	if present.fault == "" && past.fault != "" {
		return past
	}
	return present
}

// schedulingTrouble says why a pod is on no node.
func schedulingTrouble(pod *corev1.Pod, warnings []*corev1.Event) trouble {
	if event, cause := lastWarning(WhereStarting, pod, warnings); event != nil && event.Reason != "FailedScheduling" {
		return trouble{reason: event.Reason, message: cause.Message, detail: detailOf(event.Reason, event.Message), fault: cause.Fault}
	}
	scheduled := Condition(pod, corev1.PodScheduled)
	if scheduled == nil || scheduled.Status == corev1.ConditionTrue || scheduled.Reason == "" {
		return trouble{message: "waiting for a node"}
	}
	cause, _ := causeOf(WhereScheduling, scheduled.Reason, scheduled.Message)
	return trouble{reason: scheduled.Reason, message: cause.Message, detail: detailOf(scheduled.Reason, scheduled.Message), fault: cause.Fault}
}

// PullFailure returns why the image of a container cannot be pulled, in the words of the
// cluster. lasting is true if that is final, or if the kubelet has begun to wait between
// its tries.
func PullFailure(pod *corev1.Pod, status *corev1.ContainerStatus, warnings []*corev1.Event) (reason, text string, lasting bool) {
	t := containerTrouble(pod, status, warnings)
	lasting = t.final || status.State.Waiting != nil && status.State.Waiting.Reason == "ImagePullBackOff" ||
		slices.ContainsFunc(warnings, func(event *corev1.Event) bool {
			return isAbout(event, pod, status.Name) && event.Message == failedToRun+"ImagePullBackOff"
		})
	return t.reason, strings.TrimPrefix(t.detail, t.reason+": "), lasting
}

// containerTrouble says what is wrong with one container: it cannot start, or it ended
// and is started again.
func containerTrouble(pod *corev1.Pod, status *corev1.ContainerStatus, warnings []*corev1.Event) trouble {
	reason, text := startFailure(status)
	if reason == "" {
		return crashTrouble(pod, status, warnings)
	}
	cause, _ := causeOf(WhereWaiting, reason, text)
	if cause.Fault == "" {
		return trouble{} // a usual step of a start
	}
	if waiting := status.State.Waiting; waiting != nil && waiting.Reason == "ImagePullBackOff" && cause.Outlook == Backoff {
		cause.Outlook = Final
	}
	cause, said, since := worstSaid(pod, status.Name, reason, cause, warnings)
	if said != "" {
		text = said
	}
	message := sentence(cause.Message, pod, status)
	if cause.Outlook == Backoff {
		message += " The node tries again."
	}
	return trouble{
		reason: cause.Reason, message: message, detail: detailOf(reason, text),
		fault: cause.Fault, final: cause.Outlook == Final, since: since,
	}
}

// startFailure returns why a container cannot start, or "" if it waits for nothing, or
// only for its next start after it ended. It looks behind the kubelet's pauses, which
// alternate with the reason itself: ImagePullBackOff has that in its message, and a
// CrashLoopBackOff after a start that failed is a RunContainerError.
func startFailure(status *corev1.ContainerStatus) (reason, text string) {
	if ended := lastEnd(status); ended != nil && ended.Reason == "StartError" && status.State.Running == nil {
		return "RunContainerError", ended.Message
	}
	waiting := status.State.Waiting
	switch {
	case waiting == nil || waiting.Reason == "" || waiting.Reason == "CrashLoopBackOff":
		return "", ""
	case waiting.Reason != "ImagePullBackOff":
		return waiting.Reason, waiting.Message
	}
	if found := pullBackoff.FindStringSubmatch(waiting.Message); found != nil {
		return found[1], found[2]
	}
	return "ErrImagePull", waiting.Message
}

// crashTrouble is the trouble of a container that ended and is started again. It is final
// if that has gone on for too long before the pod was ever Ready. An application that was
// Ready before gets its chance, for the whole start timeout.
func crashTrouble(pod *corev1.Pod, status *corev1.ContainerStatus, warnings []*corev1.Event) trouble {
	ended, times := lastEnd(status), exits(status)
	final := times >= mostExits && !wasReady(pod)
	if waiting := status.State.Waiting; ended == nil && waiting != nil && waiting.Reason != "" { // the node has lost how it ended
		cause, _ := causeOf(WhereWaiting, waiting.Reason, waiting.Message)
		return trouble{reason: waiting.Reason, message: sentence(cause.Message, pod, status), detail: detailOf(waiting.Reason, waiting.Message), fault: cause.Fault}
	}
	if ended == nil || status.State.Running != nil && status.Ready && !final || ended.ExitCode == 0 && isInit(pod, status.Name) {
		return trouble{}
	}
	words := fmt.Sprintf("container %s %s", status.Name, endWords(pod, status, ended, warnings))
	if times > 1 {
		words += fmt.Sprintf(", %d times", times)
	}
	message := "The application ended and is started again: "
	serving := servingStatus(pod)
	switch {
	case final:
		message = "The application does not start: "
	case serving == nil || serving.Name != status.Name:
		message = "The application waits for another container that ended and is started again: "
	}
	return trouble{
		reason: "CrashLoopBackOff", message: message + words + ".", detail: detailOf(ended.Reason, ended.Message),
		fault: FaultTemplate, final: final, since: ended.FinishedAt.Time,
	}
}

// startingTrouble says how far a pod on a node is, whose containers have no trouble of
// their own, and what the last Warning Event says about that.
func startingTrouble(pod *corev1.Pod, warnings []*corev1.Event, now time.Time) trouble {
	serving := servingStatus(pod)
	if serving != nil && serving.State.Running != nil {
		event, cause := lastWarning(WhereRunning, pod, warnings)
		if event == nil || now.Sub(serving.State.Running.StartedAt.Time) < listenGrace || lastSeen(event).Before(serving.State.Running.StartedAt.Time) {
			return trouble{message: "starting the application"}
		}
		return trouble{reason: event.Reason, message: sentence(cause.Message, pod, serving), detail: detailOf(event.Reason, event.Message), fault: cause.Fault}
	}
	// Volumes and the network are there once the sandbox is.
	sandbox := Condition(pod, corev1.PodReadyToStartContainers)
	if sandbox != nil && sandbox.Status == corev1.ConditionTrue {
		return trouble{message: creatingMessage(pod)}
	}
	if event, cause := lastWarning(WhereStarting, pod, warnings); event != nil && event.Reason != "FailedScheduling" {
		return trouble{reason: event.Reason, message: cause.Message, detail: detailOf(event.Reason, event.Message), fault: cause.Fault}
	}
	return trouble{message: "preparing the pod on its node"}
}

// creatingMessage says what a pod with a sandbox is doing: the kubelet says
// ContainerCreating while it pulls an image and while it creates the container. The pull
// is what takes long.
func creatingMessage(pod *corev1.Pod) string {
	for _, status := range ContainerStatuses(pod) {
		if waiting := status.State.Waiting; waiting != nil && (waiting.Reason == "ContainerCreating" || waiting.Reason == "PodInitializing") {
			if waiting.Reason == "PodInitializing" && initRuns(pod) {
				return "preparing the application"
			}
			return fmt.Sprintf("pulling image %s", Clip(status.Image))
		}
	}
	return "preparing the pod on its node"
}

func initRuns(pod *corev1.Pod) bool {
	for i := range pod.Status.InitContainerStatuses {
		if status := &pod.Status.InitContainerStatuses[i]; status.State.Running != nil && !isSidecar(pod, status.Name) {
			return true
		}
	}
	return false
}
