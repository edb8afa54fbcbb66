package podtemplate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
)

const (
	// WarningQueue bounds the Events that wait to be written.
	WarningQueue = 256
	// WarningRenewal is how often they are written anew: the API server drops an
	// Event after an hour by default, and what is wrong is so for longer.
	WarningRenewal = 30 * time.Minute
)

// Templates is what warnings ask the read model.
type Templates interface {
	PodTemplates() []*corev1.PodTemplate
	OnTemplate(changed func(before, template *corev1.PodTemplate)) error
}

// Warnings tells of what is not valid on a template, and what it is
// launched without: in the log, and by an Event on it for kubectl describe. All
// replicas write the same Event.
type Warnings struct {
	client    kubernetes.Interface
	templates Templates
	Log       *slog.Logger
	now       func() time.Time
	Queue     chan TemplateWarning
}

// TemplateWarning is what is wrong with one annotation of a template.
type TemplateWarning struct {
	template   *corev1.PodTemplate
	annotation string
	problem    error
}

// NewWarnings makes one that looks at every version of a template.
func NewWarnings(client kubernetes.Interface, templates Templates, log *slog.Logger, now func() time.Time) (*Warnings, error) {
	w := &Warnings{client: client, templates: templates, Log: log, now: now, Queue: make(chan TemplateWarning, WarningQueue)}
	return w, templates.OnTemplate(w.Look)
}

// Look warns of what has come to be wrong.
func (w *Warnings) Look(before, template *corev1.PodTemplate) {
	for _, warning := range templateProblems(template) {
		if before != nil && before.Annotations[warning.annotation] == template.Annotations[warning.annotation] {
			continue
		}
		w.Log.Warn("template has an annotation that is not valid, is launched without it",
			"template", template.Name, "annotation", warning.annotation, "problem", warning.problem)
		select {
		case w.Queue <- warning:
		default:
			w.Log.Warn("too many templates with warnings at once, one has no Event", "template", template.Name)
		}
	}
}

// templateProblems is what of a template's annotations is not valid, and can be
// done without.
func templateProblems(template *corev1.PodTemplate) (problems []TemplateWarning) {
	for name, check := range IdlenessAnnotations() {
		if value, ok := template.Annotations[name]; ok {
			if err := check(value); err != nil {
				problems = append(problems, TemplateWarning{template, name, err})
			}
		}
	}
	return problems
}

// Run writes the Events, until ctx is done, and renews those of what is still wrong.
func (w *Warnings) Run(ctx context.Context) {
	renewal := time.NewTicker(WarningRenewal)
	defer renewal.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case warning := <-w.Queue:
			w.write(ctx, warning)
		case <-renewal.C:
			for _, template := range w.templates.PodTemplates() {
				for _, warning := range templateProblems(template) {
					w.write(ctx, warning)
				}
			}
		}
	}
}

func (w *Warnings) write(ctx context.Context, warning TemplateWarning) {
	if err := w.apply(ctx, warning); err != nil && ctx.Err() == nil {
		w.Log.ErrorContext(ctx, "the template's Event was not written, will be tried again",
			"template", warning.template.Name, "again in", WarningRenewal.String(), "error", err)
	}
}

func (w *Warnings) apply(ctx context.Context, warning TemplateWarning) error {
	ctx, cancel := context.WithTimeout(ctx, kube.WriteTimeout)
	defer cancel()
	event := warning.event(w.now())
	_, err := w.client.CoreV1().Events(warning.template.Namespace).Apply(ctx, event, metav1.ApplyOptions{FieldManager: instance.ManagerName, Force: true})
	if err != nil {
		return fmt.Errorf("write Event %s: %w", *event.Name, err)
	}
	return nil
}

// event has one name for one problem, whichever replica finds it. It has not the
// label of what this service keeps in its cache.
func (w TemplateWarning) event(now time.Time) *applycorev1.EventApplyConfiguration {
	template := w.template
	sum := sha256.Sum256([]byte(template.Name + "\x00" + w.annotation + "\x00" + template.Annotations[w.annotation]))
	name := template.Name[:min(len(template.Name), 200)] + ".warning-" + hex.EncodeToString(sum[:8])
	return applycorev1.Event(name, template.Namespace).
		WithInvolvedObject(applycorev1.ObjectReference().
			WithAPIVersion("v1").WithKind("PodTemplate").WithNamespace(template.Namespace).WithName(template.Name).WithUID(template.UID)).
		WithType(corev1.EventTypeWarning).
		WithReason("InvalidAnnotation").
		WithMessage(fmt.Sprintf("%s is not valid, instances are launched without it: %v", w.annotation, w.problem)).
		WithSource(applycorev1.EventSource().WithComponent(instance.ManagerName)).
		WithFirstTimestamp(metav1.NewTime(now)).
		WithLastTimestamp(metav1.NewTime(now)).
		WithCount(1)
}
