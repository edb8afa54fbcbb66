package pool

import (
	"math"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// Launches come in bursts: a class opens the same link. Starting a pod costs a node more
// than a claim costs anybody, so a pod that is started in the middle of a burst makes the
// claims after it slow. A pool therefore lets a burst pass before it is refilled, and then
// starts a few pods at a time.
const (
	// pausePerClaim is how long the refill waits after one claim that is alone. After the
	// last claim of several, it waits as many times as long.
	pausePerClaim = 250 * time.Millisecond
	// claimHalfLife is how long it takes until a claim counts as half a claim in that.
	claimHalfLife = 2 * time.Second
	// longestWait is how long the refill waits at most, however many claims follow.
	longestWait = 3 * time.Second

	// leastStarting is how many pods of any pool may be starting at the same time, and
	// startingShare which share of a larger pool may.
	leastStarting = 4
	startingShare = 4
	// startingTime is how long a pod counts as starting. One that takes longer waits for
	// something, such as a node or an image, and must not hold up the rest of the pool.
	startingTime = 10 * time.Second
)

// demand is what a pool remembers of its claims from one plan to the next. Claims are
// made by every replica. The leader sees that pods are missing which it had before.
type demand struct {
	kept []string  // the names of the pods that the pool had
	load float64   // the claims up to the last one, each weighed by its age then
	last time.Time // when the last claim was seen
	// since is when the first claim was seen whose pod is not replaced yet. It is the
	// zero time if there is none.
	since time.Time
}

// next returns the demand after a look at the pool. all are its warm pods, also those
// that are being deleted, and kept those of them that stay.
func (d demand) next(all, kept []*corev1.Pod, now time.Time) demand {
	there := make(map[string]bool, len(all))
	for _, pod := range all {
		there[pod.Name] = true
	}
	claims := 0
	for _, name := range d.kept {
		if !there[name] {
			claims++
		}
	}
	d.kept = make([]string, len(kept))
	for i, pod := range kept {
		d.kept[i] = pod.Name
	}
	if claims == 0 {
		return d
	}
	d.load = d.load*math.Exp2(-float64(now.Sub(d.last))/float64(claimHalfLife)) + float64(claims)
	d.last = now
	if d.since.IsZero() {
		d.since = now
	}
	return d
}

// refillAt returns when claimed pods are replaced, which may be in the past. An empty pool
// does not wait, nor does one that lacks pods for another reason than claims.
func (d demand) refillAt() time.Time {
	if len(d.kept) == 0 || d.since.IsZero() {
		return time.Time{}
	}
	pause := min(time.Duration(d.load*float64(pausePerClaim)), longestWait)
	at, latest := d.last.Add(pause), d.since.Add(longestWait)
	if at.After(latest) {
		return latest
	}
	return at
}

// mostStarting returns how many pods of a pool may be starting at the same time.
func mostStarting(size int) int { return max(leastStarting, size/startingShare) }

// startsUntil returns until when each of the pods that are starting counts as such, the
// earliest first.
func startsUntil(pods []*corev1.Pod, now time.Time) []time.Time {
	var ends []time.Time
	for _, pod := range pods {
		if end := pod.CreationTimestamp.Add(startingTime); !instance.IsServing(pod) && end.After(now) {
			ends = append(ends, end)
		}
	}
	slices.SortFunc(ends, time.Time.Compare)
	return ends
}
