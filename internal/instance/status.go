package instance

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Status is the state of an instance in the words of the Binder deploy protocol.
type Status string

// The statuses of an instance.
const (
	StatusPending   Status = "pending"   // not yet on a node
	StatusDeploying Status = "deploying" // on a node, but not yet listening
	StatusDeployed  Status = "deployed"  // listening; only now it has a location
	StatusFailed    Status = "failed"    // did not start, or broke down
	StatusDeleted   Status = "deleted"   // ended: culled, stopped, or by itself
)

// Statuses returns every Status, in the order in which an instance goes through them.
func Statuses() []Status {
	return []Status{StatusPending, StatusDeploying, StatusDeployed, StatusFailed, StatusDeleted}
}

// Settled reports whether a client that waits for a launch has its answer: the
// instance is deployed, has failed or has ended.
func (s Status) Settled() bool { return s != StatusPending && s != StatusDeploying }

// Over reports whether an instance can neither be used nor become usable.
func (s Status) Over() bool { return s == StatusFailed || s == StatusDeleted }

// finding is what a pod and its Warning Events say about an instance: its status, and
// the fields of Instance of the same names. The output is that of LastOutput, which ends the
// message.
type finding struct {
	status                  Status
	reason, message, detail string
	output                  string
	fault                   Fault
	failedAt                time.Time
}

// failed returns the finding of a failure. Its message says what to do.
func failed(reason, message, detail string, fault Fault, at time.Time) finding {
	if next := advice(fault); next != "" {
		message += " " + next
	}
	return finding{status: StatusFailed, reason: wordOr(reason, "Failed"), message: message, detail: detail, fault: fault, failedAt: at}
}

// deriveStatus returns what a pod and its Warning Events say. It is never stored, so it
// cannot disagree with the pod. A final failure stays, with its reason: all reasons that
// the kubelet alternates between are read as one.
func deriveStatus(pod *corev1.Pod, warnings []*corev1.Event, now time.Time, startTimeout time.Duration) finding {
	if pod.DeletionTimestamp != nil {
		return deleting(pod)
	}
	if f, over := ended(pod, warnings); over {
		return f
	}
	if IsQueued(pod) {
		return queued()
	}
	if silent := OnSilentNode(pod); pod.Status.PodIP != "" && (silent || IsReady(pod)) {
		return deployed(pod, warnings, silent)
	}
	trouble := troubleOf(pod, warnings, now)
	if trouble.final {
		f := failed(trouble.reason, trouble.message, trouble.detail, trouble.fault, trouble.since)
		f.output = trouble.output
		return f
	}
	if at := StartEnds(pod, startTimeout); !now.Before(at) {
		return timedOut(trouble, startTimeout, at)
	}
	status := StatusDeploying
	if pod.Spec.NodeName == "" {
		status = StatusPending
	}
	return finding{status: status, message: trouble.message, detail: trouble.detail, output: trouble.output, fault: trouble.fault}
}

// deployed is the finding of an instance that serves, or that served when its node fell
// silent: what the kubelet last said counts until somebody knows better. So a part of the
// cluster that is cut off costs nobody an instance.
func deployed(pod *corev1.Pod, warnings []*corev1.Event, silent bool) finding {
	f := finding{status: StatusDeployed, message: restartMessage(restartsOf(pod, warnings))}
	if silent && f.message == "" {
		cause, _ := causeOf(WhereNode, "NodeNotReady", "")
		f.message = cause.Message
	}
	return f
}

// timedOut is the finding of an instance that was not ready in time. It says what the
// launch was last waiting for, or doing.
func timedOut(trouble trouble, startTimeout time.Duration, at time.Time) finding {
	message := Fill(notReadyInTime, "{time}", startTimeout.String())
	fault := trouble.fault
	if fault == "" {
		fault = FaultChance
		message += " " + lastStepWas
	}
	message += " " + trouble.message
	f := failed(ReasonStartTimeout, message, trouble.detail, fault, at)
	f.output = trouble.output
	return f
}

// deleting is the finding of a pod that is being deleted. The cluster says why it does
// so itself.
func deleting(pod *corev1.Pod) finding {
	f := finding{status: StatusDeleted, reason: ReasonDeleting, message: beingDeleted}
	if cause, detail, found := disruption(pod); found {
		f.message, f.detail, f.fault = cause.Message, detail, cause.Fault
	}
	return f
}

// Disrupted says why an instance ends whose pod others have deleted: the cluster does so itself,
// for reasons that are on the pod, and people do.
func Disrupted(pod *corev1.Pod) End {
	if cause, detail, found := disruption(pod); found {
		return End{Reason: EndGone, Message: cause.Message, Detail: detail, Fault: cause.Fault}
	}
	return End{Reason: EndGone, Message: deletedOutside}
}

// disruption returns why the cluster, and not this service, deletes or has ended a pod.
func disruption(pod *corev1.Pod) (cause Cause, detail string, found bool) {
	target := Condition(pod, corev1.DisruptionTarget)
	if target == nil || target.Status != corev1.ConditionTrue {
		return Cause{}, "", false
	}
	cause, _ = causeOf(WhereDisruption, target.Reason, target.Message)
	return cause, detailOf(target.Reason, target.Message), true
}
