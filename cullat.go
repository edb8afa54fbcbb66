package main

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// lastUse is when an instance was last used, as its pod says. What is missing,
// unreadable or in the future is an error: it cannot be right.
func lastUse(pod *corev1.Pod, now time.Time) (time.Time, error) {
	last, err := instance.LastActivity(pod)
	if err == nil {
		err = timeAhead(instance.LastActivityAnnotation, last, now)
	}
	return last, err
}

// dueEnd is when an instance that works is to end if it is not used after last,
// and for what: when it has been idle for its cull timeout and the lag by which
// annotations may be behind, so that none ends early; or when it is older than
// its max age, if that is before. The culler decides by it, and clients are told
// it.
func dueEnd(pod *corev1.Pod, last, now time.Time, policy cullPolicy) (at time.Time, reason instance.EndReason) {
	timeout := instance.CullTimeout(pod, policy.cullTimeout)
	at, reason = idleSince(pod, last, policy).Add(timeout).Add(flushLag(timeout)), instance.EndCulled // the sum can overflow
	if age := maxAge(pod, policy.maxAge); age > 0 {
		if launched, err := launchedAt(pod, now); err == nil && launched.Add(age).Before(at) {
			return launched.Add(age), instance.EndExpired
		}
	}
	return at, reason
}

// idleSince is since when nobody has used an instance that was used last at a
// time: the time it takes to start is nobody's idleness.
func idleSince(pod *corev1.Pod, last time.Time, policy cullPolicy) time.Time {
	if usable := usableSince(pod, policy.startTimeout); usable.After(last) {
		return usable
	}
	return last
}

// tellLifetime adds to an instance when it was last used and until when it has.
func tellLifetime(inst *instance.Instance, pod *corev1.Pod, now time.Time, policy cullPolicy) {
	last, err := lastUse(pod, now)
	if err != nil || !inst.Alive() {
		return
	}
	inst.LastActivity, inst.Source = last, instance.Source(pod.Annotations[instance.ActivitySourceAnnotation])
	inst.CullAt, _ = dueEnd(pod, last, now, policy)
}
