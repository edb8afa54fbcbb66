package main

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

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
	written, err := pods.Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: instance.ManagerName})
	if err != nil {
		return nil, fmt.Errorf("write the annotations of pod %s: %w", pod.Name, err)
	}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: written.Name, ResourceVersion: written.ResourceVersion, Labels: written.Labels, Annotations: written.Annotations,
	}}, nil
}
