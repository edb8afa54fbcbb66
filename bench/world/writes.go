package world

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// unusedLabel marks the templates that AddTemplates makes.
const unusedLabel = "binder-bench.example/unused"

// Use writes that an instance is used now, as a replica does that serves its visitor, but
// whatever its pod's version is.
func (w *World) Use(ctx context.Context, id string) error {
	now := time.Now().UTC().Format(timeLayout)
	change, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{
		activityAnnotation: now, "binder-project.org/last-activity-source": "http",
	}}})
	if err != nil {
		return fmt.Errorf("encode a use: %w", err)
	}
	if _, err := w.Client.CoreV1().Pods(Namespace).Patch(ctx, podName(id), types.MergePatchType, change, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("write a use of an instance: %w", err)
	}
	return nil
}

// AddTemplates adds templates that nothing is launched from. It returns the size of one in
// protobuf, as the API server sends it.
func (w *World) AddTemplates(ctx context.Context, count int) (size int, err error) {
	for i := range count {
		template := &corev1.PodTemplate{
			ObjectMeta: metav1.ObjectMeta{
				Name: fmt.Sprintf("unused-%d", i), Labels: map[string]string{unusedLabel: "true"},
				Annotations: map[string]string{"binder-project.org/port": strconv.Itoa(echoPort)},
			},
			Template: corev1.PodTemplateSpec{Spec: echoSpec()},
		}
		created, err := w.Client.CoreV1().PodTemplates(Namespace).Create(ctx, template, metav1.CreateOptions{})
		if err != nil {
			return 0, fmt.Errorf("create template %d: %w", i, err)
		}
		size = created.Size()
	}
	return size, nil
}

// RemoveTemplates removes what AddTemplates has added.
func (w *World) RemoveTemplates(ctx context.Context) error {
	err := w.Client.CoreV1().PodTemplates(Namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: unusedLabel})
	if err != nil {
		return fmt.Errorf("delete the templates: %w", err)
	}
	return nil
}
