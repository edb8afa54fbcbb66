package instance

import (
	"slices"
	"strings"
)

// Where says in which part of a pod, or of which kind of Event, a reason stands.
type Where string

// Where reasons stand.
const (
	WhereWaiting    Where = "waiting container" // status.containerStatuses[].state.waiting
	WhereTerminated Where = "ended container"   // status.containerStatuses[].state.terminated
	WherePod        Where = "pod"               // status.reason
	WhereScheduling Where = "scheduling"        // the condition PodScheduled
	WhereDisruption Where = "disruption"        // the condition DisruptionTarget
	WhereStarting   Where = "Event at start"    // a Warning Event before containers can run
	WhereRunning    Where = "Event of a running container"
	WhereNode       Where = "Event of the node" // of a pod that was Ready on it
)

// Outlook says whether an instance can still start.
type Outlook string

// The outlooks.
const (
	Passing Outlook = "passes"  // the cluster goes on trying; only the start timeout ends it
	Backoff Outlook = "backoff" // final once it has happened twice
	Final   Outlook = "final"   // it will not start without a change
)

// Cause is a row of the table of reasons: what a reason of Kubernetes means.
type Cause struct {
	Where  Where
	Reason string
	// Texts are parts of messages. A row with Texts is for messages that have one of
	// them; one without is for all others.
	Texts   []string
	Outlook Outlook
	Fault   Fault
	// Message is for visitors. {container}, {image} and {port} stand for the container's
	// name and image, and for the port that should listen, {how} for how it ended: one of
	// EndTexts.
	Message string
}

// Causes returns the table of reasons: those of Kubernetes 1.36 and of its container
// runtimes that say why an instance is in trouble. Of several rows with a reason, the
// first that matches counts.
func Causes() []Cause {
	var all []Cause
	for _, where := range []Where{WhereWaiting, WhereTerminated, WherePod, WhereScheduling, WhereDisruption, WhereStarting, WhereRunning, WhereNode} {
		all = append(all, causesAt(where)...)
	}
	return all
}

// causesAt returns the rows of one place.
func causesAt(where Where) []Cause {
	switch where {
	case WhereWaiting:
		return append(waitingCauses(), imageCauses()...)
	case WhereTerminated:
		return terminatedCauses()
	case WherePod:
		return podCauses()
	case WhereScheduling:
		return schedulingCauses()
	case WhereDisruption:
		return disruptionCauses()
	case WhereStarting:
		return startingCauses()
	case WhereRunning:
		return runningCauses()
	case WhereNode:
		return nodeCauses()
	}
	return nil
}

// causeOf finds the row for a reason and its message. Without one, it returns a row
// that admits not to know the reason, and false.
func causeOf(where Where, reason, text string) (Cause, bool) {
	for _, row := range causesAt(where) {
		if (row.Reason == reason || row.Reason == "OutOf*" && strings.HasPrefix(reason, "OutOf")) && row.hasText(text) {
			return row, true
		}
	}
	return Cause{
		Where: where, Reason: wordOr(reason, "Unknown"), Outlook: Passing, Fault: FaultCluster,
		Message: unknownProblem,
	}, false
}

func (c Cause) hasText(text string) bool {
	for _, part := range c.Texts {
		if strings.Contains(text, part) {
			return true
		}
	}
	return len(c.Texts) == 0
}

// otherFailure is the label of failures that the table does not know.
const otherFailure = "other"

// FailureLabels returns the reasons of failures as labels of a metric: those that the
// table and this service know, and one for all others.
func FailureLabels() []string {
	labels := []string{ReasonStartTimeout, ReasonHelperEnded, otherFailure}
	for _, cause := range Causes() {
		switch cause.Where {
		case WhereScheduling, WhereStarting, WhereRunning, WhereNode:
			continue // these end as ReasonStartTimeout
		}
		if cause.Fault != "" && wordOr(cause.Reason, "") != "" && !slices.Contains(labels, cause.Reason) {
			labels = append(labels, cause.Reason)
		}
	}
	return labels
}

// FailureLabel returns the label of a failure's reason.
func FailureLabel(reason string) string {
	if slices.Contains(FailureLabels(), reason) {
		return reason
	}
	return otherFailure
}
