// Package activity knows when instances were last used: it remembers uses in
// memory, writes them to pods, and asks applications whether they are at work.
//
// It does not decide what becomes of an instance, which is the lifetime package's
// subject, and it does not know what a use looks like, which is the proxy's.
package activity

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/workqueue"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
)

const (
	// flushLimit is how long one flush starts writes. The rest is sorted again in the
	// next flush, so that the instance with the least time left is written first.
	flushLimit = 5 * time.Second
	// lastFlushPause is the time between two flushes when this replica ends. One is not
	// enough if the API server is slow or fails, or if another replica writes to the
	// same instance.
	lastFlushPause = 500 * time.Millisecond
	// GivenUpAfter is how long a use may wait to be written while others are. Then it counts as
	// written, though it is tried again and again: a single pod that the API server takes no
	// write of must not keep all others.
	GivenUpAfter = 15 * time.Minute
)

// Cache is what a Tracker asks of the read model.
type Cache interface {
	// Pod returns the pod of an instance.
	Pod(id string) (*corev1.Pod, bool)
	// LastUse returns the last activity that is written on the pod of an instance, and its
	// cull timeout. The time is zero if there is no readable one. ok is false if there is
	// no pod, or it is being deleted.
	LastUse(id string) (written time.Time, cullTimeout time.Duration, ok bool)
	// Wrote tells the read model what a write has made of a pod.
	Wrote(pod *corev1.Pod)
}

// Metrics counts what a Tracker does.
type Metrics interface {
	// ActivityWritten counts a write, by its result: one of Results.
	ActivityWritten(result string)
	// ActivityDelayed observes the time from a use until it was written.
	ActivityDelayed(d time.Duration)
	// WrongTimeFixed counts a wrong time on a pod that was replaced.
	WrongTimeFixed()
}

// Deps are what a Tracker needs.
type Deps struct {
	// Pods writes to the pods of instances.
	Pods kube.PodPatcher
	// Cache is the read model.
	Cache Cache
	// Rules say how long instances may be idle, and so how often uses are written.
	Rules lifetime.Rules
	// Metrics counts writes.
	Metrics Metrics
	// Log is told of writes that fail and of annotations that were unreadable.
	Log *slog.Logger
	// Now is the clock that uses are noted by.
	Now func() time.Time
	// Written is called with a time at which all uses that were due are written, apart from those
	// that are given up: see GivenUpAfter. It must not block.
	Written func(at time.Time)
}

// Tracker remembers when instances were last used until that is written to their
// pods. Every replica has one and writes what went through it. A write names the
// version of the pod that was read, so the latest time wins.
type Tracker struct {
	deps Deps

	rest float64 // of a write that was not made early; only due uses it

	mu   sync.Mutex
	last map[string]use // by id; a use that is written, or has no pod, is dropped
	// keeping are the ids that KeepAlive is at work for.
	keeping map[string]struct{}

	writers chan struct{} // one for each write of KeepAlive
}

// use is when an instance was used, and how.
type use struct {
	at     time.Time
	source instance.Source
}

// New returns a Tracker that remembers nothing.
func New(deps Deps) *Tracker {
	if deps.Written == nil {
		deps.Written = func(time.Time) {}
	}
	return &Tracker{deps: deps, last: map[string]use{}, keeping: map[string]struct{}{}, writers: make(chan struct{}, kube.Writers)}
}

// Touch notes that an instance is in use now.
func (t *Tracker) Touch(id string, source instance.Source) {
	now := t.deps.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.After(t.last[id].at) {
		t.last[id] = use{now, source}
	}
}

// Run writes uses as they become due, until ctx is done. Flush writes those that are
// left then.
func (t *Tracker) Run(ctx context.Context) {
	ticker := time.NewTicker(lifetime.FlushTick)
	defer ticker.Stop()
	var written time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		at := t.deps.Now()
		switch due, left := t.flush(ctx, false); {
		case left == 0:
			written = at
		case left < due && at.Sub(written) > GivenUpAfter:
			written = at.Add(-GivenUpAfter)
		default:
			continue
		}
		t.deps.Written(written)
	}
}

// Flush writes all uses, due or not, when this replica ends. It returns when they are
// written, or when ctx is done.
func (t *Tracker) Flush(ctx context.Context) {
	for {
		if _, left := t.flush(ctx, true); left == 0 {
			return
		}
		select {
		case <-time.After(lastFlushPause): // for the watch to deliver what others wrote
		case <-ctx.Done():
			return
		}
	}
}

// dueWrite is a use that is to be written to a pod.
type dueWrite struct {
	pod *corev1.Pod
	use
	idleAt  time.Time // when the instance would have been idle for its cull timeout; zero if unknown
	problem error     // what is wrong with the annotation
}

