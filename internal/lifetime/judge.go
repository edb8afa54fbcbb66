package lifetime

import (
	"errors"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// FailedRetention keeps a failed instance for a while, so that a polling client
// learns that it failed and an operator can read its log.
const FailedRetention = time.Minute

// Action is what is to be done with an instance.
type Action int

// What can be done with an instance.
const (
	Keep Action = iota // nothing
	End                // delete it
	Fix                // replace wrong times on its pod, see FixWrongTimes
)

// Verdict is what Judge decides. End has a Reason. End and Fix have a Message for
// people. For a failed instance, Fault, Failure (its reason) and Detail (which begins with
// that reason) are set too.
type Verdict struct {
	Action  Action
	Reason  instance.EndReason
	Message string
	Detail  string
	Fault   instance.Fault
	Failure string
	// InDoubt says that the instance may yet be in use: it was Ready, and it counts as
	// failed only because it has not been Ready for the start timeout. FailedFor is how
	// long it has counted as failed. See Brake.
	InDoubt   bool
	FailedFor time.Duration
}

// Judge decides what happens to an instance. It never treats an unreadable annotation
// as idleness, and it finds an end for every instance.
//
// While deletes are held, only instances that have completed or whose failure is final get
// an End, and times in the future stay: other replicas may still have uses to write, and
// this replica's clock may be wrong.
//
// warnings are the pod's Warning Events. Judge and the API agree on what has failed,
// because both ask package instance.
func (r Rules) Judge(pod *corev1.Pod, warnings []*corev1.Event, now time.Time, held bool) Verdict {
	if pod.DeletionTimestamp != nil {
		return Verdict{}
	}
	var v Verdict
	switch inst := instance.FromPod(pod, warnings, now, r.StartTimeout); inst.Status {
	case instance.StatusDeleted: // completed
		return Verdict{Action: End, Reason: instance.EndCompleted, Message: inst.Message, Detail: inst.Detail}
	case instance.StatusFailed:
		v = r.judgeFailed(pod, inst, now)
		if !inst.FailedAt.IsZero() && inst.Reason != instance.ReasonStartTimeout {
			return v // final, whatever the clocks say
		}
	default:
		v = r.judgeAlive(pod, now, held)
	}
	if v.Action == End && held {
		return Verdict{}
	}
	return v
}

// judgeAlive judges an instance that has neither ended nor failed.
func (r Rules) judgeAlive(pod *corev1.Pod, now time.Time, held bool) Verdict {
	last, err := lastUse(pod, now)
	if err != nil {
		last = now
	}
	at, reason := r.DueEnd(pod, last, now)
	switch {
	case now.Before(at):
		if _, problem := r.FixWrongTimes(pod, now, held); problem != nil {
			return Verdict{Action: Fix, Message: problem.Error()}
		}
		return Verdict{}
	case reason == instance.EndExpired:
		age := r.MaxAgeOf(pod)
		lived := (now.Sub(at) + age).Round(time.Second)
		return Verdict{Action: End, Reason: reason, Message: instance.AgeMessage(lived, age)}
	case reason == instance.EndAbandoned:
		return Verdict{Action: End, Reason: reason, Message: instance.AbandonedMessage(now.Sub(last).Round(time.Second))}
	}
	idle := now.Sub(r.idleSince(pod, last)).Round(time.Second)
	return Verdict{Action: End, Reason: reason, Message: instance.IdleMessage(idle, r.CullTimeoutOf(pod))}
}

// judgeFailed ends an instance that has been failed for FailedRetention.
func (r Rules) judgeFailed(pod *corev1.Pod, inst instance.Instance, now time.Time) Verdict {
	failedFor := now.Sub(r.failedAt(pod, inst, now))
	if failedFor < FailedRetention {
		return Verdict{}
	}
	return Verdict{
		InDoubt: inst.Reason == instance.ReasonStartTimeout && instance.WasReady(pod), FailedFor: failedFor,
		Action: End, Reason: instance.EndFailed, Message: inst.Message, Fault: inst.Fault,
		Detail: withReason(inst), Failure: inst.Reason,
	}
}

// withReason returns the detail of a failed instance, beginning with the reason.
func withReason(inst instance.Instance) string {
	switch {
	case inst.Detail == "":
		return inst.Reason
	case strings.HasPrefix(inst.Detail, inst.Reason):
		return inst.Detail
	}
	return inst.Reason + ": " + inst.Detail
}

// failedAt is when an instance failed. Where nothing says when, it is the end of the
// start timeout. The node wrote these times by its own clock: a time in the future counts
// as that of the creation, so that a wrong clock does not keep the instance.
func (r Rules) failedAt(pod *corev1.Pod, inst instance.Instance, now time.Time) time.Time {
	known := func(at time.Time) time.Time {
		if at.Sub(now) > clockSkew {
			return pod.CreationTimestamp.Time
		}
		return at
	}
	at, changed := known(inst.FailedAt), known(instance.ReadyChangedAt(pod))
	switch {
	case at.IsZero():
		return changed.Add(r.StartTimeout)
	case at.Before(changed):
		return changed // an Event can tell of an earlier failure
	}
	return at
}

// FixWrongTimes returns the annotations to write in place of wrong times; a nil value
// removes the annotation. A wrong time is replaced by now: nobody loses an instance by
// it, and the instance still ends. The error says what is wrong; it is nil if there is
// nothing to fix.
func (r Rules) FixWrongTimes(pod *corev1.Pod, now time.Time, held bool) (annotations map[string]any, problem error) {
	annotations = map[string]any{}
	wrong := func(err error) bool {
		if err == nil || held && errors.Is(err, errFuture) {
			return false
		}
		problem = errors.Join(problem, err)
		return true
	}
	if _, err := lastUse(pod, now); wrong(err) {
		annotations[instance.LastActivityAnnotation] = instance.FormatTime(now)
		annotations[instance.ActivitySourceAnnotation] = nil // the fix is not a use
	}
	if r.MaxAgeOf(pod) > 0 || pod.Labels[instance.QueueLabel] != "" { // otherwise nothing depends on the launch time
		if _, err := launchedAt(pod, now); wrong(err) {
			annotations[instance.LaunchedAnnotation] = instance.FormatTime(now)
		}
	}
	return annotations, problem
}
