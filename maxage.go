package main

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// maxAge is how long an instance may live, however active; 0 is no limit. The
// pod's own, from its template, can only shorten the server's, which so holds
// whoever writes templates; one that is unreadable or not positive is none.
func maxAge(pod *corev1.Pod, ofServer time.Duration) time.Duration {
	own, err := time.ParseDuration(pod.Annotations[instance.MaxAgeAnnotation])
	if err != nil || own <= 0 || ofServer > 0 && ofServer < own {
		return ofServer
	}
	return own
}

// launchedAt is when the pod became somebody's instance. Where it does not say,
// it is of a version of this service that wrote nothing, and it was when it was
// created. What is unreadable or in the future is an error: it cannot be right,
// and is not to be taken for long ago.
func launchedAt(pod *corev1.Pod, now time.Time) (time.Time, error) {
	value, said := pod.Annotations[instance.LaunchedAnnotation]
	if !said {
		return pod.CreationTimestamp.Time, nil
	}
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return time.Time{}, fmt.Errorf("annotation %s: %q is not in RFC 3339", instance.LaunchedAnnotation, value)
	}
	return at, timeAhead(instance.LaunchedAnnotation, at, now)
}
