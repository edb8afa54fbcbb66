package launch

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

func poolTemplate(size string) *corev1.PodTemplate {
	return kubetest.Template(kubetest.TemplateName, kubetest.WithTemplateAnnotation(instance.PoolSizeAnnotation, size))
}

// warmPod is the nth warm pod of a template, created 30 hours before noon, with
// changes made to it. Without changes it serves.
func warmPod(template *corev1.PodTemplate, n int, changes ...func(*corev1.Pod)) *corev1.Pod {
	return kubetest.Pod(kubetest.ID(n), kubetest.Noon.Add(-30*time.Hour), append([]func(*corev1.Pod){
		kubetest.WithLabel(instance.PoolLabel, instance.PoolWarm),
		kubetest.WithLabel(instance.TemplateHashLabel, podtemplate.Hash(template)),
		func(pod *corev1.Pod) { delete(pod.Annotations, instance.LastActivityAnnotation) },
	}, changes...)...)
}

// poolReplica is a replica in a world with some warm pods, from ID(100) on.
func poolReplica(t testing.TB, size string, pods int, changes ...func(*Deps)) *replica {
	t.Helper()
	template := poolTemplate(size)
	world := newWorld(kubetest.ClockAt(kubetest.Noon), template)
	for n := range pods {
		world.PutPod(t, warmPod(template, 100+n))
	}
	return newReplica(t, world, changes...)
}

// A claim is one write. It makes an old pod a new instance, which is known at once,
// however late the watch is.
func TestClaimIsOneWrite(t *testing.T) {
	r := poolReplica(t, "1", 1)
	warm := kubetest.ID(100)
	if inst, known := r.world.Instance(warm); known {
		t.Errorf("before the claim, %+v is known", inst)
	}
	r.world.PauseWatch()
	id, err := r.Launch(t.Context(), Request{Template: kubetest.TemplateName, CullTimeout: 90 * time.Second})
	if err != nil || id != warm {
		t.Fatalf("got %q, %v; want the warm pod's id", id, err)
	}
	if writes := r.world.Writes(); len(writes) != 1 || !writes[0].Matches("patch", "pods") {
		t.Errorf("the writes are %v, want one patch", writes)
	}
	if inst, known := r.world.Instance(id); !known || inst.Status != instance.StatusDeployed {
		t.Errorf("it is %+v, %t; want deployed at once", inst, known)
	}
	wantLaunchAnnotations(t, r.world, id)
	r.world.ResumeWatch()
	r.wantCounted(t, "claimed warm", "took 0s, warm true", "launched ok")
	if again := r.launch(t, ""); again == id {
		t.Error("the pod is claimed twice")
	}
}

// What a pod's application did in the pool is not what its visitor is told of.
func TestClaimForgetsRestarts(t *testing.T) {
	for restarts, want := range map[int32]string{0: "", 2: "2"} {
		template := poolTemplate("1")
		world := newWorld(kubetest.ClockAt(kubetest.Noon), template)
		world.PutPod(t, warmPod(template, 100, func(pod *corev1.Pod) { pod.Status.ContainerStatuses[0].RestartCount = restarts }))
		r := newReplica(t, world)
		id := r.launch(t, "")
		pod, err := world.StoredPod(instance.PodName(id))
		if err != nil {
			t.Fatal(err)
		}
		if got, given := pod.Annotations[instance.RestartsBeforeAnnotation]; got != want || given != (want != "") {
			t.Errorf("after %d restarts: the annotation is %q, want %q", restarts, got, want)
		}
		if inst, known := world.Instance(id); id != kubetest.ID(100) || !known || inst.Restarts != 0 || inst.Message != "" {
			t.Errorf("after %d restarts: got %+v", restarts, inst)
		}
	}
}

