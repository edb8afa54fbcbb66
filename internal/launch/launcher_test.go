package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// replica is a Launcher in a world, and the fakes around it. Its random ids are those
// of instances 1, 2, 3 and so on.
type replica struct {
	*Launcher
	*fakeMetrics
	*fakeRemover
	world *kubetest.World
	log   *kubetest.LogBuffer
}

func newReplica(t testing.TB, world *kubetest.World, changes ...func(*Deps)) *replica {
	t.Helper()
	log, lines := kubetest.RecordLog()
	r := &replica{fakeMetrics: &fakeMetrics{}, fakeRemover: &fakeRemover{}, world: world, log: lines}
	deps := Deps{
		Pods: world.Client.CoreV1().Pods(kubetest.Namespace), Cache: world, Templates: world, Remover: r.fakeRemover,
		RepeatableID: repeatableID, StartTimeout: kubetest.StartTimeout,
		MaxAge:  func(*corev1.Pod) time.Duration { return 0 },
		Metrics: r.fakeMetrics, Log: log, Now: world.Now, Random: &countingRandom{},
	}
	deps.Admission = admission.New(admission.Deps{Instances: world, Now: world.Now})
	for _, change := range changes {
		change(&deps)
	}
	var err error
	if r.Launcher, err = New(deps); err != nil {
		t.Fatal(err)
	}
	return r
}

func newWorld(now func() time.Time, objects ...runtime.Object) *kubetest.World {
	return kubetest.NewWorld(now, podtemplate.ErrUnknown, objects...)
}

// noonReplica is a replica in a world of its own, at noon.
func noonReplica(t testing.TB, objects ...runtime.Object) *replica {
	t.Helper()
	return newReplica(t, newWorld(kubetest.ClockAt(kubetest.Noon), objects...))
}

// launch launches with an idempotency key, or without one for "", and fails the test
// if that fails.
func (r *replica) launch(t testing.TB, key string) string {
	t.Helper()
	id, err := r.Launch(t.Context(), Request{Template: kubetest.TemplateName, IdempotencyKey: key})
	if err != nil {
		t.Error(err)
	}
	return id
}

// countingRandom is a source of the bytes of the ids that kubetest.ID makes.
type countingRandom struct {
	mu sync.Mutex
	n  byte
}

func (r *countingRandom) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	return copy(p, append(bytes.Repeat([]byte{0}, 15), r.n)), nil
}

// fakeMetrics keeps what was counted, in order.
type fakeMetrics struct {
	mu      sync.Mutex
	counted []string
	phases  []string // of cold launches
}

func (m *fakeMetrics) count(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counted = append(m.counted, what)
}

func (m *fakeMetrics) Launched(template, result string) {
	m.count("launched " + listed(result, Results()) + of(template))
}

func (m *fakeMetrics) Claimed(template, result string) {
	m.count("claimed " + listed(result, ClaimResults()) + of(template))
}

func (m *fakeMetrics) ClaimTook(time.Duration) {}

func (m *fakeMetrics) LaunchTook(template string, warm bool, d time.Duration) {
	m.count(fmt.Sprintf("took %s, warm %v", d, warm) + of(template))
}

func (m *fakeMetrics) LaunchPhaseTook(_, phase string, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.phases = append(m.phases, phase+" "+d.String())
}

func (m *fakeMetrics) LaunchFailed(template, reason string) {
	m.count("failed " + reason + of(template))
}

func (m *fakeMetrics) Ended(template, reason string, lived time.Duration) {
	m.count(fmt.Sprintf("ended %s after %s", reason, lived) + of(template))
}

// of names a template that is not the usual one.
func of(template string) string {
	if template == kubetest.TemplateName {
		return ""
	}
	return " of " + template
}

// listed is a result that the metric knows beforehand, or says that it does not.
func listed(result string, results []string) string {
	if !slices.Contains(results, result) {
		return result + ", which is not listed"
	}
	return result
}

