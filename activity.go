package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

const (
	// flushTick is how often it is looked for activity that is due to be written.
	flushTick = time.Second
	// writers is how many writes to the API server one loop has under way at most.
	writers = 8
	// lastFlushes and lastFlushPause are for conflicts when this replica ends:
	// an instance in use elsewhere is written to by others as well.
	lastFlushes    = 3
	lastFlushPause = 100 * time.Millisecond
)

// flushPeriod is the least time between two writes of an instance's activity.
func flushPeriod(timeout time.Duration) time.Duration { return timeout / 12 }

// flushLag is by how much an annotation may be behind what some replica knows:
// what came just after a write waits a period, a tick, and the write itself.
func flushLag(timeout time.Duration) time.Duration { return flushPeriod(timeout) + 2*flushTick }

// Activity remembers when instances were last used until that is written to
// their pods. Every replica has its own and writes what went through it; the
// latest time wins.
type Activity struct {
	pods           typedcorev1.PodInterface
	cluster        *Cluster
	defaultTimeout time.Duration
	metrics        *Metrics
	log            *slog.Logger
	now            func() time.Time

	mu   sync.Mutex
	last map[string]use // by id; what is written, or has no pod, is dropped
	// own is, by id, what this replica's last write made of a pod, until the
	// watch brings something newer than what that write went by.
	own map[string]ownWrite
	// writes are, by id, the last writes of activity that this replica knows of,
	// for as long as there is a pod.
	writes map[string]lastWrite
}

// use is when an instance was used, and how.
type use struct {
	at     time.Time
	source Source
}

// lastWrite is what was written to a pod, by whichever replica, and when: which
// is later than the use by up to a period.
type lastWrite struct{ annotated, at time.Time }

// ownWrite is a pod that the API server has and the cache does not have yet.
// After an outage that can take a minute: a watch is opened again with delays
// that double, while writes work at once.
type ownWrite struct {
	cached string // the resourceVersion that the cache had
	pod    *corev1.Pod
}

// NewActivity makes an empty one.
func NewActivity(pods typedcorev1.PodInterface, cluster *Cluster, defaultTimeout time.Duration,
	metrics *Metrics, log *slog.Logger, now func() time.Time) *Activity {
	return &Activity{
		pods: pods, cluster: cluster, defaultTimeout: defaultTimeout,
		metrics: metrics, log: log, now: now, last: map[string]use{},
		own: map[string]ownWrite{}, writes: map[string]lastWrite{},
	}
}

// Touch notes that an instance is in use now.
func (a *Activity) Touch(id string, source Source) {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.After(a.last[id].at) {
		a.last[id] = use{now, source}
	}
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
			a.flush(ctx, flushPeriod)
		}
	}
}

// Flush writes all there is, due or not: for when this replica ends.
func (a *Activity) Flush(ctx context.Context) {
	all := func(time.Duration) time.Duration { return 0 }
	for range lastFlushes {
		if conflicts := a.flush(ctx, all); conflicts == 0 {
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
	problem error // what is wrong with the annotation
}

// due returns what is newer than its annotation and was not written for the
// period of its timeout, and drops what need not be remembered.
func (a *Activity) due(period func(timeout time.Duration) time.Duration) []dueWrite {
	var due []dueWrite
	for id, used := range a.snapshot() {
		pod, exists := a.cluster.Pod(id)
		if !exists || pod.DeletionTimestamp != nil {
			a.written(id, used.at)
			continue
		}
		cached := pod.ResourceVersion
		pod = a.latest(id, pod)
		annotated, err := lastActivity(pod)
		switch {
		case err != nil:
			due = append(due, dueWrite{pod, cached, used, err})
		case !used.at.Truncate(time.Millisecond).After(annotated):
			a.written(id, used.at)
		case a.isDue(id, annotated, period(cullTimeout(pod, a.defaultTimeout))):
			due = append(due, dueWrite{pod, cached, used, nil})
		}
	}
	return due
}

// isDue reports whether a pod was last written a period ago. Who has written a
// new time since this replica last looked did so at a time that is not known: at
// most a period after the use, and not after now.
func (a *Activity) isDue(id string, annotated time.Time, period time.Duration) bool {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	last, known := a.writes[id]
	switch {
	case !known:
		last = lastWrite{annotated, annotated}
	case !last.annotated.Equal(annotated):
		last = lastWrite{annotated, annotated.Add(period)}
		if last.at.After(now) {
			last.at = now
		}
	}
	a.writes[id] = last
	return now.Sub(last.at) >= period
}

// flush writes what is due, a bounded number at a time. The map is the queue: it
// holds one use of an instance, the latest, until that is written, so that what
// meets a conflict, or no API server, is tried again at the next tick. It returns
// how many writes came too late, because the pod had been written to: what the
// watch then brings decides about them.
func (a *Activity) flush(ctx context.Context, period func(timeout time.Duration) time.Duration) (conflicts int) {
	var mu sync.Mutex
	var failed int
	var last error
	a.forgetOwn()
	began := a.now()
	forEach(a.due(period), writers, func(w dueWrite) {
		id := w.pod.Labels[idLabel]
		written, err := writeActivity(ctx, a.pods, w.pod, w.use)
		a.metrics.activityPatched(err)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil:
			a.rememberOwn(id, ownWrite{w.cached, written}, lastWrite{w.at.Truncate(time.Millisecond), began})
			a.written(id, w.at)
			if w.problem != nil { // told once it is mended, and not at each attempt
				a.metrics.unreadable.Inc()
				a.log.WarnContext(ctx, "last activity unreadable, was written anew", "id", id, "template", templateOf(w.pod), "problem", w.problem)
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

func (a *Activity) rememberOwn(id string, own ownWrite, write lastWrite) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.own[id] = own
	a.writes[id] = write
}

// forgetOwn drops what the watch has caught up with, and what has no pod.
func (a *Activity) forgetOwn() {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.own, func(id string, own ownWrite) bool {
		pod, exists := a.cluster.Pod(id)
		return !exists || pod.ResourceVersion != own.cached
	})
	maps.DeleteFunc(a.writes, func(id string, _ lastWrite) bool {
		_, exists := a.cluster.Pod(id)
		return !exists
	})
}

// writeActivity writes to a pod when it was last used, and how.
func writeActivity(ctx context.Context, pods typedcorev1.PodInterface, pod *corev1.Pod, used use) (*corev1.Pod, error) {
	return annotate(ctx, pods, pod, map[string]any{
		lastActivityAnnotation: formatActivity(used.at), activitySourceAnnotation: used.source,
	})
}

// annotate sets a pod's annotations, and removes those that are nil, provided
// nobody has written to the pod since it was read: so that no later time is
// overwritten by an earlier one. It returns the metadata that the pod now has.
func annotate(ctx context.Context, pods typedcorev1.PodInterface, pod *corev1.Pod, annotations map[string]any) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"resourceVersion": pod.ResourceVersion,
		"annotations":     annotations,
	}})
	if err != nil {
		return nil, fmt.Errorf("encode the annotations of pod %s: %w", pod.Name, err)
	}
	written, err := pods.Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: managerName})
	if err != nil {
		return nil, fmt.Errorf("write the annotations of pod %s: %w", pod.Name, err)
	}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: written.Name, ResourceVersion: written.ResourceVersion, Labels: written.Labels, Annotations: written.Annotations,
	}}, nil
}
