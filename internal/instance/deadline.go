package instance

import (
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// deadlineMargin is how long after an instance's max age the kubelet ends it by itself. The
// culler ends it before that, unless the service is gone or cannot reach the API server.
const deadlineMargin = time.Hour

// Deadline returns the active deadline of a pod that becomes an instance now and was made
// a while before: the seconds from the start of the pod on its node, after which the
// kubelet ends it. maxAge is that of the instance; 0 means no limit, and then the deadline is that
// of the template, which can be nil. One that the template's pod has stays if it is earlier; the
// API server accepts no later one.
func Deadline(pod *corev1.Pod, age, maxAge time.Duration) *int64 {
	own := pod.Spec.ActiveDeadlineSeconds
	if maxAge <= 0 {
		return own
	}
	seconds := wholeSeconds(max(age, 0)) + wholeSeconds(maxAge) + wholeSeconds(deadlineMargin) // the sum of durations can overflow
	seconds = min(seconds, math.MaxInt32)                                                      // the API's limit
	if own != nil {
		seconds = min(seconds, *own)
	}
	return &seconds
}

// wholeSeconds rounds up.
func wholeSeconds(d time.Duration) int64 {
	seconds := int64(d / time.Second)
	if d%time.Second > 0 {
		seconds++
	}
	return seconds
}