func (m *fakeMetrics) wantCounted(t testing.TB, want ...string) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Equal(m.counted, want) {
		t.Errorf("counted are %q, want %q", m.counted, want)
	}
}

// fakeRemover notes the names of the pods, and fails with err. The watch does not tell of
// what it does.
type fakeRemover struct {
	err     error
	removed []string
}

func (r *fakeRemover) Remove(_ context.Context, pod *corev1.Pod, end instance.End) error {
	if (end != instance.End{Reason: instance.EndStopped, Message: StoppedMessage}) {
		return errors.New("removed as something else than stopped")
	}
	r.removed = append(r.removed, pod.Name)
	return r.err
}

// A launch is one write, and its instance is known at once, however late the watch is.
func TestLaunchIsOneWrite(t *testing.T) {
	r := noonReplica(t, kubetest.Template(kubetest.TemplateName))
	r.world.PauseWatch()
	id, err := r.Launch(t.Context(), Request{Template: kubetest.TemplateName, CullTimeout: 90 * time.Second})
	if err != nil || id != kubetest.ID(1) {
		t.Fatalf("got id %q and error %v", id, err)
	}
	if inst, known := r.world.Instance(id); !known || inst.Status != instance.StatusPending || inst.Template != kubetest.TemplateName {
		t.Errorf("known is %+v, %t", inst, known)
	}
	writes := r.world.Writes()
	if len(writes) != 1 || !writes[0].Matches("create", "pods") {
		t.Fatalf("the writes are %v, want the creation of one pod", writes)
	}
	if got := writes[0].(k8stesting.CreateActionImpl).CreateOptions.FieldManager; got != "binder-deploy-kubernetes" {
		t.Errorf("the field manager is %q", got)
	}
	wantLaunchAnnotations(t, r.world, id)
	r.wantCounted(t, "launched ok")
}

// wantLaunchAnnotations checks that a pod has become somebody's at noon, with a cull
// timeout of 90 seconds.
func wantLaunchAnnotations(t testing.TB, world *kubetest.World, id string) {
	t.Helper()
	pod, err := world.StoredPod(instance.PodName(id))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		instance.LaunchedAnnotation: instance.FormatTime(kubetest.Noon), instance.LastActivityAnnotation: instance.FormatTime(kubetest.Noon),
		instance.ActivitySourceAnnotation: "launch", instance.CullTimeoutAnnotation: "1m30s",
	} {
		if got := pod.Annotations[key]; got != want {
			t.Errorf("annotation %s is %q, want %q", key, got, want)
		}
	}
}

// forbidden is how the API server refuses a pod because of a quota or a policy.
func forbidden(why string) error {
	return apierrors.NewForbidden(kubetest.PodResource.GroupResource(), "binder-x", errors.New(why))
}

// errLimit stands for an *admission.Refusal.
var errLimit = errors.New("a limit")

// kindOf returns errLimit for a refusal, and any other error as it is.
func kindOf(err error) error {
	if refusal := (*admission.Refusal)(nil); errors.As(err, &refusal) {
		return errLimit
	}
	return err
}

