// Package kube says how this service writes to the API server: how long a write may
// take, how many run at once, what a write is conditional on, and what a refusal
// means. It never decides what to write, and it does not read.
package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const (
	// WriteTimeout limits each write in the background.
	WriteTimeout = 10 * time.Second
	// CreateTimeout limits the write of a launch or a preload. It is shorter, because a
	// client waits for it and can try again.
	CreateTimeout = 3 * time.Second
	// Writers is how many writes one loop runs at the same time.
	Writers = 8
)

// createTries is how often a pod is created at most. Creates that use the same quota at the same
// time can conflict; the API server has tried several times itself then.
const createTries = 3

// PodCreator is the part of client-go's pod client that CreatePod needs.
type PodCreator interface {
	Create(ctx context.Context, pod *corev1.Pod, opts metav1.CreateOptions) (*corev1.Pod, error)
}

// CreatePod creates a pod, and returns it as the API server has it. The error is the API server's.
func CreatePod(ctx context.Context, pods PodCreator, pod *corev1.Pod) (created *corev1.Pod, err error) {
	for range createTries {
		created, err = pods.Create(ctx, pod, metav1.CreateOptions{FieldManager: instance.ManagerName})
		if !apierrors.IsConflict(err) {
			break
		}
	}
	return created, err
}

// PodPatcher is the part of client-go's pod client that Annotate needs.
type PodPatcher interface {
	Patch(ctx context.Context, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions, subresources ...string) (*corev1.Pod, error)
}

// Annotate sets annotations of a pod, and removes those that are nil. If the pod was
// written to since it was read, nothing changes and the error is a conflict. Annotate
// returns the pod as the API server now has it. It takes at most WriteTimeout.
func Annotate(ctx context.Context, pods PodPatcher, pod *corev1.Pod, annotations map[string]any) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, WriteTimeout)
	defer cancel()
	written, err := PatchMetadata(ctx, pods, pod, map[string]any{"annotations": annotations})
	if err != nil {
		return nil, fmt.Errorf("write the annotations of pod %s: %w", pod.Name, err)
	}
	return written, nil
}

// PatchMetadata merges changes into a pod's metadata (a JSON merge patch, RFC 7396, in
// which nil removes). If the pod was written to since it was read, nothing changes and
// the error is a conflict. PatchMetadata returns the pod as the API server now has it.
func PatchMetadata(ctx context.Context, pods PodPatcher, pod *corev1.Pod, metadata map[string]any) (*corev1.Pod, error) {
	return PatchPod(ctx, pods, pod, metadata, nil)
}

// PatchPod is PatchMetadata that merges changes into the pod's spec too.
func PatchPod(ctx context.Context, pods PodPatcher, pod *corev1.Pod, metadata, spec map[string]any) (*corev1.Pod, error) {
	guarded := maps.Clone(metadata)
	guarded["resourceVersion"] = pod.ResourceVersion
	changes := map[string]any{"metadata": guarded}
	if len(spec) > 0 {
		changes["spec"] = spec
	}
	patch, err := json.Marshal(changes)
	if err != nil {
		return nil, fmt.Errorf("encode the patch: %w", err)
	}
	return pods.Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: instance.ManagerName})
}

// IsRefused reports whether the API server refused a request because of its content: by
// validation, or by admission (pod security, a quota). Repeating the same request helps only
// if something else changes; see IsQuota.
func IsRefused(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsForbidden(err) && !lacksRight(err) || apierrors.IsBadRequest(err)
}

// lacksRight reports whether an API server did not let this service do something, whatever it
// was about. One that has just started, and has not read the Roles yet, does so for a moment.
// Its reason for that is Forbidden, as for much else; only the text differs.
func lacksRight(err error) bool { return strings.Contains(err.Error(), ` is forbidden: User "`) }

// MayPass reports whether a write that failed may succeed a moment later without a change:
// the API server was busy, had an error of its own, or did not answer.
func MayPass(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true // no answer
	}
	code := status.Status().Code
	return code == http.StatusTooManyRequests || code >= http.StatusInternalServerError
}

// IsQuota reports whether a ResourceQuota refused an object, or was not yet counted. The
// API server's reason for that is Forbidden, as for much else; only the text differs.
func IsQuota(err error) bool {
	return apierrors.IsForbidden(err) &&
		(strings.Contains(err.Error(), "exceeded quota") || strings.Contains(err.Error(), "status unknown for quota"))
}
