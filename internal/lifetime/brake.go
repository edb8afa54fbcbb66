package lifetime

import "time"

const (
	// brakeFew instances in doubt are never too many: a small cluster must get rid of
	// them too.
	brakeFew = 3
	// brakeShare: more than one in brakeShare of the instances that were ever Ready are
	// too many in doubt at the same time. One cause that is not theirs is likelier then.
	brakeShare = 3
	// BrakeTime is how long the brake keeps an instance in doubt. If nothing has changed
	// until then, it is not used by anybody: its visitors see only that it has failed.
	BrakeTime = 15 * time.Minute
)

// Brake says how many of the instances in doubt a sweep may end: the first ones of
// failedFor, which says for how long each has counted as failed, the longest first.
// wereReady is the number of all instances that were ever Ready and are not being deleted.
//
// Usually it is all of them. If many applications stop being Ready at the same time, the
// cause is rather the network, a node or the probes than the applications, and they may
// come back. Then those that have failed for less than BrakeTime stay, and of the others
// each sweep ends only a few. The node lifecycle controller of Kubernetes stops evictions
// for the same reason when all nodes of a zone seem to fail
// (https://kubernetes.io/docs/concepts/architecture/nodes/#rate-limits-on-eviction).
func Brake(failedFor []time.Duration, wereReady int) (end int) {
	if len(failedFor) <= brakeFew || len(failedFor)*brakeShare <= wereReady {
		return len(failedFor)
	}
	for end < brakeFew && failedFor[end] >= BrakeTime {
		end++
	}
	return end
}
