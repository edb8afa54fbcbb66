// Package lifetime decides when an instance ends: when it was last used, when it
// is due to end, what is to be done with it now, which times on its pod are
// wrong, and when deletes are held back.
//
// The culler acts on these decisions, and clients see the due end as cull-at: both
// ask the same functions. The package is pure: it never talks to the API server,
// starts a goroutine, reads a clock or logs. Only Hold has state.
package lifetime

import (
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const (
	// clockSkew is how far ahead the clock of another replica or a node may be. A time
	// on a pod that is further in the future is wrong. If it counted, the instance
	// would live until then.
	clockSkew = time.Minute
	// FlushTick is how often each replica looks for uses that are due to be written.
	FlushTick = time.Second
	// periods: an instance in constant use is written this many times in one cull
	// timeout.
	periods = 12
	// QueuePatience is how long an instance keeps its place in the queue while nobody asks about
	// it. Streams ask every few seconds, and so do programs that wait.
	QueuePatience = 6 * time.Minute
)

// Rules are the server's settings about when instances end.
type Rules struct {
	CullTimeout  time.Duration // for instances that have no cull timeout of their own
	StartTimeout time.Duration // how long an instance may take to become Ready
	MaxAge       time.Duration // of every instance, however active; 0 means no limit
	// MinCullTimeout is the shortest cull timeout that a launch can ask for. Activity is
	// not written more often than one of it needs, whatever a template or a pod says.
	MinCullTimeout time.Duration
}

// Period is the least time between two writes of an instance's activity.
func (r Rules) Period(cullTimeout time.Duration) time.Duration {
	return max(cullTimeout, r.MinCullTimeout) / periods
}

// Lag is the most that the last-activity annotation can trail the real last use:
// one period, one tick and one write.
func (r Rules) Lag(cullTimeout time.Duration) time.Duration {
	return r.Period(cullTimeout) + 2*FlushTick
}

// CullTimeoutOf is how long an instance may be idle: the cull timeout on its pod, else
// the server's. A value that is unreadable or not positive does not count. While it waits for a
// place, that is QueuePatience.
func (r Rules) CullTimeoutOf(pod *corev1.Pod) time.Duration {
	if instance.IsQueued(pod) {
		return QueuePatience
	}
	if own, ok := positive(pod.Annotations[instance.CullTimeoutAnnotation]); ok {
		return own
	}
	return r.CullTimeout
}

// positive parses a duration, and reports whether it is a valid one above 0.
func positive(value string) (time.Duration, bool) {
	d, err := time.ParseDuration(value)
	return d, err == nil && d > 0
}

// LagOf is the Lag of an instance's own cull timeout.
func (r Rules) LagOf(pod *corev1.Pod) time.Duration { return r.Lag(r.CullTimeoutOf(pod)) }

// MaxAgeOf is how long an instance may live, however active; 0 means no limit. The
// max age on the pod, which comes from its template, can only shorten the server's.
// A value that is unreadable or not positive does not count.
func (r Rules) MaxAgeOf(pod *corev1.Pod) time.Duration {
	own, ok := positive(pod.Annotations[instance.MaxAgeAnnotation])
	if !ok || r.MaxAge > 0 && r.MaxAge < own {
		return r.MaxAge
	}
	return own
}

// lastUse is when an instance was last used, according to its pod. It is an error
// if the annotation is missing, unreadable, or in the future.
func lastUse(pod *corev1.Pod, now time.Time) (time.Time, error) {
	last, err := instance.LastActivity(pod)
	if err != nil {
		return time.Time{}, err
	}
	return last, checkNotAhead(instance.LastActivityAnnotation, last, now)
}

// DueEnd is when a working instance is due to end if it is not used after last,
// and the reason. An instance ends once it has been idle for its cull timeout and
// the Lag, so that none ends early; or at its max age, if that comes first. One that waits
// for a place ends once nobody has asked about it for as long.
func (r Rules) DueEnd(pod *corev1.Pod, last, now time.Time) (time.Time, instance.EndReason) {
	timeout := r.CullTimeoutOf(pod)
	if instance.IsQueued(pod) {
		return last.Add(timeout).Add(r.Lag(timeout)), instance.EndAbandoned
	}
	idle := r.idleSince(pod, last).Add(timeout).Add(r.Lag(timeout)) // one by one: the sum of the durations can overflow
	if failed := instance.StartEnds(pod, r.StartTimeout); instance.Unreported(pod) && idle.Before(failed) {
		idle = failed // nobody could use it until then
	}
	if expires := r.expiresAt(pod, now); !expires.IsZero() && expires.Before(idle) {
		return expires, instance.EndExpired
	}
	return idle, instance.EndCulled
}

// expiresAt is the end of an instance's max age; zero if it has none, or does not live yet.
func (r Rules) expiresAt(pod *corev1.Pod, now time.Time) time.Time {
	age := r.MaxAgeOf(pod)
	launched, err := launchedAt(pod, now)
	if age == 0 || err != nil || instance.IsQueued(pod) {
		return time.Time{}
	}
	return launched.Add(age)
}

// Describe adds to an instance when it was last used and when it is due to end.
// Both stay zero if the pod does not say, and for an instance that has ended.
func (r Rules) Describe(inst *instance.Instance, pod *corev1.Pod, now time.Time) {
	last, err := lastUse(pod, now)
	if err != nil || !inst.Alive() {
		return
	}
	inst.LastActivity = last
	inst.Source = instance.Source(pod.Annotations[instance.ActivitySourceAnnotation])
	inst.CullAt, _ = r.DueEnd(pod, last, now)
	inst.ExpiresAt = r.expiresAt(pod, now)
}

// Window returns the times around now from which and until which the clock alone changes
// nothing in what instance.FromPod, without Warning Events, and Describe say of a pod, nor
// in which of its times are wrong. A zero time means that there is no such limit. inst is
// what they say now.
func (r Rules) Window(inst instance.Instance, pod *corev1.Pod, now time.Time) (from, until time.Time) {
	turn := func(at time.Time) {
		switch {
		case !at.After(now):
			if from.IsZero() || at.After(from) {
				from = at
			}
		case until.IsZero() || at.Before(until):
			until = at
		}
	}
	if last, err := instance.LastActivity(pod); err == nil {
		turn(last.Add(-clockSkew)) // no longer in the future
	}
	if launched, err := time.Parse(time.RFC3339, pod.Annotations[instance.LaunchedAnnotation]); err == nil {
		turn(launched.Add(-clockSkew))
	}
	if inst.Status != instance.StatusDeployed && inst.Status != instance.StatusDeleted && inst.Reason != instance.ReasonQueued {
		turn(instance.StartEnds(pod, r.StartTimeout)) // the start has failed
	}
	return from, until
}

// idleSince is the time since when nobody has used an instance. The time that it
// takes to start does not count as idleness.
func (r Rules) idleSince(pod *corev1.Pod, last time.Time) time.Time {
	if usable := r.usableSince(pod); usable.After(last) {
		return usable
	}
	return last
}

// usableSince is when somebody could first have used the instance: when it became
// Ready, but at most a start timeout after it reached its node, for which it has as long from
// when it began.
// Without that limit, a container that restarts again and again would never be idle.
func (r Rules) usableSince(pod *corev1.Pod) time.Time {
	begun := instance.BegunAt(pod)
	latest := begun.Add(r.StartTimeout)
	if reached := pod.Status.StartTime; reached != nil {
		if later := reached.Add(r.StartTimeout); later.After(latest) {
			latest = later
		}
		if most := begun.Add(2 * r.StartTimeout); latest.After(most) { // the node's clock is ahead
			latest = most
		}
	}
	if ready := instance.ReadyChangedAt(pod); instance.IsReady(pod) && ready.Before(latest) {
		return ready
	}
	return latest
}

// launchedAt is when the pod became somebody's instance. A pod without the
// annotation was made by an earlier version of this service, and was launched when
// it was created. It is an error if the annotation is unreadable or in the future.
func launchedAt(pod *corev1.Pod, now time.Time) (time.Time, error) {
	value, ok := pod.Annotations[instance.LaunchedAnnotation]
	if !ok {
		return pod.CreationTimestamp.Time, nil
	}
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return time.Time{}, fmt.Errorf("annotation %s: %q is not an RFC 3339 time", instance.LaunchedAnnotation, value)
	}
	return at, checkNotAhead(instance.LaunchedAnnotation, at, now)
}

// errFuture is wrapped by errors about a time that no clock skew explains.
var errFuture = errors.New("in the future")

func checkNotAhead(annotation string, at, now time.Time) error {
	if at.Sub(now) <= clockSkew {
		return nil
	}
	return fmt.Errorf("annotation %s is %w: %s", annotation, errFuture, instance.FormatTime(at))
}
