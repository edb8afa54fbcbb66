package pool

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const (
	// firstPause and longestPause bound how long a pool stops growing after its pods
	// have failed. Each pause is twice as long as the one before.
	firstPause   = 5 * time.Second
	longestPause = 5 * time.Minute

	// mostRestarts is how many restarts of a container make a warm pod a failed one.
	// A first restart may only mean that something else was not up yet. A pod that
	// keeps crashing while nobody uses it would crash for a visitor as well.
	mostRestarts = 3

	// resync is how often a pool is looked at when nothing has changed. It corrects
	// what no event tells of, such as a pod that was created and deleted while the
	// watch was broken.
	resync = time.Minute
)

// view is all that planPool decides by.
type view struct {
	size     int           // how many warm pods the template asks for
	spare    int           // how many more it keeps if they are there
	follows  bool          // the size follows the launches
	hash     string        // of the template's current version
	pods     []*corev1.Pod // the template's warm pods
	failures failures
	demand   demand
	// warnings returns the Warning Events of a pod; nil if there are none.
	warnings func(pod *corev1.Pod) []*corev1.Event
}

// plan is what a pool needs.
type plan struct {
	create   int
	remove   []removal
	failures failures
	demand   demand
	// lookAgain is when the next plan may differ although nothing has changed, as a
	// duration from now; 0 means never.
	lookAgain time.Duration
}

// removal is a warm pod to delete, and why.
type removal struct {
	pod    *corev1.Pod
	reason string
}

// Why a warm pod is deleted, for the log.
const (
	removeFailed   = "failed"
	removeOutdated = "made from an earlier version of the template"
	removeSurplus  = "more than the pool's size"
)

// failures are the failures of a template's warm pods in a row. All failures in one
// plan, or during one pause, count as one.
type failures struct {
	hash  string // of the version that failed; another version starts from zero
	count int
	last  time.Time
}

// pause returns how long the pool does not grow after its last failure.
func (f failures) pause() time.Duration {
	pause := firstPause
	for i := 1; i < f.count && pause < longestPause; i++ {
		pause *= 2
	}
	return min(pause, longestPause)
}

// pauseEnd returns when the pool may grow again; the zero time if it always may.
func (f failures) pauseEnd() time.Time {
	if f.count == 0 {
		return time.Time{}
	}
	return f.last.Add(f.pause())
}

func (f failures) paused(now time.Time) bool { return now.Before(f.pauseEnd()) }

// withOneMore returns the failures after another one now.
func (f failures) withOneMore(now time.Time) failures {
	if f.paused(now) {
		return f
	}
	return failures{f.hash, f.count + 1, now}
}

// planPool decides what a template's pool needs. It has no effects.
//
// Pods of an earlier version of the template are deleted at once, ready or not,
// because no launch would claim them. So are pods that have failed or do not start
// in time. Of a pool that is too large, those that are of least use are deleted.
func planPool(v view, now time.Time, startTimeout time.Duration) plan {
	p := plan{failures: pastFailures(v, now, startTimeout)}
	var good []*corev1.Pod
	for _, pod := range v.pods {
		switch {
		case pod.DeletionTimestamp != nil: // already being deleted
		case v.size == 0:
			p.remove = append(p.remove, removal{pod, removeSurplus})
		case pod.Labels[instance.TemplateHashLabel] != v.hash:
			p.remove = append(p.remove, removal{pod, removeOutdated})
		case v.hasFailed(pod, now, startTimeout):
			p.remove = append(p.remove, removal{pod, removeFailed})
			p.failures = p.failures.withOneMore(now)
		default:
			good = append(good, pod)
		}
	}
	slices.SortFunc(good, bestFirst)
	keep := min(len(good), v.size+v.spare)
	for _, pod := range good[keep:] {
		p.remove = append(p.remove, removal{pod, removeSurplus})
	}
	p.fill(v, good[:keep], now, startTimeout)
	return p
}

// fill decides how many of the missing pods are created now, and when to look again. kept
// are the pods that stay.
func (p *plan) fill(v view, kept []*corev1.Pod, now time.Time, startTimeout time.Duration) {
	if v.follows {
		defer func() { p.lookAgain = min(cmp.Or(p.lookAgain, followAgain), followAgain) }()
	}
	if v.size == 0 {
		return
	}
	missing, starting := max(0, v.size-len(kept)), startsUntil(kept, now)
	p.demand = v.demand.next(v.pods, kept, now)
	mayGrow := p.failures.pauseEnd()
	if at := p.demand.refillAt(); at.After(mayGrow) {
		mayGrow = at
	}
	if !now.Before(mayGrow) {
		p.create = max(0, min(missing, mostStarting(v.size)-len(starting)))
	}
	if p.create == missing {
		p.demand.since = time.Time{}
	}
	p.lookAgain = untilNextLook(kept, p.failures, now, startTimeout)
	switch {
	case p.create == missing:
	case now.Before(mayGrow):
		p.lookAgain = min(p.lookAgain, mayGrow.Sub(now))
	case len(starting) > 0:
		p.lookAgain = min(p.lookAgain, starting[0].Sub(now))
	default: // the first of the pods that are created now
		p.lookAgain = min(p.lookAgain, startingTime)
	}
}

// untilNextLook returns when to look again at the pods that are kept if no event comes, as
// a duration from now.
func untilNextLook(kept []*corev1.Pod, f failures, now time.Time, startTimeout time.Duration) time.Duration {
	next := now.Add(resync)
	earlier := func(at time.Time) {
		if at.After(now) && at.Before(next) {
			next = at
		}
	}
	for _, pod := range kept {
		if !instance.IsReady(pod) {
			earlier(instance.StartEnds(pod, startTimeout))
		} else if f.count > 0 {
			earlier(instance.ReadyChangedAt(pod).Add(f.pause()))
		}
	}
	return next.Sub(now)
}

// pastFailures returns the failures that still count. They are forgotten when the
// template has another version, when a pod has become ready since and has stayed so
// for the length of the pause, and after a long time without a failure.
func pastFailures(v view, now time.Time, startTimeout time.Duration) failures {
	past := v.failures
	recovered := slices.ContainsFunc(v.pods, func(pod *corev1.Pod) bool {
		readySince := instance.ReadyChangedAt(pod)
		return instance.IsServing(pod) && pod.Labels[instance.TemplateHashLabel] == v.hash &&
			readySince.After(past.last) && now.Sub(readySince) >= past.pause()
	})
	// After the pause, a pod may take the whole start timeout to fail again.
	long := past.pause() + startTimeout + longestPause
	if v.size == 0 || past.hash != v.hash || recovered || now.Sub(past.last) > long {
		return failures{hash: v.hash}
	}
	return past
}

// hasFailed reports whether a warm pod is of no use: as an instance it would have failed
// or ended, or it crashes again and again.
func (v view) hasFailed(pod *corev1.Pod, now time.Time, startTimeout time.Duration) bool {
	var warnings []*corev1.Event
	if v.warnings != nil {
		warnings = v.warnings(pod)
	}
	status := instance.FromPod(pod, warnings, now, startTimeout).Status
	return status.Over() || instance.Restarts(pod) >= mostRestarts
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
