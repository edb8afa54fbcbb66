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
	last map[string]time.Time // by id; what is written, or has no pod, is dropped
	// own is, by id, what this replica's last write made of a pod, until the
	// watch brings something newer than what that write went by.
	own map[string]ownWrite
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
	metrics *Metrics, log *slog.Logger, now func() time.Time) *Activity {
	return &Activity{
		pods: pods, cluster: cluster, defaultTimeout: defaultTimeout,
		metrics: metrics, log: log, now: now, last: map[string]time.Time{},
		own: map[string]ownWrite{},
	}
}

// Touch notes that an instance is in use now.
func (a *Activity) Touch(id string) {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.After(a.last[id]) {
		a.last[id] = now
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
	used   time.Time
}

// due returns what is newer than its annotation by the period of its timeout,
// and drops what need not be remembered.
func (a *Activity) due(ctx context.Context, period func(timeout time.Duration) time.Duration) []dueWrite {
	var due []dueWrite
	for id, used := range a.snapshot() {
		pod, exists := a.cluster.Pod(id)
		if !exists || pod.DeletionTimestamp != nil {
			a.written(id, used)
			continue
		}
		cached := pod.ResourceVersion
		pod = a.latest(id, pod)
		annotated, err := lastActivity(pod)
		switch {
		case err != nil:
			a.metrics.unreadable.Inc()
			a.log.WarnContext(ctx, "last activity unreadable, is written anew", "id", id, "template", templateOf(pod), "problem", err)
			due = append(due, dueWrite{pod, cached, used})
		case !used.Truncate(time.Millisecond).After(annotated):
			a.written(id, used)
		case a.now().Sub(annotated) >= period(cullTimeout(pod, a.defaultTimeout)):
			due = append(due, dueWrite{pod, cached, used})
		}
	}
	return due
}

// flush writes what is due. It returns how many writes came too late, because
// the pod had been written to: what the watch then brings decides about them.
func (a *Activity) flush(ctx context.Context, period func(timeout time.Duration) time.Duration) (conflicts int) {
	var mu sync.Mutex
	var failed int
	var last error
	a.forgetOwn()
	forEach(a.due(ctx, period), writers, func(w dueWrite) {
		id := w.pod.Labels[idLabel]
		written, err := writeActivity(ctx, a.pods, w.pod, w.used)
		a.metrics.activityPatched(err)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil:
			a.rememberOwn(id, ownWrite{w.cached, written})
			a.written(id, w.used)
		case apierrors.IsNotFound(err):
			a.written(id, w.used)
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
func (a *Activity) snapshot() map[string]time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make(map[string]time.Time, len(a.last))
	for id, used := range a.last {
		all[id] = used
	}
	return all
}

// written drops what has been taken care of, unless the instance was used again.
func (a *Activity) written(id string, used time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last[id].Equal(used) {
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

// forgetOwn drops what the watch has caught up with.
func (a *Activity) forgetOwn() {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.own, func(id string, own ownWrite) bool {
		pod, exists := a.cluster.Pod(id)
		return !exists || pod.ResourceVersion != own.cached
	})
}

// writeActivity sets a pod's annotation, provided nobody has written to the pod
// since it was read: so that no later time is overwritten by an earlier one. It
// returns the metadata that the pod now has.
func writeActivity(ctx context.Context, pods typedcorev1.PodInterface, pod *corev1.Pod, used time.Time) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"resourceVersion": pod.ResourceVersion,
		"annotations":     map[string]string{lastActivityAnnotation: formatActivity(used)},
	}})
	if err != nil {
		return nil, fmt.Errorf("encode the activity of pod %s: %w", pod.Name, err)
	}
	written, err := pods.Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: managerName})
	if err != nil {
		return nil, fmt.Errorf("write the activity of pod %s: %w", pod.Name, err)
	}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: written.Name, ResourceVersion: written.ResourceVersion, Labels: written.Labels, Annotations: written.Annotations,
	}}, nil
}
