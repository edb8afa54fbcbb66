package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// Annotate sets a pod's annotations, and removes those that are nil, provided
// nobody has written to the pod since it was read: so that no later time is
// overwritten by an earlier one. It returns the metadata that the pod now has.
func Annotate(ctx context.Context, pods typedcorev1.PodInterface, pod *corev1.Pod, annotations map[string]any) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, WriteTimeout)
	defer cancel()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"resourceVersion": pod.ResourceVersion,
		"annotations":     annotations,
	}})
	if err != nil {
		return nil, fmt.Errorf("encode the annotations of pod %s: %w", pod.Name, err)
	}
	written, err := pods.Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: instance.ManagerName})
	if err != nil {
		return nil, fmt.Errorf("write the annotations of pod %s: %w", pod.Name, err)
	}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: written.Name, ResourceVersion: written.ResourceVersion, Labels: written.Labels, Annotations: written.Annotations,
	}}, nil
}

// Writers is how many writes to the API server one loop has under way at most.
const Writers = 8

// CreateTimeout bounds the write of a launch or a preload. It is shorter than
// that of others: a client waits, and can try again.
const CreateTimeout = 3 * time.Second

// IsQuota reports whether a ResourceQuota refused the pod, or has not been
// counted yet. The API server has no reason of its own for that: it is
// Forbidden, told apart by its text only.
func IsQuota(err error) bool {
	return apierrors.IsForbidden(err) &&
		(strings.Contains(err.Error(), "exceeded quota") || strings.Contains(err.Error(), "status unknown for quota"))
}

// WriteTimeout bounds every single write to the API server.
const WriteTimeout = 10 * time.Second

// IsRefused reports whether the API server refused an object for what it is: by
// validation, admission such as pod security, or missing rights. The same request
// would be refused again.
func IsRefused(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsBadRequest(err)
}

// OwnWriteWait bounds how long a write waits for the watch to deliver it.
const OwnWriteWait = 2 * time.Second
