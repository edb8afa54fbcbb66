package lifetime

import (
	"cmp"
	"time"
)

const (
	// brakeFew instances a sweep may always end: a small cluster must get rid of them too.
	brakeFew = 10
	// BrakeTime is how long the brake keeps an instance in doubt. If nothing has changed
	// until then, it is not used by anybody: its visitors see only that it has failed.
	BrakeTime = 15 * time.Minute
)

// Brake bounds how many instances a sweep ends as failed. If many fail at the same time, the
// cause is rather the network, a node, a storage or a mistake of the culler than the
// applications. The node lifecycle controller of Kubernetes slows evictions down for the same
// reason when many nodes of a zone seem to fail
// (https://kubernetes.io/docs/concepts/architecture/nodes/#rate-limits-on-eviction).
type Brake struct {
	// Share is how many of the instances that are not being deleted a sweep may end, from 0
	// to 1; but 10 in any case.
	Share float64
}

// Allow says how many of the failed instances a sweep may end, the first ones in the order of
// CompareFailed. living is the number of all instances that are not being deleted.
//
// While more than that are in doubt, those that have failed for less than BrakeTime stay: they
// may come back.
func (b Brake) Allow(failed []Verdict, living int) (end int) {
	most, inDoubt := max(brakeFew, int(b.Share*float64(living))), 0
	for _, v := range failed {
		if v.InDoubt {
			inDoubt++
		}
	}
	for end < min(most, len(failed)) {
		if v := failed[end]; v.InDoubt && v.FailedFor < BrakeTime && inDoubt > most {
			break
		}
		end++
	}
	return end
}

// CompareFailed orders failed instances by which a sweep ends first: those that are not in
// doubt, and of each kind those that failed longer ago.
func CompareFailed(a, b Verdict) int {
	if a.InDoubt != b.InDoubt {
		if b.InDoubt {
			return -1
		}
		return 1
	}
	return cmp.Compare(b.FailedFor, a.FailedFor)
}
