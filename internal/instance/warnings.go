package instance

import (
	"cmp"
	"slices"
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
	if event.Reason == eventFailed {
		return true
	}
	for _, where := range []Where{WhereStarting, WhereRunning, WhereNode} {
		if _, known := causeOf(where, event.Reason, event.Message); known {
			return true
		}
	}
	return false
}

// An Event of reason Failed repeats what the status of a container that cannot start
// says, and tells since when. These are the beginnings of its messages.
const (
	eventFailed  = "Failed"
	failedToPull = "Failed to pull image" // why a pull failed
	failedToRun  = "Error: "              // the status's reason (of an image) or message follows
)

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

// inOrder returns the Warning Events of a pod in the order in which they were first seen:
// every replica must say the same of them.
func inOrder(pod *corev1.Pod, warnings []*corev1.Event) []*corev1.Event {
	own := slices.DeleteFunc(slices.Clone(warnings), func(event *corev1.Event) bool { return event.InvolvedObject.UID != pod.UID })
	slices.SortFunc(own, func(a, b *corev1.Event) int {
		return cmp.Or(firstSeen(a).Compare(firstSeen(b)), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Message, b.Message), cmp.Compare(a.Name, b.Name))
	})
	return own
}

// isPast reports whether an Event tells of the time before the pod stopped being Ready:
// what it says was mended then.
func isPast(pod *corev1.Pod, event *corev1.Event) bool {
	return WasReady(pod) && lastSeen(event).Before(ReadyChangedAt(pod))
}

// lastWarning returns the last Warning Event of a pod that the table knows in a place and
// that counts, with its row. Events are in order, see inOrder.
func lastWarning(where Where, pod *corev1.Pod, warnings []*corev1.Event, counts func(*corev1.Event) bool) (last *corev1.Event, cause Cause) {
	for _, event := range warnings {
		if isPast(pod, event) || last != nil && !lastSeen(event).After(lastSeen(last)) {
			continue
		}
		if row, known := causeOf(where, event.Reason, event.Message); known && counts(event) {
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
// about it before, in Warning Events in order, and since when. The kubelet alternates
// between reasons, and its tries can fail in different ways: a launch that has finally
// failed must not seem to go on. The first final row counts, and then one that is final
// once it has happened twice.
func worstSaid(pod *corev1.Pod, container, reason string, present Cause, presentText string, warnings []*corev1.Event) (worst Cause, text string, since time.Time) {
	again, tries := present, 0
	for _, event := range warnings {
		if !isAbout(event, pod, container) || isPast(pod, event) {
			continue
		}
		said, row := saidBefore(event, reason, present, presentText)
		if row.Outlook == Final {
			return row, said, firstSeen(event)
		}
		if row.Outlook != Backoff {
			continue
		}
		if tries++; tries == 1 {
			again, text, since = row, said, firstSeen(event)
		}
		if lastSeen(event).After(firstSeen(event)) {
			tries++
		}
	}
	if present.Outlook == Final || tries < 2 {
		return present, presentText, time.Time{}
	}
	again.Outlook = Final
	return again, text, since
}

// saidBefore returns what an Event says about a container that now waits for a reason,
// with the row for that reason. Of Events that say nothing about this reason, the row is
// empty: the kubelet gives all reasons that keep a container from starting the same
// reason as Events, and an earlier one has been mended.
func saidBefore(event *corev1.Event, reason string, present Cause, presentText string) (said string, row Cause) {
	said, run := strings.CutPrefix(event.Message, failedToRun)
	pull := strings.HasPrefix(event.Message, failedToPull)
	switch {
	case event.Reason != eventFailed || !run && !pull || pull != (reason == "ErrImagePull"):
		return "", Cause{}
	case said == reason:
		return presentText, present
	}
	row, _ = causeOf(WhereWaiting, reason, said)
	if run && len(row.Texts) == 0 && Clip(event.Message) != Clip(failedToRun+presentText) {
		return "", Cause{}
	}
	return said, row
}
