package instance

import (
	"slices"
	"strconv"
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
	reason, message, detail string // the message is a sentence
	output                  string // of LastOutput
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
	scheduled := Condition(pod, corev1.PodScheduled)
	// An Event from before the scheduler looked at the pod tells of what was mended then.
	event, cause := lastWarning(WhereStarting, pod, warnings, func(event *corev1.Event) bool {
		return scheduled == nil || !lastSeen(event).Before(scheduled.LastTransitionTime.Time)
	})
	if event != nil {
		return trouble{reason: event.Reason, message: cause.Message, detail: detailOf(event.Reason, event.Message), fault: cause.Fault}
	}
	if scheduled == nil || scheduled.Status == corev1.ConditionTrue || scheduled.Reason == "" {
		return trouble{message: waitingForNode}
	}
	cause, _ = causeOf(WhereScheduling, scheduled.Reason, scheduled.Message)
	return trouble{reason: scheduled.Reason, message: cause.Message, detail: detailOf(scheduled.Reason, scheduled.Message), fault: cause.Fault}
}

// PullFailure returns why the image of a container cannot be pulled, in the words of the
// cluster. lasting is true if that is final, or if the kubelet has begun to wait between
// its tries.
func PullFailure(pod *corev1.Pod, status *corev1.ContainerStatus, warnings []*corev1.Event) (reason, text string, lasting bool) {
	t := containerTrouble(pod, status, inOrder(pod, warnings))
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
	cause, text, since := worstSaid(pod, status.Name, reason, cause, text, warnings)
	message := sentence(cause.Message, pod, status, "")
	if cause.Outlook == Backoff {
		message += " " + nodeTriesAgain
	}
	return trouble{
		reason: cause.Reason, message: message, detail: detailOf(reason, text),
		fault: cause.Fault, final: cause.Outlook == Final, since: since,
	}
}

// startFailure returns why a container cannot start, or "" if it waits for nothing, or
// only for its next start after it ended. It looks behind the kubelet's pauses, which
// alternate with the reason itself: ImagePullBackOff has that in its message, and a
// CrashLoopBackOff after a start that failed is a RunContainerError. A postStart command
// that fails ends its container, so that is an end like any other.
func startFailure(status *corev1.ContainerStatus) (reason, text string) {
	if ended := lastEnd(status); ended != nil && ended.Reason == "StartError" && status.State.Running == nil {
		return "RunContainerError", ended.Message
	}
	waiting := status.State.Waiting
	switch {
	case waiting == nil || waiting.Reason == "" || waiting.Reason == "CrashLoopBackOff",
		waiting.Reason == "PostStartHookError" && lastEnd(status) != nil:
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
	final := times >= mostExits && !WasReady(pod)
	if waiting := status.State.Waiting; ended == nil && waiting != nil && waiting.Reason != "" { // the node has lost how it ended
		cause, _ := causeOf(WhereWaiting, waiting.Reason, waiting.Message)
		return trouble{reason: waiting.Reason, message: sentence(cause.Message, pod, status, ""), detail: detailOf(waiting.Reason, waiting.Message), fault: cause.Fault}
	}
	if ended == nil || status.State.Running != nil && status.Ready && !final || ended.ExitCode == 0 && isInit(pod, status.Name) {
		return trouble{}
	}
	text, often := endedAndRestarts, endedAndRestartsOften
	serving := servingStatus(pod)
	switch {
	case final:
		text, often = doesNotStart, doesNotStartOften
	case serving == nil || serving.Name != status.Name:
		text, often = waitsForOther, waitsForOtherOften
	}
	if times > 1 {
		text = Fill(often, "{times}", strconv.Itoa(int(times)))
	}
	message := sentence(text, pod, status, endWords(pod, status, ended, warnings))
	return trouble{
		reason: "CrashLoopBackOff", message: message, detail: endDetail(pod, ended), output: LastOutput(pod, ended),
		fault: endFault(pod, ended), final: final, since: ended.FinishedAt.Time,
	}
}

// startingTrouble says how far a pod on a node is, whose containers have no trouble of
// their own, and what the last Warning Event says about that.
func startingTrouble(pod *corev1.Pod, warnings []*corev1.Event, now time.Time) trouble {
	if serving := servingStatus(pod); serving != nil && serving.State.Running != nil {
		return runningTrouble(pod, serving, warnings, now)
	}
	// Volumes and the network are there once the sandbox is.
	sandbox := Condition(pod, corev1.PodReadyToStartContainers)
	if sandbox != nil && sandbox.Status == corev1.ConditionTrue {
		return trouble{message: creatingMessage(pod)}
	}
	if event, cause := lastWarning(WhereStarting, pod, warnings, func(*corev1.Event) bool { return true }); event != nil {
		return trouble{reason: event.Reason, message: cause.Message, detail: detailOf(event.Reason, event.Message), fault: cause.Fault}
	}
	return trouble{message: preparingPod}
}

// runningTrouble says why a pod is not Ready whose application runs: its node does not
// work, or a container's probe fails.
func runningTrouble(pod *corev1.Pod, serving *corev1.ContainerStatus, warnings []*corev1.Event, now time.Time) trouble {
	if event, cause := lastWarning(WhereNode, pod, warnings, func(*corev1.Event) bool { return WasReady(pod) }); event != nil {
		return trouble{reason: event.Reason, message: cause.Message, detail: detailOf(event.Reason, event.Message), fault: cause.Fault}
	}
	statuses, _ := speakers(pod)
	for _, status := range statuses {
		running := status.State.Running
		if running == nil || status.Ready || now.Sub(running.StartedAt.Time) < listenGrace {
			continue
		}
		event, cause := lastWarning(WhereRunning, pod, warnings, func(event *corev1.Event) bool {
			return isAbout(event, pod, status.Name) && !lastSeen(event).Before(running.StartedAt.Time)
		})
		if event == nil {
			continue
		}
		if strings.Contains(event.Message, "connection refused") && !strings.Contains(event.Message, ":"+PodPort(pod)+": ") {
			cause, _ = causeOf(WhereRunning, event.Reason, "") // the probe of another port
		}
		return trouble{reason: event.Reason, message: sentence(cause.Message, pod, status, ""), detail: detailOf(event.Reason, event.Message), fault: cause.Fault}
	}
	if serving.Ready {
		return trouble{message: waitingForRest}
	}
	return trouble{message: startingApplication}
}

// creatingMessage says what a pod with a sandbox is doing: the kubelet says
// ContainerCreating while it pulls an image and while it creates the container. The pull
// is what takes long.
func creatingMessage(pod *corev1.Pod) string {
	for _, status := range ContainerStatuses(pod) {
		if waiting := status.State.Waiting; waiting != nil && (waiting.Reason == "ContainerCreating" || waiting.Reason == "PodInitializing") {
			if waiting.Reason == "PodInitializing" && initRuns(pod) {
				return preparingApplication
			}
			return Fill(fetchingImage, "{image}", Clip(status.Image))
		}
	}
	return preparingPod
}

func initRuns(pod *corev1.Pod) bool {
	for i := range pod.Status.InitContainerStatuses {
		if status := &pod.Status.InitContainerStatuses[i]; status.State.Running != nil && !isSidecar(pod, status.Name) {
			return true
		}
	}
	return false
}
