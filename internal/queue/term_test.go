package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podstore"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// cluster is an API server, and a read model that knows of it what Wrote and add have told.
type cluster struct {
	Pods
	server *kubetest.Server

	mu       sync.Mutex
	seen     map[string]*corev1.Pod // by id
	template *corev1.PodTemplate    // nil if it is gone
	answer   func(pod string) error // to a write, after it was made; nil if it is answered as it is
	refuse   func(pod string) error // the same, before it is made
}

func (c *cluster) Patch(ctx context.Context, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions, sub ...string) (*corev1.Pod, error) {
	if c.refuse != nil {
		if err := c.refuse(name); err != nil {
			return nil, err
		}
	}
	pod, err := c.Pods.Patch(ctx, name, pt, data, opts, sub...)
	if err == nil && c.answer != nil {
		err = c.answer(name)
	}
	return pod, err
}

func (c *cluster) Template(context.Context, string) (*corev1.PodTemplate, error) {
	if c.template == nil {
		return nil, podtemplate.ErrUnknown
	}
	return c.template, nil
}

func (c *cluster) Pod(id string) (*corev1.Pod, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pod, known := c.seen[id]
	return pod, known
}

func (c *cluster) Queued(id string) bool {
	pod, known := c.Pod(id)
	return known && instance.IsQueued(pod)
}

func (c *cluster) EachRecord() (all []*podstore.Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, pod := range c.seen {
		all = append(all, podstore.NewRecord(pod, lifetime.Rules{CullTimeout: time.Hour, StartTimeout: kubetest.StartTimeout}, kubetest.Noon))
	}
	return all
}

func (c *cluster) OnInstance(func(string), func(*corev1.Pod)) error { return nil }

func (c *cluster) Wrote(pod *corev1.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[pod.Labels[instance.IDLabel]] = pod
}

