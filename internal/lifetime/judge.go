package lifetime

import (
	"errors"
	"fmt"
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
// people.
type Verdict struct {
	Action  Action
	Reason  instance.EndReason
	Message string
}

// Judge decides what happens to an instance. It never treats an unreadable annotation
// as idleness, and it finds an end for every instance.
//
// While deletes are held, only pods that have plainly ended get an End, and times
// in the future stay: either may be explained by what other replicas have yet to
// write, or by this replica's clock.
func (r Rules) Judge(pod *corev1.Pod, now time.Time, held bool) Verdict {
	if pod.DeletionTimestamp != nil {
		return Verdict{}
	}
	switch pod.Status.Phase {
	case corev1.PodSucceeded:
		return Verdict{End, instance.EndGone, "the application ended by itself"}
	case corev1.PodFailed:
		return r.judgeFailed(pod, now, failedAt(pod, now))
	}
	v := r.judgeRunning(pod, now, held)
	if v.Action == End && held {
		return Verdict{}
	}
	return v
}

// judgeRunning judges a pod whose containers have not all ended.
func (r Rules) judgeRunning(pod *corev1.Pod, now time.Time, held bool) Verdict {
	failed := instance.ReadyChangedAt(pod).Add(r.StartTimeout)
	if !instance.IsReady(pod) && !now.Before(failed) {
		return r.judgeFailed(pod, now, failed)
	}
	last, err := lastUse(pod, now)
	if err != nil {
		last = now
	}
	at, reason := r.DueEnd(pod, last, now)
	switch {
	case now.Before(at):
		if _, problem := r.FixWrongTimes(pod, now, held); problem != nil {
			return Verdict{Fix, "", problem.Error()}
		}
		return Verdict{}
	case reason == instance.EndExpired:
		age := r.maxAgeOf(pod)
		lived := (now.Sub(at) + age).Round(time.Second)
		return Verdict{End, reason, fmt.Sprintf("launched %s ago; its max age is %s", lived, age)}
	}
	idle := now.Sub(r.idleSince(pod, last)).Round(time.Second)
	return Verdict{End, reason, fmt.Sprintf("not used for %s; its cull timeout is %s", idle, r.CullTimeoutOf(pod))}
}

// judgeFailed ends an instance that has been failed for FailedRetention.
func (r Rules) judgeFailed(pod *corev1.Pod, now, failed time.Time) Verdict {
	if now.Sub(failed) < FailedRetention {
		return Verdict{}
	}
	inst := instance.FromPod(pod, now, r.StartTimeout) // with the reason that clients were told
	return Verdict{End, instance.EndFailed, fmt.Sprintf("%s: %s", inst.Reason, inst.Message)}
}

// failedAt is when a pod in phase Failed got there. The node wrote these times by its
// own clock: where they are in the future, the pod counts as failed since its
// creation, so that a wrong clock does not keep it.
func failedAt(pod *corev1.Pod, now time.Time) time.Time {
	at := instance.ReadyChangedAt(pod)
	for _, status := range pod.Status.ContainerStatuses {
		if ended := status.State.Terminated; ended != nil && ended.FinishedAt.After(at) {
			at = ended.FinishedAt.Time
		}
	}
	if at.Sub(now) > clockSkew {
		return pod.CreationTimestamp.Time
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
	if r.maxAgeOf(pod) > 0 { // otherwise nothing depends on the launch time
		if _, err := launchedAt(pod, now); wrong(err) {
			annotations[instance.LaunchedAnnotation] = instance.FormatTime(now)
		}
	}
	return annotations, problem
}
