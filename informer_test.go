package main

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// ids are those of instances, in their order.
func ids(instances []instance.Instance) []string {
	var ids []string
	for _, inst := range instances {
		ids = append(ids, inst.ID)
	}
	return ids
}

func TestCacheInstance(t *testing.T) {
	deployed, over, both := kubetest.Pod(kubetest.ID(1), kubetest.Noon), kubetest.Pod(kubetest.ID(2), kubetest.Noon), kubetest.Pod(kubetest.ID(3), kubetest.Noon)
	c := startCache(t, kubetest.ClockAt(kubetest.Noon),
		deployed,
		kubetest.Tombstone(over, instance.EndCulled, "not used"),
		// The delete that the tombstone was written for did not happen.
		both, kubetest.Tombstone(both, instance.EndCulled, "not used"),
		kubetest.Pod(kubetest.ID(4), kubetest.Noon, kubetest.WithLabel(instance.PoolLabel, "warm")),
		kubetest.Pod(kubetest.ID(5), kubetest.Noon, func(p *corev1.Pod) { p.Namespace = "default" }),
		kubetest.Pod(kubetest.ID(7), kubetest.Noon, kubetest.WithLabel(instance.IDLabel, kubetest.ID(8))),
	)
	for _, test := range []struct {
		name   string
		id     string
		want   instance.Status // "" for unknown
		reason string
	}{
		{"a pod", kubetest.ID(1), instance.StatusDeployed, ""},
		{"a tombstone", kubetest.ID(2), instance.StatusDeleted, "Culled"},
		{"a pod goes before its tombstone", kubetest.ID(3), instance.StatusDeployed, ""},
		{"a pod that is nobody's", kubetest.ID(4), "", ""},
		{"a pod of another namespace", kubetest.ID(5), "", ""},
		{"nothing", kubetest.ID(6), "", ""},
		{"a pod that is named by one id and labelled by another", kubetest.ID(7), "", ""},
		{"no id", "", "", ""},
	} {
		inst, known := c.Instance(test.id)
		if known != (test.want != "") || inst.Status != test.want || inst.Reason != test.reason {
			t.Errorf("%s: got %+v, %t; want status %q and reason %q", test.name, inst, known, test.want, test.reason)
		}
	}
	c.drop(t, kubetest.ID(3))
	if inst, _ := c.Instance(kubetest.ID(3)); inst.Status != instance.StatusDeleted || inst.Reason != "Culled" {
		t.Errorf("once the pod is gone: got %+v, want what the tombstone says", inst)
	}
}

// The status changes with time alone, without an event.
func TestCacheInstanceFailsByTheClock(t *testing.T) {
	now := kubetest.Noon
	c := startCache(t, func() time.Time { return now }, kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.Unscheduled))
	for after, want := range map[time.Duration]instance.Status{0: instance.StatusPending, kubetest.StartTimeout: instance.StatusFailed} {
		now = kubetest.Noon.Add(after)
		one, _ := c.Instance(kubetest.ID(1))
		all := c.Instances("")
		if one.Status != want || len(all) != 1 || all[0] != one {
			t.Errorf("after %s: got %+v and %+v, want status %s of both", after, one, all, want)
		}
	}
}

