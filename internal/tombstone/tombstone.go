// Package tombstone deletes instances and remembers them.
//
// A tombstone is an Event about the pod of an instance, with the reason and the
// message of the instance's end. The API server drops Events after a TTL, an hour by
// default, so tombstones need no clean-up. Package instance reads them.
//
// This package does not know when an instance ends, or why.
package tombstone

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
)

// removeTimeout limits a whole removal, of up to three requests.
const removeTimeout = 3 * kube.WriteTimeout

// Metrics counts what a Remover does.
type Metrics interface {
	// TombstoneFailed counts a tombstone that was not written.
	TombstoneFailed()
}

// Remover deletes instances and writes their tombstones. All fields but Metrics must be set.
type Remover struct {
	// Client needs the rights to delete pods, and to create and patch Events.
	Client kube.Client
	// Namespace is where instances and tombstones are.
	Namespace string
	// Now is the clock that says when an instance ended.
	Now func() time.Time
	// Log is told of tombstones that were not written: of each, so it should be sparse.
	Log     *slog.Logger
	Metrics Metrics

	writer writer
}

// Remove deletes an instance, in use or not. It writes the tombstone of a pod's instance
// and then deletes the pod. In this order a crash in between leaves a pod, which will be
// removed later; the other order would leave an instance that nobody remembers.
//
// The delete is the duty, the tombstone a courtesy: the API server keeps Events by best
// effort only. The pod is deleted even if its tombstone is refused, or not answered within
// a few seconds, which is logged and counted. Remember has a second try.
//
// The pod's UID is a precondition of the delete. If another pod has the name,
// apierrors.IsConflict is true for the error. If the pod is already gone,
// apierrors.IsNotFound is true.
func (r *Remover) Remove(ctx context.Context, pod *corev1.Pod, end instance.End) error {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	return r.remove(ctx, pod, end, metav1.NewUIDPreconditions(string(pod.UID)))
}

// RemoveIfUnchanged is Remove for a pod that nobody has written to since it was read.
// The pod's resourceVersion is a precondition too. If the pod has changed, it stays, and
// apierrors.IsConflict is true for the error.
//
// A dry run tries the preconditions before the tombstone is written, so that a living
// instance seldom gets one. An admission webhook that supports no dry run does not keep
// the pod. It gets one if its pod changes between the dry run and the
// delete. That does no harm while the pod lives. If somebody else deletes the pod before
// the tombstone expires, clients are told the tombstone's reason.
func (r *Remover) RemoveIfUnchanged(ctx context.Context, pod *corev1.Pod, end instance.End) error {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	preconditions := metav1.NewUIDPreconditions(string(pod.UID))
	preconditions.ResourceVersion = &pod.ResourceVersion
	dryRun := metav1.DeleteOptions{Preconditions: preconditions, DryRun: []string{metav1.DryRunAll}}
	if err := r.deletePod(ctx, pod.Name, dryRun); err != nil && !apierrors.IsBadRequest(err) {
		return err
	}
	return r.remove(ctx, pod, end, preconditions)
}

// remove writes the tombstone and then deletes the pod. A pod without an id of its own gets none:
// nobody can ask for it.
func (r *Remover) remove(ctx context.Context, pod *corev1.Pod, end instance.End, preconditions *metav1.Preconditions) error {
	options := metav1.ApplyOptions{FieldManager: instance.ManagerName, Force: true}
	if !instance.HasID(pod) {
		return r.deletePod(ctx, pod.Name, metav1.DeleteOptions{Preconditions: preconditions})
	}
	unwritten := r.writeTombstone(ctx, pod, end, options)
	if unwritten != nil {
		r.failed(ctx, "the tombstone of an instance was not written, its pod is deleted all the same", pod, end, unwritten)
		r.writer.owe(pod.UID, end) // before the delete, after which the watch is quick
	}
	err := r.deletePod(ctx, pod.Name, metav1.DeleteOptions{Preconditions: preconditions})
	if unwritten != nil && err != nil {
		r.writer.takeOwed(pod.UID)
	}
	return err
}

// failed logs and counts a tombstone that was not written.
func (r *Remover) failed(ctx context.Context, message string, pod *corev1.Pod, end instance.End, err error) {
	r.Log.WarnContext(ctx, message, "pod", pod.Name, "template", instance.TemplateOf(pod), "reason", end.Reason, "error", err)
	if r.Metrics != nil {
		r.Metrics.TombstoneFailed()
	}
}

