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
	// keepAlivePause is the least time between two writes that KeepAlive makes of an instance
	// without a new cull timeout: who knows an id can ask at any rate.
	keepAlivePause = 5 * time.Second
	// keepAliveTries is how often KeepAlive writes while others write to the same pod.
	keepAliveTries = 5
	// keepAliveRetry is the time between two of these writes, in which the watch delivers
	// what others wrote.
	keepAliveRetry = 200 * time.Millisecond
)

// KeepAlive writes at once that an instance is used now, and, unless timeout is 0, that it
// may be idle for so long from now on. Its max age stays. The caller says which timeouts are
// allowed.
//
// The error is instance.ErrEnded, or the API server's.
func (t *Tracker) KeepAlive(ctx context.Context, id string, timeout time.Duration) error {
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
	now := t.deps.Now()
	annotations := map[string]any{
		instance.LastActivityAnnotation:   instance.FormatTime(now),
		instance.ActivitySourceAnnotation: instance.SourceKeepAlive,
	}
	if timeout != 0 && timeout != t.deps.Rules.CullTimeoutOf(pod) {
		annotations[instance.CullTimeoutAnnotation] = timeout.String()
	} else if last, err := instance.LastActivity(pod); err == nil && now.Sub(last).Abs() < keepAlivePause {
		return nil
	}
	written, err := kube.Annotate(ctx, t.deps.Pods, pod, annotations)
	t.deps.Metrics.ActivityWritten(result(err))
	if err == nil {
		t.deps.Cache.Wrote(written)
	}
	return err
}