func TestClaimable(t *testing.T) {
	template, earlier := poolTemplate("1"), poolTemplate("1")
	earlier.Annotations[instance.PortAnnotation] = "9999"
	aged := func(age time.Duration) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.CreationTimestamp.Time = kubetest.Noon.Add(-age) }
	}
	starting := func(reason string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			aged(time.Minute)(pod)
			kubetest.Starting(pod)
			pod.Status.ContainerStatuses[0].State = kubetest.Waiting(reason, "")
		}
	}
	ended := func(pod *corev1.Pod) {
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		kubetest.NotReadySince(kubetest.Noon)(pod)
		pod.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
	}
	restarted := func(pod *corev1.Pod) { pod.Status.ContainerStatuses[0].RestartCount = 1 }
	lacks := kubetest.WithLabel("lacks", "a ConfigMap") // its Warning Event says so
	warnings := func(of *corev1.Pod) func(*corev1.Pod) []*corev1.Event {
		return func(pod *corev1.Pod) (all []*corev1.Event) {
			if pod == of && pod.Labels["lacks"] != "" {
				all = append(all, &corev1.Event{
					InvolvedObject: corev1.ObjectReference{UID: pod.UID}, Type: corev1.EventTypeWarning, Reason: "FailedMount", Message: `configmap "missing" not found`,
					LastTimestamp: metav1.NewTime(kubetest.Noon),
				})
			}
			return all
		}
	}
	for name, test := range map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"serves":                           {warmPod(template, 1), true},
		"starting":                         {warmPod(template, 1, starting("ContainerCreating")), true},
		"init containers running":          {warmPod(template, 1, starting("PodInitializing")), true},
		"half of the start timeout left":   {warmPod(template, 1, starting(""), aged(kubetest.StartTimeout/2)), true},
		"less than half of it left":        {warmPod(template, 1, starting(""), aged(kubetest.StartTimeout/2+1)), false},
		"serves, but is being deleted":     {warmPod(template, 1, kubetest.Deleting), false},
		"starting, but is being deleted":   {warmPod(template, 1, starting(""), kubetest.Deleting), false},
		"failed":                           {warmPod(template, 1, aged(time.Minute), kubetest.Broken), false},
		"completed":                        {warmPod(template, 1, aged(time.Minute), kubetest.Completed), false},
		"unschedulable":                    {warmPod(template, 1, aged(time.Minute), kubetest.Unscheduled), false},
		"image pull failed":                {warmPod(template, 1, starting("ErrImagePull")), false},
		"a ConfigMap is missing":           {warmPod(template, 1, starting("ContainerCreating"), lacks), false},
		"crashing":                         {warmPod(template, 1, starting("CrashLoopBackOff")), false},
		"ended, a helper runs on":          {warmPod(template, 1, aged(time.Minute), ended), false},
		"restarted":                        {warmPod(template, 1, starting(""), restarted), false},
		"of an earlier template's version": {warmPod(earlier, 1), false},
	} {
		got := claimable([]*corev1.Pod{test.pod}, warnings(test.pod), podtemplate.Hash(template), kubetest.Noon, kubetest.StartTimeout)
		if len(got) == 1 != test.want {
			t.Errorf("%s: got %d pods, want it claimable: %t", name, len(got), test.want)
		}
	}
}

// Pods that serve come first. Among those the order is random, or else replicas would
// always race.
func TestClaimOrder(t *testing.T) {
	template := poolTemplate("4")
	young := func(pod *corev1.Pod) {
		kubetest.Starting(pod)
		pod.CreationTimestamp.Time = kubetest.Noon
	}
	none := func(*corev1.Pod) []*corev1.Event { return nil }
	warm := []*corev1.Pod{warmPod(template, 1, young), warmPod(template, 2), warmPod(template, 3, young), warmPod(template, 4)}
	firsts := map[string]bool{}
	for range 100 {
		got := claimable(warm, none, podtemplate.Hash(template), kubetest.Noon, kubetest.StartTimeout)
		if len(got) != 4 || !instance.IsServing(got[0]) || !instance.IsServing(got[1]) {
			t.Fatalf("got %d pods, want four, and the two that serve first", len(got))
		}
		firsts[got[0].Name] = true
	}
	if len(firsts) != 2 {
		t.Errorf("the first is always %v", firsts)
	}
}

