package tombstone

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
)

// Remover deletes instances and remembers them. The memory is a tombstone: an
// Event which the API server itself drops after its TTL, an hour by default, so
// that nobody has to clean up.
type Remover struct {
	Client    kubernetes.Interface
	Namespace string
	Now       func() time.Time
}

// Remove writes the tombstone, then deletes the pod: in this order, for a crash
// in between leaves a pod that will be looked at again, and not an instance
// that nobody remembers.
//
// Only this very pod is deleted, and with unchangedOnly only if nobody has
// written to it since it was read; else the error is a conflict, by which
// apierrors.IsConflict knows it. That is asked first, so that no tombstone says
// of what lives that it is over. A pod that is gone already is an error that
// apierrors.IsNotFound knows: somebody else has ended it.
func (r *Remover) Remove(ctx context.Context, pod *corev1.Pod, reason instance.EndReason, message string, unchangedOnly bool) error {
	ctx, cancel := context.WithTimeout(ctx, 3*kube.WriteTimeout)
	defer cancel()

	only := metav1.NewUIDPreconditions(string(pod.UID))
	if unchangedOnly {
		only.ResourceVersion = &pod.ResourceVersion
		if err := r.deletePod(ctx, pod.Name, metav1.DeleteOptions{Preconditions: only, DryRun: []string{metav1.DryRunAll}}); err != nil {
			return err
		}
	}
	if err := r.bury(ctx, pod, reason, message, metav1.ApplyOptions{FieldManager: instance.ManagerName, Force: true}); err != nil {
		return err
	}
	return r.deletePod(ctx, pod.Name, metav1.DeleteOptions{Preconditions: only})
}

func (r *Remover) deletePod(ctx context.Context, name string, how metav1.DeleteOptions) error {
	if err := r.Client.CoreV1().Pods(r.Namespace).Delete(ctx, name, how); err != nil {
		return fmt.Errorf("delete pod %s: %w", name, err)
	}
	return nil
}

// Remember writes a tombstone for an instance that somebody else has deleted.
// One that exists already says more and stays as it is: its fields have another
// manager, which the API server calls a conflict.
func (r *Remover) Remember(ctx context.Context, pod *corev1.Pod, message string) error {
	ctx, cancel := context.WithTimeout(ctx, kube.WriteTimeout)
	defer cancel()

	err := r.bury(ctx, pod, instance.EndGone, message, metav1.ApplyOptions{FieldManager: instance.ManagerName + "-observer"})
	if apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// bury applies the tombstone rather than creating it: an earlier one may be
// left from a delete that was refused because the instance was in use after
// all, and writing it anew also starts its hour anew.
func (r *Remover) bury(ctx context.Context, pod *corev1.Pod, reason instance.EndReason, message string, how metav1.ApplyOptions) error {
	tombstone := New(pod, r.Namespace, reason, message, r.Now())
	if _, err := r.Client.CoreV1().Events(r.Namespace).Apply(ctx, tombstone, how); err != nil {
		return fmt.Errorf("write tombstone %s: %w", *tombstone.Name, err)
	}
	return nil
}

// New says of an instance all that a client may still ask for.
func New(pod *corev1.Pod, namespace string, reason instance.EndReason, message string, now time.Time) *applycorev1.EventApplyConfiguration {
	kind := corev1.EventTypeNormal
	if reason == instance.EndFailed {
		kind = corev1.EventTypeWarning
	}
	return applycorev1.Event(instance.TombstoneName(pod.Labels[instance.IDLabel]), namespace).
		WithLabels(map[string]string{
			instance.ManagedByLabel:    instance.ManagerName,
			instance.IDLabel:           pod.Labels[instance.IDLabel],
			instance.TemplateLabel:     pod.Labels[instance.TemplateLabel],
			instance.TemplateHashLabel: pod.Labels[instance.TemplateHashLabel],
		}).
		WithAnnotations(map[string]string{instance.TemplateNameAnnotation: instance.TemplateOf(pod)}).
		WithInvolvedObject(applycorev1.ObjectReference().
			WithAPIVersion("v1").WithKind("Pod").WithNamespace(namespace).WithName(pod.Name).WithUID(pod.UID)).
		WithType(kind).
		WithReason(string(reason)).
		WithMessage(message).
		WithSource(applycorev1.EventSource().WithComponent(instance.ManagerName)).
		WithFirstTimestamp(pod.CreationTimestamp).
		WithLastTimestamp(metav1.NewTime(now)).
		WithCount(1)
}
