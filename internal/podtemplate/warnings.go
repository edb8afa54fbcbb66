package podtemplate

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
)

const (
	// reason is the reason of all Events of Warnings.
	reason = "InvalidAnnotation"
	// renewalPeriod is the time between two writes of an Event whose annotation is
	// still invalid. By default, the API server drops an Event an hour after its last
	// write.
	renewalPeriod = 30 * time.Minute
	// eventsPerSecond is how many Events a template gets in the long run, after a burst
	// of 25. client-go's default, one in 5 minutes, is too few to renew an Event for
	// each annotation of a template.
	eventsPerSecond = 1. / 60
)

// Templates is what Warnings need of the read model.
type Templates interface {
	// PodTemplates returns all PodTemplates.
	PodTemplates() []*corev1.PodTemplate
	// OnTemplate calls changed for every version of a PodTemplate, and with the version
	// before it or nil. changed must not block.
	OnTemplate(changed func(before, template *corev1.PodTemplate)) error
}

// Deps are what Warnings need.
type Deps struct {
	// Events writes Events in the namespace of the templates.
	Events kube.EventWriter
	// Templates is the read model.
	Templates Templates
	// Log gets a line for each Event, but not for its renewals.
	Log *slog.Logger
}

// Warnings tell an operator of invalid annotations on templates: in the log, and by
// Events on the template, which kubectl describe shows.
type Warnings struct {
	events    kube.EventWriter
	templates Templates
	log       *slog.Logger

	mu       sync.Mutex
	recorder record.EventRecorder // nil while Run does not run
}

// NewWarnings returns Warnings, which warn of nothing until Run.
func NewWarnings(d Deps) (*Warnings, error) {
	w := &Warnings{events: d.Events, templates: d.Templates, log: d.Log}
	return w, d.Templates.OnTemplate(w.changed)
}

// Run warns of all invalid annotations, then of those that change, until ctx is
// done. It is for the leader: two replicas would write every Event twice.
func (w *Warnings) Run(ctx context.Context) {
	broadcaster := record.NewBroadcaster(record.WithCorrelatorOptions(record.CorrelatorOptions{
		QPS: eventsPerSecond,
		// One template can have a problem with every annotation. The recorder would take
		// more than ten Events on an object for repetitions of one.
		MaxEvents: 2 * len(annotationTable()),
	}))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(kube.EventSink(ctx, w.events))
	w.begin(broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: instance.ManagerName}))
	defer w.end()
	renewal := time.NewTicker(renewalPeriod)
	defer renewal.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-renewal.C:
			w.renew()
		}
	}
}

func (w *Warnings) begin(recorder record.EventRecorder) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.recorder = recorder
	for _, template := range w.templates.PodTemplates() {
		w.warn(nil, template)
	}
}

func (w *Warnings) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.recorder = nil
}

// changed warns of what has become invalid. It does not block, because the recorder
// drops Events when its queue is full.
func (w *Warnings) changed(before, template *corev1.PodTemplate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.recorder != nil {
		w.warn(before, template)
	}
}

// warn warns of the invalid annotations of a template, except those that the version
// before it had as well.
func (w *Warnings) warn(before, template *corev1.PodTemplate) {
	for _, problem := range Problems(template) {
		if before != nil {
			value, ok := before.Annotations[problem.Annotation]
			if ok && value == template.Annotations[problem.Annotation] {
				continue
			}
		}
		w.log.Warn("a template has an invalid annotation", "template", template.Name,
			"annotation", problem.Annotation, "problem", problem.Err, "effect", problem.effect())
		w.record(template, problem)
	}
}

// renew writes the Events of what is still invalid.
func (w *Warnings) renew() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, template := range w.templates.PodTemplates() {
		for _, problem := range Problems(template) {
			w.record(template, problem)
		}
	}
}

func (w *Warnings) record(template *corev1.PodTemplate, problem Problem) {
	w.recorder.Event(template, corev1.EventTypeWarning, reason, fmt.Sprintf("%v; %s", problem.Err, problem.effect()))
}

func (p Problem) effect() string {
	if p.PreventsLaunch {
		return "the template is not launched"
	}
	return "the template is launched without it"
}