func TestCacheInstances(t *testing.T) {
	at := func(n int) time.Time { return kubetest.Noon.Add(time.Duration(n) * time.Minute) }
	odd := "org/image:tag" // is no label value
	both := kubetest.Pod(kubetest.ID(4), at(0))
	c := startCache(t, kubetest.ClockAt(kubetest.Noon),
		kubetest.Pod(kubetest.ID(3), at(2)),
		kubetest.Pod(kubetest.ID(2), at(1)),
		kubetest.Pod(kubetest.ID(1), at(1)),
		both, kubetest.Tombstone(both, instance.EndCulled, ""),
		kubetest.Tombstone(kubetest.Pod(kubetest.ID(5), at(3)), instance.EndStopped, ""),
		kubetest.Pod(kubetest.ID(6), at(4), kubetest.OfTemplate(odd)),
		kubetest.Tombstone(kubetest.Pod(kubetest.ID(7), at(5), kubetest.OfTemplate(odd)), instance.EndFailed, ""),
		kubetest.Pod(kubetest.ID(8), at(0), kubetest.WithLabel(instance.PoolLabel, "warm")),
		kubetest.Pod(kubetest.ID(9), at(0), kubetest.WithLabel(instance.PreloadLabel, "true")),
	)
	jupyter := []string{kubetest.ID(4), kubetest.ID(1), kubetest.ID(2), kubetest.ID(3), kubetest.ID(5)}
	odds := []string{kubetest.ID(6), kubetest.ID(7)}
	for template, want := range map[string][]string{
		"": slices.Concat(jupyter, odds), kubetest.TemplateName: jupyter, odd: odds, instance.TemplateLabelValue(odd): nil, "unknown": nil,
	} {
		got := c.Instances(template)
		if !slices.Equal(ids(got), want) {
			t.Errorf("of template %q: got\n%v, want\n%v", template, ids(got), want)
		}
		for _, inst := range got {
			if one, _ := c.Instance(inst.ID); one != inst {
				t.Errorf("in the list it is %+v, by itself %+v", inst, one)
			}
		}
	}
	pods := c.InstancePods()
	if len(pods) != 5 {
		t.Errorf("got %d pods of instances, want 5", len(pods))
	}
	for _, pod := range pods {
		if !instance.IsInstance(pod) {
			t.Errorf("pod %s is nobody's instance", pod.Name)
		}
	}
}

func TestCacheLookups(t *testing.T) {
	service := func(namespace, name string) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	}
	elsewhere := kubetest.Template("elsewhere")
	elsewhere.Namespace = "default"
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), kubetest.Template("jupyter"), elsewhere, service("binder", "binder-proxy"), service(kubetest.Namespace, "binder-proxy"))
	if template, err := c.Template(t.Context(), "jupyter"); err != nil || template.Name != "jupyter" {
		t.Errorf("got template %v, %v", template, err)
	}
	for _, name := range []string{"unknown", "", "elsewhere", "../default/elsewhere"} {
		if _, err := c.Template(t.Context(), name); !errors.Is(err, podtemplate.ErrUnknown) || !strings.Contains(err.Error(), strconv.Quote(name)) {
			t.Errorf("template %q: got error %v, want one that says that it is unknown", name, err)
		}
	}
	if got, ok := c.ProxyService(); !ok || got.Namespace != "binder" {
		t.Errorf("got Service %v, %t; want the one in the controller's namespace", got, ok)
	}
	if _, ok := startCache(t, kubetest.ClockAt(kubetest.Noon)).ProxyService(); ok {
		t.Error("got a Service where there is none")
	}
}

// Answering costs the API server nothing.
func TestCacheReadsFromMemory(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), kubetest.Pod(kubetest.ID(1), kubetest.Noon), kubetest.Template("jupyter"))
	c.Client.ClearActions()
	c.Instance(kubetest.ID(1))
	c.Instance(kubetest.ID(2))
	c.Instances("")
	c.Instances(kubetest.TemplateName)
	c.InstancePods()
	c.Template(t.Context(), "jupyter")
	c.PodTemplates()
	c.WarmPods("jupyter")
	c.WarmTemplates()
	c.Preloads("")
	c.ProxyService()
	if actions := c.Client.Actions(); len(actions) > 0 {
		t.Errorf("the API server was asked %v", actions)
	}
}

