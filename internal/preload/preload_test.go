package preload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

var (
	errAway    = errors.New("connection refused")
	daemonSets = schema.GroupResource{Group: "apps", Resource: "daemonsets"}
)

// testPreloader is a Preloader in a world of its own. Templates come from the world,
// or from a registry, which may be away and which no watch covers.
type testPreloader struct {
	*kubetest.World
	t         testing.TB
	preloader *Preloader
	log       *kubetest.LogBuffer

	mu       sync.Mutex
	registry *corev1.PodTemplate // named x; nil if the registry has none
	away     error
	asked    int
}

func (p *testPreloader) Template(ctx context.Context, name string) (*corev1.PodTemplate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	if p.registry != nil || p.away != nil {
		return p.registry, p.away
	}
	return p.World.Template(ctx, name)
}

// source sets what the registry has, or that it is away. It returns how often it was
// asked so far.
func (p *testPreloader) source(template *corev1.PodTemplate, away error) (asked int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.registry, p.away = template, away
	return p.asked
}

// inBubble runs a test with fake time, by which the world and the work queue go.
func inBubble(t *testing.T, test func(t *testing.T, p *testPreloader), objects ...runtime.Object) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log, lines := kubetest.RecordLog()
		p := &testPreloader{World: kubetest.NewWorld(time.Now, podtemplate.ErrUnknown, objects...), t: t, log: lines}
		preloader, err := New(Deps{
			DaemonSets: p.Client.AppsV1().DaemonSets(kubetest.Namespace), Cache: p, Templates: p,
			Namespace: kubetest.Namespace, HelperImage: helperImage, Log: log, Now: time.Now,
		})
		if err != nil {
			t.Fatal(err)
		}
		p.preloader = preloader
		test(t, p)
	})
}

// lead runs a term until the test, or the function that it returns, ends it.
func (p *testPreloader) lead() (stop func()) {
	ctx, cancel := context.WithCancel(p.t.Context())
	var running sync.WaitGroup
	running.Go(func() { p.preloader.Run(ctx) })
	stop = func() {
		cancel()
		running.Wait()
	}
	p.t.Cleanup(stop)
	synctest.Wait()
	return stop
}

// put creates or replaces a template, and waits until the preloader is at rest.
func (p *testPreloader) put(changes ...func(*corev1.PodTemplate)) {
	p.t.Helper()
	p.Put(p.t, kubetest.Template("x", changes...))
	synctest.Wait()
}

func (p *testPreloader) preload() Template {
	p.t.Helper()
	answer, err := p.preloader.Preload(p.t.Context(), "x")
	if err != nil {
		p.t.Fatal(err)
	}
	synctest.Wait()
	return answer
}