// due returns the uses that are later than the pod's annotation by a period of the
// instance's cull timeout, or by anything if all is true. Those of the instances
// with the least time left come first. So an instance that is in use all the time is
// written to once a period, by the first replica to look. A use within a period of
// what is written, with none after it, is written only when this replica ends:
// Rules.Lag allows for that. Uses that need not be remembered are dropped.
//
// If fewer are due than would be at each tick if all were spread evenly, the next ones are
// written too. So many instances that were launched, or written after an outage, at the same
// time are not written at the same time again and again.
func (t *Tracker) due(all bool) []dueWrite {
	var due []dueWrite
	var early []candidate
	even := 0.0 // how many would be due at each tick
	for id, used := range t.snapshot() {
		written, timeout, exists := t.deps.Cache.LastUse(id)                                    // few are due, so the pod itself would cost too much
		if !exists || !written.IsZero() && !used.at.Truncate(time.Millisecond).After(written) { // annotations have milliseconds
			t.drop(id, used)
			continue
		}
		since, period := used.at.Sub(written), t.deps.Rules.Period(timeout)
		c := candidate{id, used, written, float64(since) / float64(period)}
		even += min(1, float64(lifetime.FlushTick)/float64(period))
		switch {
		case all || written.IsZero() || since >= period:
			due = t.appendWrite(due, c, all)
		case since >= period/2:
			early = append(early, c)
		}
	}
	slices.SortFunc(early, func(a, b candidate) int { return cmp.Compare(b.share, a.share) })
	for _, c := range early[:min(t.room(even, len(due)), len(early))] {
		due = t.appendWrite(due, c, all)
	}
	slices.SortFunc(due, func(a, b dueWrite) int { return a.idleAt.Compare(b.idleAt) })
	return due
}

// room returns how many early uses are written at a tick, if even would be due at each, and
// due are. Where less than one is due at each, nothing is written early: there is nothing to
// spread.
func (t *Tracker) room(even float64, due int) int {
	if even < 1 {
		t.rest = 0
		return 0
	}
	room, rest := math.Modf(max(0, even+t.rest-float64(due)))
	t.rest = rest
	return int(room)
}

// candidate is a use that is due once its share of the period is 1.
type candidate struct {
	id string
	use
	written time.Time // on the pod
	share   float64
}

// appendWrite appends the write of a use to the pod as it is now. If another replica's write
// has come since the candidate was read, the next look decides, unless all are to be written.
func (t *Tracker) appendWrite(due []dueWrite, c candidate, all bool) []dueWrite {
	pod, exists := t.deps.Cache.Pod(c.id)
	if !exists {
		return due // the next look drops the use
	}
	write := dueWrite{pod: pod, use: c.use}
	annotated, err := instance.LastActivity(pod)
	switch {
	case err != nil:
		write.problem = err
	case !all && !annotated.Equal(c.written):
		return due
	default:
		write.idleAt = annotated.Add(t.deps.Rules.CullTimeoutOf(pod))
	}
	return append(due, write)
}

// flush writes the uses that are due, or all of them, several at a time. It returns how
// many there were, and how many are left: those that failed, and those for which there was no
// time. The map is the queue: it holds the latest use of an instance until that is written, so a
// write that fails is repeated at the next tick.
func (t *Tracker) flush(ctx context.Context, all bool) (due, left int) {
	var mu sync.Mutex
	var failed int
	var last error
	writes := t.due(all)
	left = len(writes)
	starting, stop := context.WithTimeout(ctx, flushLimit)
	defer stop()
	workqueue.ParallelizeUntil(starting, kube.Writers, len(writes), func(i int) {
		err := t.write(ctx, writes[i])
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil || apierrors.IsNotFound(err):
			left--
		case !apierrors.IsConflict(err):
			failed, last = failed+1, err
		}
	})
	if failed > 0 { // one line for all: they all fail while the API server is away
		t.deps.Log.WarnContext(ctx, "activity not written, will be tried again", "instances", failed, "error", last)
	}
	return len(writes), left
}

// write writes one use, and drops it once that is done or the pod is gone.
func (t *Tracker) write(ctx context.Context, w dueWrite) error {
	id := w.pod.Labels[instance.IDLabel]
	written, err := Write(ctx, t.deps.Pods, w.pod, w.at, w.source)
	t.deps.Metrics.ActivityWritten(result(err))
	switch {
	case err == nil:
		t.deps.Metrics.ActivityDelayed(max(0, t.deps.Now().Sub(w.at)))
		t.deps.Cache.Wrote(written)
		t.drop(id, w.use)
		if w.problem != nil { // logged once it is fixed, not at each attempt
			t.deps.Metrics.WrongTimeFixed()
			t.deps.Log.WarnContext(ctx, "last activity was unreadable and has been replaced",
				"pod", w.pod.Name, "template", instance.TemplateOf(w.pod), "problem", w.problem)
		}
	case apierrors.IsNotFound(err):
		t.drop(id, w.use)
	}
	return err
}

// snapshot copies the map, so that requests need not wait for writes.
func (t *Tracker) snapshot() map[string]use {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.last)
}

// drop forgets a use, unless the instance was used again.
func (t *Tracker) drop(id string, used use) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last[id].at.Equal(used.at) {
		delete(t.last, id)
	}
}

// Write writes to a pod when it was last used, and how, unless somebody has written
// to the pod since it was read: that is a conflict. It returns the pod as it is now.
func Write(ctx context.Context, pods kube.PodPatcher, pod *corev1.Pod, at time.Time, source instance.Source) (*corev1.Pod, error) {
	return kube.Annotate(ctx, pods, pod, map[string]any{
		instance.LastActivityAnnotation:   instance.FormatTime(at),
		instance.ActivitySourceAnnotation: source,
	})
}

// result names the outcome of a write, as the value of a metric's label.
func result(err error) string {
	switch {
	case err == nil:
		return "ok"
	case apierrors.IsConflict(err):
		return "conflict"
	}
	return "error"
}

// Results lists every result that Metrics.ActivityWritten gets.
func Results() []string { return []string{"ok", "conflict", "error"} }