func (r *Remover) deletePod(ctx context.Context, name string, options metav1.DeleteOptions) error {
	if err := r.Client.CoreV1().Pods(r.Namespace).Delete(ctx, name, options); err != nil {
		return fmt.Errorf("delete pod %s: %w", name, err)
	}
	return nil
}

// Remember writes a tombstone for an instance whose pod is gone, and has none. If this
// Remover has deleted the pod, the tombstone says what it could not write then, and else
// that end. A tombstone that exists is kept, because it says more. Its fields belong to
// another field manager, so the API server answers with a conflict. An error is logged and
// counted.
//
// news says that the end is remembered now, and that nobody has reported it before: this
// Remover has not deleted the pod, and there was no tombstone.
func (r *Remover) Remember(ctx context.Context, pod *corev1.Pod, end instance.End) (news bool, err error) {
	owed, isOwed := r.writer.takeOwed(pod.UID)
	if isOwed {
		end = owed
	}
	options := metav1.ApplyOptions{FieldManager: instance.ManagerName + "-observer"}
	err = r.writeTombstone(ctx, pod, end, options)
	if apierrors.IsConflict(err) {
		return false, nil
	}
	if err != nil {
		r.failed(ctx, "a deleted instance is not remembered", pod, end, err)
		if isOwed {
			r.writer.owe(pod.UID, end) // a pod that is still there is looked at again
		}
	}
	return !isOwed && err == nil, err
}

// renewPeriod is how often the tombstone of a pod that is still there is renewed. It is half of
// the time for which API servers keep Events by default (--event-ttl).
const renewPeriod = 30 * time.Minute

// Renew makes the API server keep a tombstone for longer, if it is time for that. Its count says
// how often that was done.
func (r *Remover) Renew(ctx context.Context, tombstone *corev1.Event) error {
	if r.Now().Sub(tombstone.LastTimestamp.Time) < time.Duration(tombstone.Count)*renewPeriod {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, kube.WriteTimeout)
	defer cancel()
	patch := fmt.Appendf(nil, `{"count":%d}`, tombstone.Count+1)
	_, err := r.Client.CoreV1().Events(r.Namespace).Patch(ctx, tombstone.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: instance.ManagerName})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("renew tombstone %s: %w", tombstone.Name, err)
	}
	return nil
}

// writeTombstone applies the tombstone instead of creating it, because one can be
// left from a delete that failed. Writing it again also restarts its TTL.
func (r *Remover) writeTombstone(ctx context.Context, pod *corev1.Pod, end instance.End, options metav1.ApplyOptions) error {
	event := newEvent(pod, r.Namespace, end, r.Now())
	err := r.writer.try(ctx, func(ctx context.Context) error {
		_, err := r.Client.CoreV1().Events(r.Namespace).Apply(ctx, event, options)
		return err
	})
	if err != nil {
		return fmt.Errorf("write tombstone %s: %w", *event.Name, err)
	}
	return nil
}

// newEvent returns the tombstone of a pod's instance that ends now. It has the pod's
// labels, so that both are selected and indexed alike. The API server requires it to
// be in the pod's namespace.
func newEvent(pod *corev1.Pod, namespace string, end instance.End, now time.Time) *applycorev1.EventApplyConfiguration {
	eventType := corev1.EventTypeNormal
	if end.Reason == instance.EndFailed {
		eventType = corev1.EventTypeWarning
	}
	annotations := map[string]string{instance.TemplateNameAnnotation: instance.TemplateOf(pod)}
	if end.Detail != "" {
		annotations[instance.DetailAnnotation] = end.Detail
	}
	if end.Fault != "" {
		annotations[instance.FaultAnnotation] = string(end.Fault)
	}
	if launched := pod.Annotations[instance.LaunchedAnnotation]; launched != "" {
		annotations[instance.LaunchedAnnotation] = launched
	}
	return applycorev1.Event(instance.TombstoneName(pod.Labels[instance.IDLabel]), namespace).
		WithLabels(instance.TombstoneLabels(pod)).
		WithAnnotations(annotations).
		WithInvolvedObject(applycorev1.ObjectReference().
			WithAPIVersion("v1").WithKind("Pod").WithNamespace(namespace).WithName(pod.Name).WithUID(pod.UID)).
		WithType(eventType).
		WithReason(string(end.Reason)).
		WithMessage(instance.TombstoneText(end.Message, end.Detail)).
		WithSource(applycorev1.EventSource().WithComponent(instance.ManagerName)).
		WithFirstTimestamp(pod.CreationTimestamp).
		WithLastTimestamp(metav1.NewTime(now)).
		WithCount(1)
}