func TestLaunchFails(t *testing.T) {
	template := func(changes ...func(*corev1.PodTemplate)) *corev1.PodTemplate {
		return kubetest.Template(kubetest.TemplateName, changes...)
	}
	with := kubetest.WithTemplateAnnotation
	unavailable := errors.New("the API server is unavailable")
	for _, test := range []struct {
		name     string
		template *corev1.PodTemplate
		answer   error // of the API server; nil if it must not be asked
		is       error // what the error wraps; nil for a *podtemplate.Error
		counted  string
	}{
		{"unknown template", kubetest.Template("other"), nil, podtemplate.ErrUnknown, "unknown_template"},
		{"invalid port", template(with(instance.PortAnnotation, "http")), nil, nil, "bad_template"},
		{"invalid limit", template(with(instance.MaxInstancesAnnotation, "many")), nil, nil, "bad_template"},
		{"limit reached", template(with(instance.MaxInstancesAnnotation, "1")), nil, errLimit, "template_max_instances"},
		{"limit reached, with warm pods", template(with(instance.MaxInstancesAnnotation, "1"), with(instance.PoolSizeAnnotation, "1")), nil, errLimit, "template_max_instances"},
		{"quota", template(), forbidden("exceeded quota: instances, requested: pods=1, used: pods=20, limited: pods=20"), ErrCapacity, "no_capacity"},
		{"quota not counted yet", template(), forbidden("status unknown for quota: instances, resources: pods"), ErrCapacity, "no_capacity"},
		{"pod security", template(), forbidden(`violates PodSecurity "baseline:latest": hostNetwork`), nil, "bad_template"},
		{"invalid pod", template(), apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "binder-x", nil), nil, "bad_template"},
		{"bad request", template(), apierrors.NewBadRequest("no such field"), nil, "bad_template"},
		{"unavailable", template(), unavailable, unavailable, "error"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := noonReplica(t, test.template, kubetest.Pod(kubetest.ID(99), kubetest.Noon))
			r.world.PutPod(t, warmPod(test.template, 98))
			if test.answer != nil {
				r.world.FailOn("create", "pods", test.answer)
			}
			id, err := r.Launch(t.Context(), Request{Template: kubetest.TemplateName})
			var bad *podtemplate.Error
			if isBad := errors.As(err, &bad); id != "" || isBad != (test.is == nil) || test.is != nil && !errors.Is(kindOf(err), test.is) {
				t.Errorf("got id %q and error %v", id, err)
			}
			if asked := len(r.world.Writes()) > 0; asked != (test.answer != nil) {
				t.Errorf("the writes are %v", r.world.Writes())
			}
			r.wantCounted(t, "launched "+test.counted)
		})
	}
}

func TestLaunchNeedsRandomness(t *testing.T) {
	for name, random := range map[string]io.Reader{
		"fails": iotest.ErrReader(errors.New("no entropy")), "ends early": strings.NewReader("15 bytes only.."),
	} {
		world := newWorld(kubetest.ClockAt(kubetest.Noon), kubetest.Template(kubetest.TemplateName))
		r := newReplica(t, world, func(deps *Deps) { deps.Random = random })
		if id, err := r.Launch(t.Context(), Request{Template: kubetest.TemplateName}); id != "" || err == nil {
			t.Errorf("%s: got id %q and error %v", name, id, err)
		}
		if writes := world.Writes(); len(writes) > 0 {
			t.Errorf("%s: the writes are %v", name, writes)
		}
		r.wantCounted(t, "launched error")
	}
}

// Only instances that are, or may become, of use take a place, and only those of the
// same template. What this replica launched counts at once.
func TestLimitCountsLivingInstances(t *testing.T) {
	r := noonReplica(t,
		kubetest.Template(kubetest.TemplateName, kubetest.WithTemplateAnnotation(instance.MaxInstancesAnnotation, "3")),
		kubetest.Pod(kubetest.ID(11), kubetest.Noon, kubetest.Unscheduled),
		kubetest.Pod(kubetest.ID(12), kubetest.Noon),
		kubetest.Pod(kubetest.ID(13), kubetest.Noon, kubetest.Broken),
		kubetest.Pod(kubetest.ID(14), kubetest.Noon, kubetest.Completed),
		kubetest.Pod(kubetest.ID(15), kubetest.Noon, kubetest.Deleting),
		kubetest.Pod(kubetest.ID(16), kubetest.Noon, kubetest.OfTemplate("other")),
		kubetest.Pod(kubetest.ID(17), kubetest.Noon, kubetest.WithLabel(instance.PoolLabel, "warm")),
		kubetest.Tombstone(kubetest.Pod(kubetest.ID(18), kubetest.Noon), instance.EndCulled, ""))
	r.world.PauseWatch()
	r.launch(t, "")
	if _, err := r.Launch(t.Context(), Request{Template: kubetest.TemplateName}); kindOf(err) != errLimit {
		t.Errorf("the fourth of three: got error %v", err)
	}
	r.world.ResumeWatch()
	r.world.DropPod(t, instance.PodName(kubetest.ID(12)))
	r.launch(t, "")
}

