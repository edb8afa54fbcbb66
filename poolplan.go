package main

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const (
	// firstPause and longestPause bound how long a pool does not grow after its
	// pods have failed: each time twice as long as the last.
	firstPause   = 5 * time.Second
	longestPause = 5 * time.Minute
)

// poolView is all that planPool goes by.
type poolView struct {
	size int    // how many pods there should be
	hash string // of the template's present version
	// pods are the template's warm pods, but for those that are already deleted.
	pods []*corev1.Pod
	// creating is how many have been created that the watch has not brought yet.
	creating int
	failures poolFailures
}

// poolPlan is what planPool decides.
type poolPlan struct {
	create   int
	remove   []poolRemoval
	failures poolFailures
}

// poolRemoval is a warm pod to be deleted, and why.
type poolRemoval struct {
	pod    *corev1.Pod
	reason string
}

// Why a warm pod is deleted, for the log.
const (
	removeFailed   = "failed"
	removeOutdated = "of an earlier version of the template"
	removeSurplus  = "more than the pool's size"
)

// poolFailures are the failures of a template's warm pods in a row. Those of one
// pass, or that come while the pool does not grow anyway, are one.
type poolFailures struct {
	hash  string // of the version that failed: another one starts anew
	count int
	last  time.Time
}

// pause is how long the pool does not grow after its last failure.
func (f poolFailures) pause() time.Duration {
	pause := firstPause
	for i := 1; i < f.count && pause < longestPause; i++ {
		pause *= 2
	}
	return min(pause, longestPause)
}

func (f poolFailures) paused(now time.Time) bool {
	return f.count > 0 && now.Before(f.last.Add(f.pause()))
}

// and is what the failures are with one more now.
func (f poolFailures) and(now time.Time) poolFailures {
	if f.paused(now) {
		return f
	}
	return poolFailures{f.hash, f.count + 1, now}
}

// planPool decides what a template's pool needs. It is a pure function: what it
// says is carried out by Pool.
//
// Pods of an earlier version of the template go at once, ready or not, for no
// launch would take them. So do those that have failed or do not start in time,
// and of a pool that is too large those that would be missed least.
func planPool(view poolView, now time.Time, startTimeout time.Duration) poolPlan {
	plan := poolPlan{failures: pastFailures(view, now, startTimeout)}
	var good []*corev1.Pod
	for _, pod := range view.pods {
		switch {
		case pod.DeletionTimestamp != nil: // on its way out
		case view.size == 0:
			plan.remove = append(plan.remove, poolRemoval{pod, removeSurplus})
		case pod.Labels[instance.TemplateHashLabel] != view.hash:
			plan.remove = append(plan.remove, poolRemoval{pod, removeOutdated})
		case warmFailed(pod, now, startTimeout):
			plan.remove = append(plan.remove, poolRemoval{pod, removeFailed})
			plan.failures = plan.failures.and(now)
		default:
			good = append(good, pod)
		}
	}
	slices.SortFunc(good, bestFirst)
	for len(good) > view.size {
		last := len(good) - 1
		plan.remove = append(plan.remove, poolRemoval{good[last], removeSurplus})
		good = good[:last]
	}
	if missing := view.size - len(good) - view.creating; missing > 0 && !plan.failures.paused(now) {
		plan.create = missing
	}
	return plan
}

// pastFailures are the failures that still count: none of another version of the
// template, none after a pod has become ready since and has stayed so for the
// length of the pause, and none after a long time without one.
func pastFailures(view poolView, now time.Time, startTimeout time.Duration) poolFailures {
	past := view.failures
	recovered := slices.ContainsFunc(view.pods, func(pod *corev1.Pod) bool {
		ready := instance.ReadyChangedAt(pod) // for a Ready pod: since when it is
		return instance.IsServing(pod) && pod.Labels[instance.TemplateHashLabel] == view.hash && ready.After(past.last) && now.Sub(ready) >= past.pause()
	})
	// A pod may take the start timeout to fail again after the pause.
	long := past.pause() + startTimeout + longestPause
	if past.hash != view.hash || recovered || now.Sub(past.last) > long {
		return poolFailures{hash: view.hash}
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