func TestClaimFallsBack(t *testing.T) {
	conflict, gone, unavailable := kubetest.Conflict("x"), kubetest.NotFound("x"), errors.New("unavailable")
	for _, test := range []struct {
		name     string
		size     string
		refusals []error // of the first patches
		pods     int
		patches  int
		creates  int
		counted  []string
	}{
		{name: "no pool", size: "0", pods: 2, creates: 1, counted: []string{"launched ok"}},
		{name: "invalid pool size", size: "two", pods: 2, creates: 1, counted: []string{"launched ok"}},
		{name: "empty pool", size: "2", creates: 1, counted: []string{"claimed empty", "launched ok"}},
		{name: "changed", size: "2", refusals: []error{conflict}, pods: 2, patches: 2,
			counted: []string{"claimed lost_race", "claimed warm", "took 0s, warm true", "launched ok"}},
		{name: "gone", size: "2", refusals: []error{gone}, pods: 2, patches: 2,
			counted: []string{"claimed lost_race", "claimed warm", "took 0s, warm true", "launched ok"}},
		{name: "all lost", size: "2", refusals: []error{conflict, gone}, pods: 2, patches: 2, creates: 1,
			counted: []string{"claimed lost_race", "claimed lost_race", "claimed empty", "launched ok"}},
		{name: "refused", size: "2", refusals: []error{forbidden("an admission webhook denied it")}, pods: 2, patches: 1, creates: 1,
			counted: []string{"claimed empty", "launched ok"}},
		{name: "API server unavailable", size: "2", refusals: []error{unavailable}, pods: 2, patches: 1, counted: []string{"launched error"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := poolReplica(t, test.size, test.pods)
			refusals := test.refusals
			r.world.React("patch", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
				if len(refusals) == 0 {
					return false, nil, nil
				}
				refusal := refusals[0]
				refusals = refusals[1:]
				return true, nil, refusal
			})
			id, err := r.Launch(t.Context(), Request{Template: kubetest.TemplateName})
			if _, known := r.world.Instance(id); known != (err == nil) {
				t.Errorf("got id %q and error %v, and known is %t", id, err, known)
			}
			patched, created := r.world.WritesOf("patch", "pods"), r.world.WritesOf("create", "pods")
			if len(patched) != test.patches || len(created) != test.creates || len(patched) == 2 && patched[0] == patched[1] {
				t.Errorf("patched are %q and created %q", patched, created)
			}
			r.wantCounted(t, test.counted...)
		})
	}
}

// launchAtOnce launches n times at the same time, by two replicas in turn, and returns
// the different ids.
func launchAtOnce(t testing.TB, n int, key string, first, second *replica) []string {
	t.Helper()
	ids := make([]string, n)
	var running sync.WaitGroup
	for i := range ids {
		running.Go(func() { ids[i] = []*replica{first, second}[i%2].launch(t, key) })
	}
	running.Wait()
	slices.Sort(ids)
	return slices.Compact(ids)
}

// Many launches by two replicas never get the same pod.
func TestClaimsAtOnce(t *testing.T) {
	secure := func(deps *Deps) { deps.Random = rand.Reader }
	first := poolReplica(t, "10", 10, secure)
	second := newReplica(t, first.world, secure)
	if ids := launchAtOnce(t, 16, "", first, second); len(ids) != 16 {
		t.Errorf("16 launches got only %q", ids)
	}
}

// A pod that one launch of a replica tries is not tried by the next. When the try
// fails, the pod can be claimed again.
func TestClaimReservesPods(t *testing.T) {
	hooked := &hookedPods{}
	r := poolReplica(t, "1", 1, hooked.into)
	hooked.before = func(context.Context) error {
		hooked.before = nil
		if id := r.launch(t, ""); id != kubetest.ID(1) {
			t.Errorf("the second launch got %q, want a new pod's id", id)
		}
		return errors.New("unavailable")
	}
	if id, err := r.Launch(t.Context(), Request{Template: kubetest.TemplateName}); err == nil {
		t.Errorf("got id %q, want an error", id)
	}
	if id := r.launch(t, ""); id != kubetest.ID(100) {
		t.Errorf("the third launch got %q, want the warm pod's id", id)
	}
	r.wantCounted(t, "claimed empty", "launched ok", "launched error", "claimed warm", "took 0s, warm true", "launched ok")
}

// A pod that another replica claimed a moment earlier is not measured as a launch of
// this one, even if the watch delivers that claim before this replica's is refused.
func TestClaimOfAnotherReplicaIsNotMeasured(t *testing.T) {
	hooked := &hookedPods{}
	r := poolReplica(t, "1", 1, hooked.into)
	hooked.before = func(context.Context) error {
		hooked.before = nil
		r.world.ChangePod(t, instance.PodName(kubetest.ID(100)), func(pod *corev1.Pod) { delete(pod.Labels, instance.PoolLabel) })
		return nil
	}
	if id := r.launch(t, ""); id != kubetest.ID(1) {
		t.Errorf("got %q, want a new pod's id", id)
	}
	if inst, known := r.world.Instance(kubetest.ID(100)); !known || inst.Status != instance.StatusDeployed {
		t.Errorf("the other replica's is %+v, %t", inst, known)
	}
	r.wantCounted(t, "claimed lost_race", "claimed empty", "launched ok")
}
