package podtemplate_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// operator has templates and Events: it is the read model and the API server of
// Warnings.
type operator struct {
	warnings *podtemplate.Warnings
	log      *kubetest.LogBuffer
	changed  func(before, template *corev1.PodTemplate)

	mu        sync.Mutex
	templates map[string]*corev1.PodTemplate
	events    map[string]corev1.Event
	created   int
	fail      func(context.Context) error // nil while the API server works
}

func newOperator(t *testing.T, templates ...*corev1.PodTemplate) *operator {
	t.Helper()
	log, buffer := kubetest.RecordLog()
	o := &operator{log: buffer, templates: map[string]*corev1.PodTemplate{}, events: map[string]corev1.Event{}}
	var err error
	if o.warnings, err = podtemplate.NewWarnings(podtemplate.Deps{Events: o, Templates: o, Log: log}); err != nil {
		t.Fatal(err)
	}
	o.put(templates...)
	return o
}

func (o *operator) PodTemplates() []*corev1.PodTemplate {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Collect(maps.Values(o.templates))
}

func (o *operator) OnTemplate(changed func(before, template *corev1.PodTemplate)) error {
	o.changed = changed
	return nil
}

func (o *operator) put(templates ...*corev1.PodTemplate) {
	for _, template := range templates {
		o.mu.Lock()
		before := o.templates[template.Name]
		o.templates[template.Name] = template
		o.mu.Unlock()
		o.changed(before, template)
	}
}

// Create gives names of its own. The recorder makes them of the time, which stands
// still in a bubble.
func (o *operator) Create(ctx context.Context, event *corev1.Event, _ metav1.CreateOptions) (*corev1.Event, error) {
	o.mu.Lock()
	fail := o.fail
	o.mu.Unlock()
	if fail != nil {
		return nil, fail(ctx)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.created++
	event = event.DeepCopy()
	event.Name = fmt.Sprint("event-", o.created)
	o.events[event.Name] = *event
	return event, nil
}

func (o *operator) Patch(_ context.Context, name string, _ types.PatchType, data []byte, _ metav1.PatchOptions, _ ...string) (*corev1.Event, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	event, ok := o.events[name]
	if !ok {
		return nil, apierrors.NewNotFound(corev1.Resource("events"), name)
	}
	err := json.Unmarshal(data, &event)
	o.events[name] = event
	return &event, err
}

// change changes what the API server does.
func (o *operator) change(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

// lead begins a term, and returns what ends it.
func (o *operator) lead(t *testing.T) (end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var term sync.WaitGroup
	term.Go(func() { o.warnings.Run(ctx) })
	synctest.Wait()
	return func() {
		cancel()
		term.Wait()
	}
}

// wantEvents checks which Events there are, by template and annotation, and how many
// lines the log has.
func (o *operator) wantEvents(t *testing.T, logged int, want ...string) {
	t.Helper()
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	var got []string
	for _, event := range o.events {
		for _, row := range annotationRows {
			if strings.Contains(event.Message, row.key+":") {
				got = append(got, event.InvolvedObject.Name+" "+row.key)
			}
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("there are Events of\n%q, want\n%q", got, want)
	}
	if got := strings.Count(o.log.String(), "level=WARN"); got != logged {
		t.Errorf("got %d warnings, want %d:\n%s", got, logged, o.log)
	}
}

// ofAll are the Events of a template that is allInvalid.
func ofAll(name string) []string {
	var all []string
	for _, row := range annotationRows {
		all = append(all, name+" "+row.key)
	}
	return all
}

// Each annotation has its Event, where an operator looks.
func TestWarningsAreEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOperator(t, allInvalid("jupyter"), allInvalid("other"), kubetest.Template("valid"))
		defer o.lead(t)()
		o.wantEvents(t, 2*len(annotationRows), append(ofAll("jupyter"), ofAll("other")...)...)
		for _, event := range o.events {
			about := event.InvolvedObject
			if about.Kind != "PodTemplate" || about.APIVersion != "v1" || about.Namespace != kubetest.Namespace || event.Namespace != kubetest.Namespace ||
				event.Type != corev1.EventTypeWarning || event.Reason != "InvalidAnnotation" || len(event.Labels) > 0 {
				t.Errorf("got %+v", event)
			}
			for _, row := range annotationRows {
				if strings.Contains(event.Message, row.key+":") && strings.Contains(event.Message, "not launched") != row.preventsLaunch {
					t.Errorf("the message is %q, want it to say whether the template is launched", event.Message)
				}
			}
		}
	})
}

func TestWarningsOfChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		invalid := func(name, idlePaths string, changes ...func(*corev1.PodTemplate)) *corev1.PodTemplate {
			return kubetest.Template(name, append(changes, kubetest.WithTemplateAnnotation(instance.IdlePathsAnnotation, idlePaths))...)
		}
		jupyter, other, port := "jupyter "+instance.IdlePathsAnnotation, "other "+instance.IdlePathsAnnotation, "jupyter "+instance.PortAnnotation
		o := newOperator(t, invalid("jupyter", "("))
		o.wantEvents(t, 0) // another replica leads
		end := o.lead(t)
		o.wantEvents(t, 1, jupyter)
		o.put(invalid("jupyter", "(", kubetest.WithTemplateAnnotation("other.org/note", "new")))
		o.wantEvents(t, 1, jupyter)
		o.put(invalid("jupyter", "["))
		o.put(invalid("jupyter", "[", kubetest.WithTemplateAnnotation(instance.PortAnnotation, "")), invalid("other", "("))
		o.wantEvents(t, 4, jupyter, jupyter, port, other)
		end()
		o.put(invalid("third", "("), kubetest.Template("jupyter"), kubetest.Template("other"))
		o.wantEvents(t, 4, jupyter, jupyter, port, other)
		defer o.lead(t)() // again
		o.wantEvents(t, 5, jupyter, jupyter, port, other, "third "+instance.IdlePathsAnnotation)
	})
}

// The API server drops an Event an hour after its last write, and is away at first.
func TestWarningsAreRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOperator(t, allInvalid("jupyter"), allInvalid("other"))
		o.fail = func(context.Context) error { return errors.New("the API server is away") }
		defer o.lead(t)()
		o.wantEvents(t, 2*len(annotationRows))
		o.change(func() { o.fail = nil })
		want := append(ofAll("jupyter"), ofAll("other")...)
		for n := range 24 {
			time.Sleep(115 * time.Minute)
			o.change(func() {
				maps.DeleteFunc(o.events, func(_ string, event corev1.Event) bool { return time.Since(event.LastTimestamp.Time) > time.Hour })
			})
			o.wantEvents(t, 2*len(annotationRows), want...)
			if n%2 == 0 { // somebody deletes them
				o.change(func() { clear(o.events) })
			}
			o.put(kubetest.Template("other")) // corrected
			want = ofAll("jupyter")
		}
	})
}

// An API server that hangs does not hold up the read model, and the end of a term
// ends a write. The bubble fails if a goroutine is left.
func TestWarningsNeverBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOperator(t)
		var begun, ended atomic.Int32
		o.fail = func(ctx context.Context) error {
			begun.Add(1)
			<-ctx.Done()
			ended.Add(1)
			return ctx.Err()
		}
		end, start := o.lead(t), time.Now()
		for n := range 3000 {
			o.put(kubetest.Template(fmt.Sprint("t", n), kubetest.WithTemplateAnnotation(instance.PortAnnotation, "x")))
		}
		end()
		o.wantEvents(t, 3000)
		if took := time.Since(start); took != 0 || begun.Load() == 0 || ended.Load() != begun.Load() {
			t.Errorf("after %s, %d of %d writes have ended; want all at once, and some", took, ended.Load(), begun.Load())
		}
	})
}
