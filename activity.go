package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
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
}

// NewActivity makes an empty one.
func NewActivity(pods typedcorev1.PodInterface, cluster *Cluster, defaultTimeout time.Duration,
	metrics *Metrics, log *slog.Logger, now func() time.Time) *Activity {
	return &Activity{
		pods: pods, cluster: cluster, defaultTimeout: defaultTimeout,
		metrics: metrics, log: log, now: now, last: map[string]time.Time{},
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
	a.flush(ctx, func(time.Duration) time.Duration { return 0 })
}

// flush writes what is newer than its annotation by the period of its timeout.
func (a *Activity) flush(ctx context.Context, period func(timeout time.Duration) time.Duration) {
	type write struct {
		pod  *corev1.Pod
		used time.Time
	}
	var due []write
	for id, used := range a.snapshot() {
		pod, exists := a.cluster.Pod(id)
		if !exists || pod.DeletionTimestamp != nil {
			a.written(id, used)
			continue
		}
		annotated, err := lastActivity(pod) // unreadable: zero, and so due
		switch {
		case err == nil && !used.Truncate(time.Millisecond).After(annotated):
			a.written(id, used)
		case a.now().Sub(annotated) >= period(cullTimeout(pod, a.defaultTimeout)):
			due = append(due, write{pod, used})
		}
	}
	forEach(due, writers, func(w write) {
		id := w.pod.Labels[idLabel]
		err := writeActivity(ctx, a.pods, w.pod, w.used)
		a.metrics.activityPatched(err)
		switch {
		case err == nil, apierrors.IsNotFound(err):
			a.written(id, w.used)
		case apierrors.IsConflict(err):
			// The cache is behind: the next tick decides on what it then says.
		default:
			a.log.WarnContext(ctx, "activity not written, will be tried again", "id", id, "error", err)
		}
	})
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

// writeActivity sets a pod's annotation, provided nobody has written to the pod
// since it was read: so that no later time is overwritten by an earlier one.
func writeActivity(ctx context.Context, pods typedcorev1.PodInterface, pod *corev1.Pod, used time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"resourceVersion": pod.ResourceVersion,
		"annotations":     map[string]string{lastActivityAnnotation: formatActivity(used)},
	}})
	if err != nil {
		return fmt.Errorf("encode the activity of pod %s: %w", pod.Name, err)
	}
	_, err = pods.Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: managerName})
	if err != nil {
		return fmt.Errorf("write the activity of pod %s: %w", pod.Name, err)
	}
	return nil
}