func (p *testPreloader) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// wantSets checks which DaemonSets the server has.
func (p *testPreloader) wantSets(when string, want ...*appsv1.DaemonSet) {
	p.t.Helper()
	list, err := p.Client.AppsV1().DaemonSets(kubetest.Namespace).List(p.t.Context(), metav1.ListOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	if !slices.EqualFunc(list.Items, want, func(a appsv1.DaemonSet, b *appsv1.DaemonSet) bool { return a.Name == b.Name }) {
		p.t.Fatalf("%s: there are %d DaemonSets %v, want %d", when, len(list.Items), p.Writes(), len(want))
	}
}

func (p *testPreloader) wantErrors(want int) {
	p.t.Helper()
	if got := strings.Count(p.log.String(), "level=ERROR"); got != want {
		p.t.Errorf("%d errors are logged, want %d:\n%s", got, want, p.log)
	}
}

// writes returns what was asked of the API server.
func (p *testPreloader) writes() []string {
	var writes []string
	for _, action := range p.Writes() {
		write := action.GetVerb() + " " + kubetest.NameOf(action)
		if action, ok := action.(k8stesting.DeleteActionImpl); ok {
			write += fmt.Sprintf(" %s %s", *action.DeleteOptions.Preconditions.UID, *action.DeleteOptions.PropagationPolicy)
		}
		writes = append(writes, write)
	}
	return writes
}

// existing is a DaemonSet as the API server has it.
func existing(set *appsv1.DaemonSet, changes ...func(*appsv1.DaemonSet)) *appsv1.DaemonSet {
	set = set.DeepCopy()
	set.UID, set.ResourceVersion, set.Generation, set.CreationTimestamp = "uid-1", "7", 1, metav1.NewTime(kubetest.Noon)
	for _, change := range changes {
		change(set)
	}
	return set
}

func TestReconcile(t *testing.T) {
	one, two := kubetest.Template("x"), kubetest.Template("x", withImage("app:2"))
	setOne, setTwo := newSet(t, "x"), newSet(t, "x", withImage("app:2"))
	deleteOne := "delete " + setOne.Name + " uid-1 Background"
	deleting := func(s *appsv1.DaemonSet) { s.DeletionTimestamp = &s.CreationTimestamp }
	failCreate := func(p *testPreloader) { p.FailOn("create", "daemonsets", errAway) }
	failDelete := func(err error) func(p *testPreloader) {
		return func(p *testPreloader) { p.FailOn("delete", "daemonsets", err) }
	}

	for _, test := range []struct {
		name    string
		have    []runtime.Object
		prepare func(p *testPreloader)
		want    []string
		errors  int
	}{
		{"never preloaded", []runtime.Object{one}, nil, nil, 0},
		{"in step", []runtime.Object{one, existing(setOne)}, nil, nil, 0},
		{"template changed: the new one comes first", []runtime.Object{two, existing(setOne)}, nil, []string{"create " + setTwo.Name, deleteOne}, 0},
		{"template changed, no new one: the old one stays", []runtime.Object{two, existing(setOne)}, failCreate, []string{"create " + setTwo.Name}, 1},
		{"both there", []runtime.Object{two, existing(setOne), existing(setTwo)}, nil, []string{deleteOne}, 0},
		{"template gone", []runtime.Object{existing(setOne)}, nil, []string{deleteOne}, 0},
		{"already deleted", []runtime.Object{existing(setOne)}, failDelete(apierrors.NewNotFound(daemonSets, setOne.Name)), []string{deleteOne}, 0},
		{"replaced", []runtime.Object{existing(setOne)}, failDelete(apierrors.NewConflict(daemonSets, setOne.Name, nil)), []string{deleteOne}, 0},
		{"not deleted", []runtime.Object{existing(setOne)}, failDelete(errAway), []string{deleteOne}, 1},
		{"source of templates away", []runtime.Object{existing(setOne)}, func(p *testPreloader) { p.source(nil, errAway) }, nil, 1},
		{"template without an image: the old one stays", []runtime.Object{kubetest.Template("x", withImage("")), existing(setOne)}, nil, nil, 1},
		{"somebody deletes it: it is not made again", []runtime.Object{two, existing(setOne, deleting)}, nil, nil, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(_ *testing.T, p *testPreloader) {
				if test.prepare != nil {
					test.prepare(p)
				}
				p.lead()
				if got := p.writes(); !slices.Equal(got, test.want) {
					t.Errorf("writes are %q, want %q", got, test.want)
				}
				p.wantErrors(test.errors)
			}, test.have...)
		})
	}
}

// TestReadsOwnWrites looks at a preload whose writes the watch has not delivered.
func TestReadsOwnWrites(t *testing.T) {
	inBubble(t, func(t *testing.T, p *testPreloader) {
		p.source(kubetest.Template("x", func(t *corev1.PodTemplate) {
			t.Template.Spec.InitContainers = []corev1.Container{{Image: "setup:1"}}
		}), nil)
		p.PauseWatch()
		began := time.Now()
		answer := p.preload()
		if answer.Name != "x" || answer.ImageSource != "jupyter:1" || answer.Port != 8888 || !slices.Equal(answer.Images, []string{"setup:1", "jupyter:1"}) {
			t.Errorf("preload answers %+v", answer)
		}
		if got, known, err := p.preloader.Status(t.Context(), "x"); !known || err != nil || got.Status != Loading || time.Since(began) > 0 {
			t.Errorf("its status is %+v, known %t, error %v, after %s", got, known, err, time.Since(began))
		}
		p.preload() // repeated
		p.source(nil, nil)
		p.lead()
		p.preloader.controller.Enqueue("x")
		synctest.Wait()
		if creates, deletes := p.WritesOf("create", "daemonsets"), p.WritesOf("delete", "daemonsets"); len(creates) != 2 || len(deletes) != 1 {
			t.Errorf("creates %q and deletes %q, want that of each call and one delete", creates, deletes)
		}
	})
}

