package pool

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const (
	// FirstPause and longestPause bound how long a pool does not grow after its
	// pods have failed: each time twice as long as the last.
	FirstPause   = 5 * time.Second
	longestPause = 5 * time.Minute
)

// PoolView is all that planPool goes by.
type PoolView struct {
	Size int    // how many pods there should be
	Hash string // of the template's present version
	// pods are the template's warm pods, but for those that are already deleted.
	Pods []*corev1.Pod
	// creating is how many have been created that the watch has not brought yet.
	Creating int
	Failures PoolFailures
}

// poolPlan is what planPool decides.
type poolPlan struct {
	Create   int
	Remove   []PoolRemoval
	Failures PoolFailures
}

// PoolRemoval is a warm pod to be deleted, and why.
type PoolRemoval struct {
	Pod    *corev1.Pod
	Reason string
}

// Why a warm pod is deleted, for the log.
const (
	removeFailed   = "failed"
	removeOutdated = "of an earlier version of the template"
	RemoveSurplus  = "more than the pool's size"
)

// PoolFailures are the failures of a template's warm pods in a row. Those of one
// pass, or that come while the pool does not grow anyway, are one.
type PoolFailures struct {
	Hash  string // of the version that failed: another one starts anew
	Count int
	Last  time.Time
}

// Pause is how long the pool does not grow after its last failure.
func (f PoolFailures) Pause() time.Duration {
	pause := FirstPause
	for i := 1; i < f.Count && pause < longestPause; i++ {
		pause *= 2
	}
	return min(pause, longestPause)
}

func (f PoolFailures) Paused(now time.Time) bool {
	return f.Count > 0 && now.Before(f.Last.Add(f.Pause()))
}

// And is what the failures are with one more now.
func (f PoolFailures) And(now time.Time) PoolFailures {
	if f.Paused(now) {
		return f
	}
	return PoolFailures{f.Hash, f.Count + 1, now}
}

// PlanPool decides what a template's pool needs. It is a pure function: what it
// says is carried out by Pool.
//
// Pods of an earlier version of the template go at once, ready or not, for no
// launch would take them. So do those that have failed or do not start in time,
// and of a pool that is too large those that would be missed least.
func PlanPool(view PoolView, now time.Time, startTimeout time.Duration) poolPlan {
	plan := poolPlan{Failures: pastFailures(view, now, startTimeout)}
	var good []*corev1.Pod
	for _, pod := range view.Pods {
		switch {
		case pod.DeletionTimestamp != nil: // on its way out
		case view.Size == 0:
			plan.Remove = append(plan.Remove, PoolRemoval{pod, RemoveSurplus})
		case pod.Labels[instance.TemplateHashLabel] != view.Hash:
			plan.Remove = append(plan.Remove, PoolRemoval{pod, removeOutdated})
		case warmFailed(pod, now, startTimeout):
			plan.Remove = append(plan.Remove, PoolRemoval{pod, removeFailed})
			plan.Failures = plan.Failures.And(now)
		default:
			good = append(good, pod)
		}
	}
	slices.SortFunc(good, bestFirst)
	for len(good) > view.Size {
		last := len(good) - 1
		plan.Remove = append(plan.Remove, PoolRemoval{good[last], RemoveSurplus})
		good = good[:last]
	}
	if missing := view.Size - len(good) - view.Creating; missing > 0 && !plan.Failures.Paused(now) {
		plan.Create = missing
	}
	return plan
}

// pastFailures are the failures that still count: none of another version of the
// template, none after a pod has become ready since and has stayed so for the
// length of the pause, and none after a long time without one.
func pastFailures(view PoolView, now time.Time, startTimeout time.Duration) PoolFailures {
	past := view.Failures
	recovered := slices.ContainsFunc(view.Pods, func(pod *corev1.Pod) bool {
		ready := instance.ReadyChangedAt(pod) // for a Ready pod: since when it is
		return instance.IsServing(pod) && pod.Labels[instance.TemplateHashLabel] == view.Hash && ready.After(past.Last) && now.Sub(ready) >= past.Pause()
	})
	// A pod may take the start timeout to fail again after the pause.
	long := past.Pause() + startTimeout + longestPause
	if past.Hash != view.Hash || recovered || now.Sub(past.Last) > long {
		return PoolFailures{Hash: view.Hash}
	}
	return past
}

// warmFailed reports whether a warm pod will be of no use: it ended, does not
// start in time, or breaks down again and again.
func warmFailed(pod *corev1.Pod, now time.Time, startTimeout time.Duration) bool {
	if pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded || instance.Restarts(pod) >= mostRestarts {
		return true
	}
	return !instance.IsReady(pod) && now.Sub(instance.ReadyChangedAt(pod)) >= startTimeout
}

// bestFirst orders warm pods: those that serve first, then the older ones.
func bestFirst(a, b *corev1.Pod) int {
	rank := func(pod *corev1.Pod) int {
		if instance.IsServing(pod) {
			return 0
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(rank(a), rank(b)),
		a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
		cmp.Compare(a.Name, b.Name),
	)
}

const (

	// mostRestarts is how often the containers of a warm pod may have been started
	// again. Once may be a matter of what was up first; a pod that keeps breaking
	// down while nobody uses it will do so for a visitor, too.
	mostRestarts = 3
)