// admitted returns which of the pods have a place, by the API server.
func (c *cluster) admitted(t *testing.T) (numbers []int) {
	t.Helper()
	for n := range 10 {
		pod, err := c.server.StoredPod(instance.PodName(kubetest.ID(n)))
		if err == nil && !instance.IsQueued(pod) {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

// waitingPod is one that came some seconds after noon.
func waitingPod(n int, changes ...func(*corev1.Pod)) *corev1.Pod {
	came := kubetest.Noon.Add(time.Duration(n) * time.Second)
	pod := kubetest.Pod(kubetest.ID(n), came, append([]func(*corev1.Pod){kubetest.Unscheduled, kubetest.LaunchedAt(came), kubetest.LastUsed(came)}, changes...)...)
	for key, value := range instance.QueueAnnotations(1) {
		pod.Annotations[key] = value
	}
	instance.Enqueue(pod)
	return pod
}

// newTerm returns a term of a leader, of a template with one place.
func newTerm(t *testing.T, pods ...*corev1.Pod) (*term, *cluster) {
	t.Helper()
	c := &cluster{
		server: kubetest.NewServer(time.Now), seen: map[string]*corev1.Pod{},
		template: kubetest.Template(kubetest.TemplateName, kubetest.WithTemplateAnnotation(instance.MaxInstancesAnnotation, "1")),
	}
	c.Pods = c.server.Client.CoreV1().Pods(kubetest.Namespace)
	for _, pod := range pods {
		c.add(t, pod)
	}
	q, err := New(Deps{
		Pods: c, Cache: c, Sure: func() bool { return true }, CutOff: func() bool { return false }, MaxAge: func(*corev1.Pod) time.Duration { return 0 },
		AskedWithin: time.Minute, Touch: func(string, instance.Source) {}, Admitted: func(string, time.Duration) {}, Log: kubetest.NoLog(),
		Now: func() time.Time { return kubetest.Noon.Add(20 * time.Second) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return &term{q, map[string]try{}}, c
}

func (c *cluster) add(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	c.Wrote(c.server.PutPod(t, pod))
}

func wantAdmitted(t *testing.T, c *cluster, want ...int) {
	t.Helper()
	if got := c.admitted(t); !slices.Equal(got, want) {
		t.Errorf("%v have a place, want %v", got, want)
	}
}

// If the answer to an admission is lost, the place stays taken until the watch tells what became of
// it, even if an older launch has come since.
func TestLostAnswer(t *testing.T) {
	term, c := newTerm(t, waitingPod(5))
	c.answer = func(string) error { return errors.New("the connection was reset") }
	if !term.pass(t.Context()) {
		t.Error("nobody waits after a write that was not answered")
	}
	wantAdmitted(t, c, 5)
	pod, err := c.server.StoredPod(instance.PodName(kubetest.ID(5)))
	if err != nil {
		t.Fatal(err)
	}
	c.answer = nil
	c.add(t, waitingPod(1)) // the watch is late with the other
	term.pass(t.Context())
	term.pass(t.Context())
	wantAdmitted(t, c, 5)
	c.Wrote(pod)
	term.pass(t.Context())
	wantAdmitted(t, c, 5)
	if len(term.tries) != 0 {
		t.Errorf("it remembers %v", term.tries)
	}
}

// While its template is gone, as during kubectl replace --force, its limit stays.
func TestTemplateIsGone(t *testing.T) {
	term, c := newTerm(t, waitingPod(1), waitingPod(2), waitingPod(3))
	c.template = nil
	term.pass(t.Context())
	term.pass(t.Context())
	wantAdmitted(t, c, 1)
}

// A new leader writes to the waiting pods. A pod that another replica has changed meanwhile is read
// again, and not admitted by that. A pod that cannot be written to keeps no other waiting.
func TestTakeOverAmongOthers(t *testing.T) {
	running := kubetest.Pod(kubetest.ID(9), kubetest.Noon)
	term, c := newTerm(t, running, waitingPod(1), waitingPod(2))
	c.server.ChangePod(t, instance.PodName(kubetest.ID(1)), func(pod *corev1.Pod) { pod.Labels["a"] = "b" }) // the watch is late
	refused := instance.PodName(kubetest.ID(2))
	c.refuse = func(name string) error {
		if name == refused {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, name, errors.New("denied the request"))
		}
		return nil
	}
	if err := term.begin(t.Context()); err != nil {
		t.Errorf("it cannot take over: %v", err)
	}
	if pod, _ := c.Pod(kubetest.ID(1)); pod.Labels["a"] != "b" {
		t.Error("the pod that has changed was not read again")
	}
	term.pass(t.Context())
	wantAdmitted(t, c, 9)
}

// A leader that is not sure gives nothing.
func TestNotSure(t *testing.T) {
	term, c := newTerm(t, waitingPod(1))
	term.deps.Sure = func() bool { return false }
	if !term.pass(t.Context()) {
		t.Error("it does not look again")
	}
	wantAdmitted(t, c)
}

// One whose admission the API server refuses, or that nobody asks about, keeps nobody else waiting.
func TestOthersComeFirst(t *testing.T) {
	refuse := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "x", errors.New("denied the request"))
	for name, change := range map[string]func(*corev1.Pod, *cluster){
		"refused": func(pod *corev1.Pod, c *cluster) {
			c.refuse = func(name string) error {
				if name == pod.Name {
					return refuse
				}
				return nil
			}
		},
		"not asked about": func(pod *corev1.Pod, _ *cluster) {
			kubetest.LastUsed(kubetest.Noon.Add(-2 * time.Minute))(pod)
		},
	} {
		first := waitingPod(1)
		term, c := newTerm(t)
		change(first, c)
		c.add(t, first)
		c.add(t, waitingPod(2))
		for range 3 {
			term.pass(t.Context())
		}
		if got := c.admitted(t); !slices.Equal(got, []int{2}) {
			t.Errorf("%s: %v have a place", name, got)
		}
	}
}

// An instance that did not start in time may yet become ready, so its place is nobody else's.
func TestLateStartHoldsItsPlace(t *testing.T) {
	late := kubetest.Pod(kubetest.ID(1), kubetest.Noon.Add(-time.Hour), kubetest.Unscheduled)
	broken := kubetest.Pod(kubetest.ID(1), kubetest.Noon.Add(-time.Hour), kubetest.Broken)
	for _, row := range []struct {
		pod  *corev1.Pod
		want []int
	}{{late, []int{1}}, {broken, []int{1, 2}}} {
		term, c := newTerm(t, row.pod, waitingPod(2))
		term.pass(t.Context())
		wantAdmitted(t, c, row.want...)
	}
}

// A late write of the leader before fails once another has taken over. The new leader knows the
// waiting instances as the API server has them.
func TestTakeOver(t *testing.T) {
	term, c := newTerm(t, waitingPod(1), waitingPod(2))
	before, _ := c.Pod(kubetest.ID(1))
	c.seen = map[string]*corev1.Pod{} // the watch is late
	if err := term.readPods(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := term.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	patch := fmt.Sprintf(`{"metadata":{"resourceVersion":%q,"labels":{"a":"b"}}}`, before.ResourceVersion)
	if _, err := c.Patch(t.Context(), before.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("a write of before is answered with %v", err)
	}
	term.pass(t.Context())
	wantAdmitted(t, c, 1)
}

// Those whom nobody asks about any more are not before those who wait.
func TestAheadAreThoseWhoWait(t *testing.T) {
	holder := kubetest.Pod(kubetest.ID(9), kubetest.Noon)
	left := waitingPod(1, kubetest.LastUsed(kubetest.Noon.Add(-2*time.Minute)))
	term, _ := newTerm(t, holder, left, waitingPod(2), waitingPod(3))
	for n, want := range map[int]int{2: 0, 3: 1} {
		inst, _ := term.Answer(instance.Instance{ID: kubetest.ID(n), Reason: instance.ReasonQueued}, true)
		if inst.Message != instance.QueuedMessage(want) {
			t.Errorf("%d: %s", n, inst.Message)
		}
	}
}
