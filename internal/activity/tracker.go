// Package activity knows when instances were last used: it remembers uses in
// memory, writes them to pods, and asks applications whether they are at work.
//
// It does not decide what becomes of an instance; that is the lifetime package's.
package activity

import (
	"context"
	"log/slog"
	"maps"
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
	// flushLimit is how long one flush starts writes. What is then left is sorted
	// anew at the next tick, so that the instance with the least time left goes first.
	flushLimit = 5 * time.Second
	// lastFlushes and lastFlushPause are for conflicts when this replica ends: other
	// replicas write to an instance that is in use through them as well.
	lastFlushes    = 3
	lastFlushPause = 100 * time.Millisecond
)

// Cache is what a Tracker asks of the read model.
type Cache interface {
	Pod(id string) (*corev1.Pod, bool)
	Wrote(pod *corev1.Pod)
}

// Metrics counts what a Tracker does.
type Metrics interface {
	ActivityWritten(result string)
	TimeFixed()
}

// Deps are what a Tracker needs.
type Deps struct {
	Pods    kube.PodPatcher
	Cache   Cache
	Rules   lifetime.Rules
	Metrics Metrics
	Log     *slog.Logger
	Now     func() time.Time
}

// Tracker remembers when instances were last used until that is written to their
// pods. Every replica has one and writes what went through it. A write names the
// version of the pod that was read, so the latest time wins.
type Tracker struct {
	deps Deps

	mu   sync.Mutex
	last map[string]use // by id; what is written, or has no pod, is dropped
}

// use is when an instance was used, and how.
type use struct {
	at     time.Time
	source instance.Source
}

// New returns a Tracker that remembers nothing.
func New(deps Deps) *Tracker { return &Tracker{deps: deps, last: map[string]use{}} }

// Touch notes that an instance is in use now.
func (t *Tracker) Touch(id string, source instance.Source) {
	now := t.deps.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.After(t.last[id].at) {
		t.last[id] = use{now, source}
	}
}

// Run writes uses as they become due, until ctx is done. What is left then is for
// Flush.
func (t *Tracker) Run(ctx context.Context) {
	ticker := time.NewTicker(lifetime.FlushTick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			t.flush(ctx, lifetime.Period)
		}
	}
}

// Flush writes all uses, due or not, when this replica ends.
func (t *Tracker) Flush(ctx context.Context) {
	all := func(time.Duration) time.Duration { return 0 }
	for range lastFlushes {
		if conflicts := t.flush(ctx, all); conflicts == 0 {
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
// instance's cull timeout, those with the least time left first. So an instance
// that is in use all the time is written to once a period, by the first replica to
// look. A use within a period of what is written, with none after it, is written
// only when this replica ends: the Lag allows for that. Uses that need not be
// remembered are dropped.
func (t *Tracker) due(period func(cullTimeout time.Duration) time.Duration) []dueWrite {
	var due []dueWrite
	for id, used := range t.snapshot() {
		pod, exists := t.deps.Cache.Pod(id)
		if !exists || pod.DeletionTimestamp != nil {
			t.drop(id, used)
			continue
		}
		timeout := t.deps.Rules.CullTimeoutOf(pod)
		annotated, err := instance.LastActivity(pod)
		switch {
		case err != nil:
			due = append(due, dueWrite{pod: pod, use: used, problem: err})
		case !used.at.Truncate(time.Millisecond).After(annotated): // annotations have milliseconds
			t.drop(id, used)
		case used.at.Sub(annotated) >= period(timeout):
			due = append(due, dueWrite{pod: pod, use: used, idleAt: annotated.Add(timeout)})
		}
	}
	slices.SortFunc(due, func(a, b dueWrite) int { return a.idleAt.Compare(b.idleAt) })
	return due
}

// flush writes what is due, some at a time, and returns how many writes met a
// conflict. The map is the queue: it holds the latest use of an instance until that
// is written, so a write that fails is repeated at the next tick.
func (t *Tracker) flush(ctx context.Context, period func(cullTimeout time.Duration) time.Duration) (conflicts int) {
	var mu sync.Mutex
	var failed int
	var last error
	due := t.due(period)
	starting, stop := context.WithTimeout(ctx, flushLimit)
	defer stop()
	workqueue.ParallelizeUntil(starting, kube.Writers, len(due), func(i int) {
		err := t.write(ctx, due[i])
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil || apierrors.IsNotFound(err):
		case apierrors.IsConflict(err):
			conflicts++
		default:
			failed, last = failed+1, err
		}
	})
	if failed > 0 { // one line for all: they all fail while the API server is away
		t.deps.Log.WarnContext(ctx, "activity not written, will be tried again", "instances", failed, "error", last)
	}
	return conflicts
}

// write writes one use, and drops it once that is done or the pod is gone.
func (t *Tracker) write(ctx context.Context, w dueWrite) error {
	id := w.pod.Labels[instance.IDLabel]
	written, err := Write(ctx, t.deps.Pods, w.pod, w.at, w.source)
	t.deps.Metrics.ActivityWritten(result(err))
	switch {
	case err == nil:
		t.deps.Cache.Wrote(written)
		t.drop(id, w.use)
		if w.problem != nil { // logged once it is fixed, not at each attempt
			t.deps.Metrics.TimeFixed()
			t.deps.Log.WarnContext(ctx, "last activity was unreadable and has been replaced",
				"id", id, "template", instance.TemplateOf(w.pod), "problem", w.problem)
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

// result names the outcome of a write, as the label of a metric.
func result(err error) string {
	switch {
	case err == nil:
		return "ok"
	case apierrors.IsConflict(err):
		return "conflict"
	}
	return "error"
}

// Results are the labels that ActivityWritten gets.
func Results() []string { return []string{"ok", "conflict", "error"} }