// What the transforms leave of an object is all that anybody reads.
func TestTransformsKeepWhatIsRead(t *testing.T) {
	managed := []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	for name, change := range map[string]func(*corev1.Pod){
		"deployed":      func(*corev1.Pod) {},
		"unscheduled":   kubetest.Unscheduled,
		"starting":      kubetest.Starting,
		"no image":      noImage,
		"broken":        kubetest.Broken,
		"completed":     kubetest.Completed,
		"deleting":      kubetest.Deleting,
		"strips prefix": kubetest.WithAnnotation(instance.StripPrefixAnnotation, "true"),
		"own timeout":   kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "5m"),
		"unreadable":    kubetest.WithAnnotation(instance.LastActivityAnnotation, "mangled"),
	} {
		full := kubetest.Pod(kubetest.ID(1), kubetest.Noon, change)
		full.ManagedFields = managed
		full.Status.PodIPs, full.Status.HostIPs = []corev1.PodIP{{IP: "10.0.0.7"}}, []corev1.HostIP{{IP: "10.0.0.1"}}
		slimmed := mustTransform(t, slimPod, full.DeepCopy()).(*corev1.Pod)
		if slimmed.ManagedFields != nil || slimmed.Spec.Containers != nil || slimmed.Status.PodIPs != nil || slimmed.Status.HostIPs != nil {
			t.Errorf("%s: what nobody reads is kept: %v", name, slimmed)
		}
		for _, after := range []time.Duration{0, 2 * time.Minute, 10 * time.Minute, 2 * time.Hour} {
			now := kubetest.Noon.Add(after)
			if got, want := instance.FromPod(slimmed, now, kubetest.StartTimeout), instance.FromPod(full, now, kubetest.StartTimeout); got != want {
				t.Errorf("%s after %s: the instance is\n%+v, want\n%+v", name, after, got, want)
			}
			if got, want := testRules().Judge(slimmed, now, false), testRules().Judge(full, now, false); got != want {
				t.Errorf("%s after %s: the verdict is %+v, want %+v", name, after, got, want)
			}
		}
		if got, want := kubetest.Tombstone(slimmed, instance.EndCulled, ""), kubetest.Tombstone(full, instance.EndCulled, ""); !equality.Semantic.DeepEqual(got, want) {
			t.Errorf("%s: the tombstone is\n%v, want\n%v", name, got, want)
		}
		if slimmed.Name != full.Name || slimmed.ResourceVersion != full.ResourceVersion {
			t.Errorf("%s: it is %s of resourceVersion %s", name, slimmed.Name, slimmed.ResourceVersion)
		}
	}

	// Of the others, only what the API server keeps for itself is dropped.
	tombstone, template := kubetest.Tombstone(kubetest.Pod(kubetest.ID(1), kubetest.Noon), instance.EndCulled, "not used"), kubetest.Template("jupyter")
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "binder-proxy"}}
	for _, want := range []runtime.Object{tombstone, template, service} {
		full := want.DeepCopyObject()
		full.(metav1.Object).SetManagedFields(managed)
		if got := mustTransform(t, slim, full); !equality.Semantic.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

func mustTransform(t testing.TB, transform func(any) (any, error), obj any) any {
	t.Helper()
	got, err := transform(obj)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// The transforms are in use.
func TestCacheKeepsSlimObjects(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), kubetest.Template("jupyter"))
	c.put(t, kubetest.Pod(kubetest.ID(1), kubetest.Noon))
	pod, _ := c.Pod(kubetest.ID(1))
	if pod.Spec.NodeName == "" || pod.Spec.Containers != nil || pod.ManagedFields != nil {
		t.Errorf("kept of the pod is %v", pod)
	}
	if template, _ := c.Template(t.Context(), "jupyter"); len(template.Template.Spec.Containers) != 1 {
		t.Errorf("kept of the template is %v", template)
	}
}

func TestIndexByTemplate(t *testing.T) {
	if got, err := indexByTemplate(kubetest.Pod(kubetest.ID(1), kubetest.Noon)); err != nil || !slices.Equal(got, []string{kubetest.TemplateName}) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := indexByTemplate("no object"); err == nil {
		t.Error("what is no object has a template")
	}
}

// noImage is a pod whose image cannot be pulled.
func noImage(pod *corev1.Pod) {
	kubetest.Starting(pod)
	pod.Status.ContainerStatuses[0].State = kubetest.Waiting("ImagePullBackOff", "manifest unknown")
}
