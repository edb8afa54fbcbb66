package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
)

// mend tells which times on a pod cannot be right, and what is to be written in
// their place. Such a time counts as now: nobody loses an instance by it, and no
// instance lives for ever. problem is nil where there is nothing to mend.
//
// A time in the future may be right by another clock, and ours be wrong: as long as
// that is unsettled, it is left as it is.
func mend(pod *corev1.Pod, now time.Time, policy cullPolicy) (annotations map[string]any, problem error) {
	annotations = map[string]any{}
	unsettled := policy.unsettled(now, flushLag(instance.CullTimeout(pod, policy.cullTimeout)))
	wrong := func(err error) bool {
		if err == nil || unsettled && errors.Is(err, errFuture) {
			return false
		}
		problem = errors.Join(problem, err)
		return true
	}
	if _, err := lastUse(pod, now); wrong(err) {
		annotations[instance.LastActivityAnnotation] = instance.FormatTime(now)
		annotations[instance.ActivitySourceAnnotation] = nil // it was no use
	}
	if maxAge(pod, policy.maxAge) > 0 { // else nobody goes by it
		if _, err := launchedAt(pod, now); wrong(err) {
			annotations[instance.LaunchedAnnotation] = instance.FormatTime(now)
		}
	}
	return annotations, problem
}

// errFuture: a time is later than clocks differ.
var errFuture = errors.New("in the future")

// timeAhead is errFuture of such a time, and else nil.
func timeAhead(annotation string, at, now time.Time) error {
	if at.Sub(now) <= clockSkew {
		return nil
	}
	return fmt.Errorf("annotation %s is %w: %s", annotation, errFuture, instance.FormatTime(at))
}

// repair writes anew the times on a pod that cannot be right.
func (c *Culler) repair(ctx context.Context, pod *corev1.Pod, policy cullPolicy) {
	annotations, problem := mend(pod, c.now(), policy)
	if problem == nil {
		return
	}
	log := c.log.With("id", pod.Labels[instance.IDLabel], "template", instance.TemplateOf(pod), "problem", problem)
	switch _, err := kube.Annotate(ctx, c.pods, pod, annotations); {
	case err == nil:
		c.metrics.TimeFixed()
		log.WarnContext(ctx, "a time on the pod cannot be right, counts as now")
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
	default:
		log.ErrorContext(ctx, "a time on the pod cannot be right, and could not be written anew, will be tried again", "error", err)
	}
}
