package kube

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// EventWriter is the part of client-go's Event client that an event recorder needs.
type EventWriter interface {
	Create(ctx context.Context, event *corev1.Event, opts metav1.CreateOptions) (*corev1.Event, error)
	Patch(ctx context.Context, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions, subresources ...string) (*corev1.Event, error)
}

// EventSink returns where client-go's event recorder writes to. Nothing is written after ctx
// is done.
func EventSink(ctx context.Context, events EventWriter) record.EventSink {
	return eventSink{ctx, events}
}

type eventSink struct {
	ctx    context.Context
	events EventWriter
}

// Create writes a new Event.
func (s eventSink) Create(event *corev1.Event) (*corev1.Event, error) {
	ctx, cancel := context.WithTimeout(s.ctx, WriteTimeout)
	defer cancel()
	return s.events.Create(ctx, event, metav1.CreateOptions{FieldManager: instance.ManagerName})
}

// Patch counts a repeated Event.
func (s eventSink) Patch(event *corev1.Event, patch []byte) (*corev1.Event, error) {
	ctx, cancel := context.WithTimeout(s.ctx, WriteTimeout)
	defer cancel()
	return s.events.Patch(ctx, event.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{FieldManager: instance.ManagerName})
}

// Update is not used by client-go's recorder, and the service may not update Events.
func (s eventSink) Update(*corev1.Event) (*corev1.Event, error) { return nil, errors.ErrUnsupported }