func TestStatusIsOfTheCurrentVersion(t *testing.T) {
	all := func(s *appsv1.DaemonSet) {
		s.Status = appsv1.DaemonSetStatus{ObservedGeneration: 1, DesiredNumberScheduled: 3, NumberReady: 3}
	}
	later := func(s *appsv1.DaemonSet) { s.CreationTimestamp.Time = s.CreationTimestamp.Add(time.Hour) }
	setOne, setTwo := newSet(t, "x"), newSet(t, "x", withImage("app:2"))
	for _, test := range []struct {
		name string
		have []runtime.Object
		want Progress
	}{
		{"old only", []runtime.Object{existing(setOne, all)}, Progress{Status: Loading, ToDo: 3, Reason: reasonTemplateChanged}},
		{"both", []runtime.Object{existing(setOne, all, later), existing(setTwo)}, Progress{Status: Loading}},
		{"new only", []runtime.Object{existing(setTwo, all)}, Progress{Status: Completed, Done: 3}},
		{"two old ones: the newest", []runtime.Object{
			existing(newSet(t, "x", withImage("app:0")), later), existing(setOne, all),
		}, Progress{Status: Loading, Reason: reasonTemplateChanged}},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, p *testPreloader) {
				p.source(kubetest.Template("x", withImage("app:2")), nil)
				got, known, err := p.preloader.Status(t.Context(), "x")
				got.Message, got.Started, test.want.Template = "", time.Time{}, "x"
				if err != nil || !known || got != test.want {
					t.Errorf("status is %+v, known %t, error %v; want %+v", got, known, err, test.want)
				}
				if calls := p.Client.Actions(); len(calls) != 0 {
					t.Errorf("a status costs the API server %v, want nothing", calls)
				}
			}, test.have...)
		})
	}
}

func TestStatusUnknown(t *testing.T) {
	template, set := kubetest.Template("x"), existing(newSet(t, "x"))
	for _, test := range []struct {
		name  string
		have  []runtime.Object
		away  error
		known bool
		err   error
	}{
		{"never preloaded", []runtime.Object{template}, nil, false, nil},
		{"no such template", nil, nil, false, podtemplate.ErrUnknown},
		{"no such template any more", []runtime.Object{set}, nil, false, podtemplate.ErrUnknown},
		{"source away, never preloaded", nil, errAway, false, errAway},
		{"source away, preloaded", []runtime.Object{set}, errAway, true, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, p *testPreloader) {
				p.source(nil, test.away)
				_, known, err := p.preloader.Status(t.Context(), "x")
				if known != test.known || !errors.Is(err, test.err) {
					t.Errorf("known %t, error %v; want %t, %v", known, err, test.known, test.err)
				}
			}, test.have...)
		})
	}
}

func TestPreloadErrors(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*corev1.PodTemplate)
		server error
		// theTemplates is whether the template, or the cluster, does not allow it.
		theTemplates bool
	}{
		{"a template without an image", withImage(""), nil, true},
		{"a template with a bad port", kubetest.WithTemplateAnnotation(instance.PortAnnotation, "many"), nil, true},
		{"no image volumes", withImage("app:1"), apierrors.NewInvalid(schema.GroupKind{}, "x", nil), true},
		{"no right", withImage("app:1"), apierrors.NewForbidden(daemonSets, "x", errors.New("no")), true},
		{"API server away", withImage("app:1"), errAway, false},
		{"no such template", nil, podtemplate.ErrUnknown, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, p *testPreloader) {
				if test.change != nil {
					p.put(test.change)
				}
				p.FailOn("create", "daemonsets", test.server)
				_, err := p.preloader.Preload(t.Context(), "x")
				var refused *podtemplate.Error
				if err == nil || errors.As(err, &refused) != test.theTemplates || test.theTemplates && refused.Use != "preloaded" {
					t.Errorf("error is %v, the template's: %t; want %t", err, refused != nil, test.theTemplates)
				}
				if test.server != nil && !errors.Is(err, test.server) {
					t.Errorf("error %v does not wrap %v", err, test.server)
				}
			})
		})
	}
}