// hookedPods calls a hook, if it is set, before each write of a pod. A hook that fails
// takes the place of the API server.
type hookedPods struct {
	Pods
	before func(context.Context) error
}

// into hooks a Launcher.
func (p *hookedPods) into(deps *Deps) { p.Pods, deps.Pods = deps.Pods, p }

func (p *hookedPods) hook(ctx context.Context) error {
	if p.before == nil {
		return nil
	}
	return p.before(ctx)
}

func (p *hookedPods) Patch(ctx context.Context, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions, subresources ...string) (*corev1.Pod, error) {
	if err := p.hook(ctx); err != nil {
		return nil, err
	}
	return p.Pods.Patch(ctx, name, pt, data, opts, subresources...)
}

func (p *hookedPods) Create(ctx context.Context, pod *corev1.Pod, opts metav1.CreateOptions) (*corev1.Pod, error) {
	if err := p.hook(ctx); err != nil {
		return nil, err
	}
	return p.Pods.Create(ctx, pod, opts)
}

// Launches that use the quota at the same time can conflict, which the API server tells only
// after it has tried for a while.
func TestLaunchRepeatsConflicts(t *testing.T) {
	r := noonReplica(t, kubetest.Template(kubetest.TemplateName))
	conflicts := 2
	r.world.React("create", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
		conflicts--
		return conflicts >= 0, nil, kubetest.Conflict("resourcequotas")
	})
	if id := r.launch(t, ""); conflicts != -1 {
		t.Errorf("launched %s after %d conflicts", id, 1-conflicts)
	}
}

// A client waits for the launch and can try again, so a launch does not wait long for
// an API server that does not answer.
func TestLaunchGivesUp(t *testing.T) {
	for name, warm := range map[string]int{"create": 0, "claim": 1} {
		synctest.Test(t, func(t *testing.T) {
			hanging := &hookedPods{before: func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			}}
			r := poolReplica(t, "1", warm, hanging.into)
			began := time.Now()
			if id, err := r.Launch(t.Context(), Request{Template: kubetest.TemplateName}); id != "" || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: got id %q and error %v", name, id, err)
			}
			if took := time.Since(began); took != kube.CreateTimeout {
				t.Errorf("%s: took %s, want %s", name, took, kube.CreateTimeout)
			}
		})
	}
}

// When the answer to a create was lost, the repeated create finds the launch's own pod.
// A watch that is late holds the launch up for a moment only.
func TestLaunchFindsItsOwnPod(t *testing.T) {
	for name, test := range map[string]struct {
		late bool
		wait time.Duration
	}{"watch in time": {false, 0}, "watch late": {true, instance.WatchDelay}} {
		synctest.Test(t, func(t *testing.T) {
			r := newReplica(t, newWorld(time.Now, kubetest.Template(kubetest.TemplateName)))
			r.world.React("create", "pods", func(action k8stesting.Action) (bool, runtime.Object, error) {
				pod := action.(k8stesting.CreateAction).GetObject().(*corev1.Pod)
				pod.CreationTimestamp = metav1.Now()
				r.world.PutPod(t, pod)
				return true, nil, apierrors.NewAlreadyExists(kubetest.PodResource.GroupResource(), pod.Name)
			})
			if test.late {
				r.world.PauseWatch()
			}
			began := time.Now()
			if id := r.launch(t, ""); id != kubetest.ID(1) || time.Since(began) != test.wait {
				t.Errorf("%s: got id %q after %s", name, id, time.Since(began))
			}
			r.world.ResumeWatch()
			time.Sleep(2*time.Second - time.Since(began))
			r.world.PutPod(t, kubetest.Pod(kubetest.ID(1), began))
			r.wantCounted(t, "launched ok", "took 2s, warm false")
		})
	}
}
