package main

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
)

const (
	// flushTick is how often it is looked for activity that is due to be written.
	flushTick = time.Second
	// flushSpell is for how long writes are begun before it is looked again for
	// what is due: what has the least time left does not wait for all others.
	flushSpell = 5 * time.Second

	// lastFlushes and lastFlushPause are for conflicts when this replica ends:
	// an instance in use elsewhere is written to by others as well.
	lastFlushes    = 3
	lastFlushPause = 100 * time.Millisecond
)

// flushPeriod is by how much an instance's activity is later than what was written
// when it is written again.
func flushPeriod(timeout time.Duration) time.Duration { return timeout / 12 }

// flushLag is by how much an annotation may be behind what some replica knows: not
// quite a period is held back, and then it waits for a tick, and the write itself.
func flushLag(timeout time.Duration) time.Duration { return flushPeriod(timeout) + 2*flushTick }

// Activity remembers when instances were last used until that is written to
// their pods. Every replica has its own and writes what went through it; the
// latest time wins.
type Activity struct {
	pods           typedcorev1.PodInterface
	cluster        *Cluster
	defaultTimeout time.Duration
	metrics        *metrics.Metrics
	log            *slog.Logger
	now            func() time.Time

	mu   sync.Mutex
	last map[string]use // by id; what is written, or has no pod, is dropped
	// own is, by id, what this replica's last write made of a pod, until the
	// watch brings something newer than what that write went by.
	own map[string]ownWrite
}

// use is when an instance was used, and how.
type use struct {
	at     time.Time
	source instance.Source
}

// ownWrite is a pod that the API server has and the cache does not have yet.
// After an outage that can take a minute: a watch is opened again with delays
// that double, while writes work at once.
type ownWrite struct {
	cached string // the resourceVersion that the cache had
	pod    *corev1.Pod
}

// NewActivity makes an empty one.
func NewActivity(pods typedcorev1.PodInterface, cluster *Cluster, defaultTimeout time.Duration,
	metrics *metrics.Metrics, log *slog.Logger, now func() time.Time) *Activity {
	return &Activity{
		pods: pods, cluster: cluster, defaultTimeout: defaultTimeout,
		metrics: metrics, log: log, now: now, last: map[string]use{},
		own: map[string]ownWrite{},
	}
}

// Touch notes that an instance is in use now.
func (a *Activity) Touch(id string, source instance.Source) {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.After(a.last[id].at) {
		a.last[id] = use{now, source}
	}
}

// heldBack is when an instance was last used, of what this replica has not
// written; zero if it has.
func (a *Activity) heldBack(id string) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last[id].at
}

// Run writes activity back as it falls due, until ctx is done. What is left
// then is for Flush.
func (a *Activity) Run(ctx context.Context) {
	ticker := time.NewTicker(flushTick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			a.flush(ctx, flushPeriod, flushSpell)
		}
	}
}

// Flush writes all there is, due or not: for when this replica ends.
func (a *Activity) Flush(ctx context.Context) {
	all := func(time.Duration) time.Duration { return 0 }
	for range lastFlushes {
		if conflicts := a.flush(ctx, all, flushTimeout); conflicts == 0 {
			return
		}
		select {
		case <-time.After(lastFlushPause): // for the watch to bring what others wrote
		case <-ctx.Done():
			return
		}
	}
}

// dueWrite is an activity that is to be written to a pod.
type dueWrite struct {
	pod    *corev1.Pod
	cached string // the resourceVersion that the cache has
	use
	idle    time.Time // when the instance would have been idle for its timeout; zero if that is not known
	problem error     // what is wrong with the annotation
}

