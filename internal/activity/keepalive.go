package activity

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
)

const (
	// keepAlivePause is the least time between two writes that KeepAlive makes of an instance,
	// unless uses of it are written more often than that. Anyone who knows an id can ask at any
	// rate.
	keepAlivePause = 5 * time.Second
	// keepAliveTries is how often KeepAlive writes while others write to the same pod.
	keepAliveTries = 5
	// keepAliveRetry is the time between two of these writes, in which the watch delivers
	// what others wrote.
	keepAliveRetry = 200 * time.Millisecond
)

// KeepAlive writes at once that an instance is used now, and, unless timeout is 0, that it
// may be idle for so long from now on. Its max age stays. The caller says which timeouts are
// allowed. If a use was written a moment ago, this one is noted like any other.
//
// The error is instance.ErrEnded, instance.ErrTooSoon if the timeout was changed a moment ago,
// or the API server's.
func (t *Tracker) KeepAlive(ctx context.Context, id string, timeout time.Duration) error {
	if !t.beginKeeping(id) {
		return t.keptAlready(id, timeout)
	}
	defer t.endKeeping(id)
	for try := 1; ; try++ {
		pod, exists := t.deps.Cache.Pod(id)
		if !exists || pod.DeletionTimestamp != nil {
			return instance.ErrEnded
		}
		err := t.keepAlive(ctx, pod, timeout)
		if apierrors.IsNotFound(err) {
			return instance.ErrEnded
		}
		if !apierrors.IsConflict(err) || try == keepAliveTries {
			return err
		}
		select {
		case <-time.After(keepAliveRetry):
		case <-ctx.Done():
			return fmt.Errorf("keep an instance alive: %w", ctx.Err())
		}
	}
}

// keepAlive makes one try, unless there is nothing to write.
func (t *Tracker) keepAlive(ctx context.Context, pod *corev1.Pod, timeout time.Duration) error {
	now, rules := t.deps.Now(), t.deps.Rules
	if !instance.FromPod(pod, nil, now, rules.StartTimeout).Alive() {
		return instance.ErrEnded
	}
	// The culler deletes the version that it has judged. Who writes to a pod that is too old
	// again and again must not keep it.
	if end, reason := rules.DueEnd(pod, now, now); reason == instance.EndExpired && !end.After(now) {
		return instance.ErrEnded
	}
	present := rules.CullTimeoutOf(pod)
	changes := timeout != 0 && timeout != present
	last, err := instance.LastActivity(pod)
	justWritten := err == nil && now.Sub(last).Abs() < min(keepAlivePause, rules.Period(present))
	byKeepAlive := pod.Annotations[instance.ActivitySourceAnnotation] == string(instance.SourceKeepAlive)
	switch {
	case justWritten && !changes:
		t.Touch(pod.Labels[instance.IDLabel], instance.SourceKeepAlive)
		return nil
	case justWritten && byKeepAlive:
		return instance.ErrTooSoon
	}
	return t.writeKeepAlive(ctx, pod, now, timeout, changes)
}

// writeKeepAlive writes a use and, if it changes, the timeout.
func (t *Tracker) writeKeepAlive(ctx context.Context, pod *corev1.Pod, now time.Time, timeout time.Duration, changes bool) error {
	annotations := map[string]any{
		instance.LastActivityAnnotation:   instance.FormatTime(now),
		instance.ActivitySourceAnnotation: instance.SourceKeepAlive,
	}
	if changes {
		annotations[instance.CullTimeoutAnnotation] = timeout.String()
	}
	ctx, cancel := context.WithTimeout(ctx, kube.CreateTimeout) // a client waits
	defer cancel()
	select {
	case t.writers <- struct{}{}:
		defer func() { <-t.writers }()
	case <-ctx.Done():
		return fmt.Errorf("keep an instance alive: %w", ctx.Err())
	}
	written, err := kube.Annotate(ctx, t.deps.Pods, pod, annotations)
	t.deps.Metrics.ActivityWritten(result(err))
	if err == nil {
		t.deps.Cache.Wrote(written)
	}
	return err
}

// beginKeeping reports whether nobody keeps an instance alive at the moment. Then endKeeping
// must follow.
func (t *Tracker) beginKeeping(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, busy := t.keeping[id]; busy {
		return false
	}
	t.keeping[id] = struct{}{}
	return true
}

func (t *Tracker) endKeeping(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.keeping, id)
}

// keptAlready answers who asks while another request writes.
func (t *Tracker) keptAlready(id string, timeout time.Duration) error {
	if timeout != 0 {
		return instance.ErrTooSoon
	}
	t.Touch(id, instance.SourceKeepAlive)
	return nil
}
