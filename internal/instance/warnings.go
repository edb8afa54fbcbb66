package instance

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SlimWarning returns what is read of a Warning Event of a pod: a copy without the
// rest, so that many Events need little memory. Of an Event that says nothing about an
// instance, such as a tombstone, only the name is left.
func SlimWarning(event *corev1.Event) *corev1.Event {
	slim := &corev1.Event{ObjectMeta: metav1.ObjectMeta{
		Namespace: event.Namespace, Name: event.Name, UID: event.UID, ResourceVersion: event.ResourceVersion,
	}}
	if event.Type != corev1.EventTypeWarning || event.Labels[ManagedByLabel] == ManagerName || !strings.HasPrefix(event.InvolvedObject.Name, podNamePrefix) || !isRead(event) {
		return slim
	}
	slim.InvolvedObject = corev1.ObjectReference{
		Name: event.InvolvedObject.Name, UID: event.InvolvedObject.UID, FieldPath: event.InvolvedObject.FieldPath,
	}
	slim.Reason, slim.Message = event.Reason, strings.Clone(Clip(event.Message))
	slim.FirstTimestamp, slim.LastTimestamp = metav1.NewTime(firstSeen(event)), metav1.NewTime(lastSeen(event))
	return slim
}

// isRead reports whether a Warning Event can say something about an instance.
func isRead(event *corev1.Event) bool {
	if event.Reason == eventFailed || event.Reason == eventNeverPull || event.Reason == eventInspect {
		return true
	}
	for _, where := range []Where{WhereStarting, WhereRunning} {
		if _, known := causeOf(where, event.Reason, event.Message); known {
			return true
		}
	}
	return false
}

// Reasons of Events about containers that cannot start. They repeat what the container's
// status says, and tell since when.
const (
	eventFailed    = "Failed"
	eventNeverPull = "ErrImageNeverPull"
	eventInspect   = "InspectFailed"

	failedToPull = "Failed to pull image" // the message of an Event of reason Failed
	failedToRun  = "Error: "              // also; the text of the status follows
)

// IDOfWarning returns the id of the instance that a Warning Event is about, or "".
func IDOfWarning(event *corev1.Event) string {
	id, found := strings.CutPrefix(event.InvolvedObject.Name, podNamePrefix)
	if !found || !ValidID(id) {
		return ""
	}
	return id
}

func firstSeen(event *corev1.Event) time.Time {
	if event.FirstTimestamp.IsZero() {
		return event.EventTime.Time // written by the newer API, as by the scheduler
	}
	return event.FirstTimestamp.Time
}

func lastSeen(event *corev1.Event) time.Time {
	last := event.LastTimestamp.Time
	if event.Series != nil && event.Series.LastObservedTime.After(last) {
		last = event.Series.LastObservedTime.Time
	}
	if last.IsZero() {
		return firstSeen(event)
	}
	return last
}

// lastWarning returns the last Warning Event of a pod that the table knows in a place,
// with its row.
func lastWarning(where Where, pod *corev1.Pod, warnings []*corev1.Event) (last *corev1.Event, cause Cause) {
	for _, event := range warnings {
		if event.InvolvedObject.UID != pod.UID || last != nil && !lastSeen(event).After(lastSeen(last)) {
			continue
		}
		if row, known := causeOf(where, event.Reason, event.Message); known {
			last, cause = event, row
		}
	}
	return last, cause
}

// isAbout reports whether an Event is about a container of a pod.
func isAbout(event *corev1.Event, pod *corev1.Pod, container string) bool {
	return event.InvolvedObject.UID == pod.UID && strings.HasSuffix(event.InvolvedObject.FieldPath, "{"+container+"}")
}

// worstSaid returns the worst row for a waiting container by what the kubelet has said
// about it before, in Warning Events, and since when. The kubelet alternates between
// reasons, and its tries can fail in different ways: a launch that has finally failed
// must not seem to go on.
func worstSaid(pod *corev1.Pod, container, reason string, present Cause, warnings []*corev1.Event) (worst Cause, text string, since time.Time) {
	worst = present
	for _, event := range warnings {
		if !isAbout(event, pod, container) {
			continue
		}
		said, row := event.Message, present
		switch {
		case event.Reason == eventNeverPull || event.Reason == eventInspect:
		case event.Reason != eventFailed:
			continue
		case reason == "ErrImagePull" && strings.HasPrefix(said, failedToPull), strings.HasPrefix(said, failedToRun):
			said = strings.TrimPrefix(said, failedToRun)
			row, _ = causeOf(WhereWaiting, reason, said)
		default:
			continue
		}
		switch {
		case row.Outlook == Final && worst.Outlook != Final:
			worst, text, since = row, said, firstSeen(event)
		case row.Outlook == Final && (since.IsZero() || firstSeen(event).Before(since)):
			since = firstSeen(event)
		case worst.Outlook == Backoff && said == "ImagePullBackOff":
			worst.Outlook = Final
		}
	}
	return worst, text, since
}