// due returns what is newer than its annotation by the period of its timeout, what
// has the least time left first, and drops what need not be remembered. So an
// instance that is in use all the time is written to once a period, by the first
// replica to look; and what comes within a period after that, and is the last, only
// when the replica ends: the lag allows for it.
func (a *Activity) due(period func(timeout time.Duration) time.Duration) []dueWrite {
	var due []dueWrite
	for id, used := range a.snapshot() {
		pod, exists := a.cluster.Pod(id)
		if !exists || pod.DeletionTimestamp != nil {
			a.written(id, used.at)
			continue
		}
		cached, timeout := pod.ResourceVersion, instance.CullTimeout(pod, a.defaultTimeout)
		pod = a.latest(id, pod)
		annotated, err := instance.LastActivity(pod)
		switch {
		case err != nil:
			due = append(due, dueWrite{pod, cached, used, time.Time{}, err})
		case !used.at.Truncate(time.Millisecond).After(annotated):
			a.written(id, used.at)
		case used.at.Sub(annotated) >= period(timeout):
			due = append(due, dueWrite{pod, cached, used, annotated.Add(timeout), nil})
		}
	}
	slices.SortFunc(due, func(a, b dueWrite) int { return a.idle.Compare(b.idle) })
	return due
}

// flush writes what is due, for a spell, a few at a time. The map is the queue: it
// holds one use of an instance, the latest, until that is written, so that what
// meets a conflict, or no API server, is tried again at the next tick. It returns
// how many writes came too late, because the pod had been written to: what the
// watch then brings decides about them.
func (a *Activity) flush(ctx context.Context, period func(timeout time.Duration) time.Duration, spell time.Duration) (conflicts int) {
	var mu sync.Mutex
	var failed int
	var last error
	a.forgetOwn()
	began := time.Now()
	forEach(a.due(period), kube.Writers, func(w dueWrite) {
		if time.Since(began) > spell {
			return // is due at the next tick
		}
		id := w.pod.Labels[instance.IDLabel]
		written, err := writeActivity(ctx, a.pods, w.pod, w.use)
		a.metrics.ActivityWritten(writeResult(err))
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil:
			a.rememberOwn(id, ownWrite{w.cached, written})
			a.written(id, w.at)
			if w.problem != nil { // told once it is mended, and not at each attempt
				a.metrics.TimeFixed()
				a.log.WarnContext(ctx, "last activity unreadable, was written anew", "id", id, "template", instance.TemplateOf(w.pod), "problem", w.problem)
			}
		case apierrors.IsNotFound(err):
			a.written(id, w.at)
		case apierrors.IsConflict(err):
			conflicts++
		default:
			failed, last = failed+1, err
		}
	})
	if failed > 0 { // one line for all: while the API server is away they all fail
		a.log.WarnContext(ctx, "activity not written, will be tried again", "instances", failed, "error", last)
	}
	return conflicts
}

// snapshot copies the map, so that requests need not wait for writes.
func (a *Activity) snapshot() map[string]use {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.last)
}

// written drops what has been taken care of, unless the instance was used again.
func (a *Activity) written(id string, used time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last[id].at.Equal(used) {
		delete(a.last, id)
	}
}

// latest is a pod of the cache, or what this replica has made of it since.
func (a *Activity) latest(id string, cached *corev1.Pod) *corev1.Pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	if own, ok := a.own[id]; ok && own.cached == cached.ResourceVersion {
		return own.pod
	}
	return cached
}

func (a *Activity) rememberOwn(id string, own ownWrite) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.own[id] = own
}

// forgetOwn drops what the watch has caught up with, and what has no pod.
func (a *Activity) forgetOwn() {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.own, func(id string, own ownWrite) bool {
		pod, exists := a.cluster.Pod(id)
		return !exists || pod.ResourceVersion != own.cached
	})
}

// writeActivity writes to a pod when it was last used, and how.
func writeActivity(ctx context.Context, pods typedcorev1.PodInterface, pod *corev1.Pod, used use) (*corev1.Pod, error) {
	return kube.Annotate(ctx, pods, pod, map[string]any{
		instance.LastActivityAnnotation: instance.FormatTime(used.at), instance.ActivitySourceAnnotation: used.source,
	})
}

// writeResult names what came of a write, as a label of a metric.
func writeResult(err error) string {
	switch {
	case err == nil:
		return "ok"
	case apierrors.IsConflict(err):
		return "conflict"
	}
	return "error"
}

func writeResults() []string { return []string{"ok", "conflict", "error"} }