// TestLife goes through the life of a preload, of a template in the cluster and of
// one in a registry.
func TestLife(t *testing.T) {
	one, two, three := newSet(t, "x"), newSet(t, "x", withImage("app:2")), newSet(t, "x", withImage("app:3"))
	inBubble(t, func(t *testing.T, p *testPreloader) {
		p.put()
		p.lead()
		p.preload()
		p.wantSets("preloaded", one)
		p.put(withImage("app:2"))
		p.wantSets("the template has changed", two)

		p.source(kubetest.Template("x", withImage("app:3")), nil)
		p.after(resync - time.Second)
		p.wantSets("no event has told of the change", two)
		p.after(time.Second)
		p.wantSets("resynced", three)
		p.source(kubetest.Template("x"), nil)
		p.after(resync)
		p.wantSets("resynced again", one)

		p.source(nil, nil)
		if err := p.Client.CoreV1().PodTemplates(kubetest.Namespace).Delete(t.Context(), "x", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		p.wantSets("the template is gone")
		asked := p.source(nil, nil)
		p.after(time.Hour)
		if again := p.source(nil, nil) - asked; again != 0 {
			t.Errorf("without a preload, the source of templates is asked %d times", again)
		}
		p.wantErrors(0)
	})
}

// TestRetries: they slow down, and start over after a success.
func TestRetries(t *testing.T) {
	inBubble(t, func(_ *testing.T, p *testPreloader) {
		p.source(nil, errAway)
		p.lead()
		errors := 0
		for range 2 {
			for _, wait := range []time.Duration{0, 1, 2, 4, 8, 16, 32, 60, 60} {
				p.after(wait * time.Second)
				errors++
				p.wantErrors(errors)
			}
			p.source(nil, nil)
			p.after(longestRetry)
			p.wantErrors(errors)
			p.source(nil, errAway)
			p.after(resync - time.Second)
			p.wantErrors(errors)
			p.after(time.Second) // begins the next round
		}
	}, kubetest.Template("x"), existing(newSet(t, "x")))
}

// TestTerms: nothing is done between two terms, and the second starts with all that
// is to do.
func TestTerms(t *testing.T) {
	one, two, three := newSet(t, "x"), newSet(t, "x", withImage("app:2")), newSet(t, "x", withImage("app:3"))
	inBubble(t, func(_ *testing.T, p *testPreloader) {
		p.put(withImage("app:2"))
		p.wantSets("not leading yet", one)
		stop := p.lead()
		p.wantSets("leading", two)
		stop()
		p.put(withImage("app:3"))
		p.after(time.Hour)
		p.wantSets("no leader", two)
		p.lead()
		p.wantSets("second term", three)
	}, existing(one))
}

// endingSets ends the term at its first write, which takes a while.
type endingSets struct {
	DaemonSetWriter
	end            context.CancelFunc
	begun, running atomic.Int64
}

func (s *endingSets) Delete(context.Context, string, metav1.DeleteOptions) error {
	s.end()
	s.begun.Add(1)
	s.running.Add(1)
	defer s.running.Add(-1)
	time.Sleep(time.Second)
	return errAway
}

// TestTermEndsMidway: Run returns when the writes that had begun are done, and no
// other template is reconciled.
func TestTermEndsMidway(t *testing.T) {
	var sets []runtime.Object
	for i := range 10 {
		sets = append(sets, existing(newSet(t, fmt.Sprint("x", i))))
	}
	inBubble(t, func(t *testing.T, p *testPreloader) {
		ctx, cancel := context.WithCancel(t.Context())
		writer := &endingSets{end: cancel}
		p.preloader.deps.DaemonSets = writer
		p.preloader.Run(ctx) // what it started must end: a bubble waits for that
		if begun, running := writer.begun.Load(), writer.running.Load(); begun == 0 || begun > workers || running != 0 {
			t.Errorf("%d writes have begun and %d are running, want at most %d and none", begun, running, workers)
		}
		p.wantErrors(0)
	}, sets...)
}
