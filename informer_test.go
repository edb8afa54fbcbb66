package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/informers"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podstore"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// ids returns the ids of instances, in their order.
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
		{"a pod has precedence over its tombstone", kubetest.ID(3), instance.StatusDeployed, ""},
		{"a warm pod", kubetest.ID(4), "", ""},
		{"a pod of another namespace", kubetest.ID(5), "", ""},
		{"nothing", kubetest.ID(6), "", ""},
		{"a pod whose name and label differ", kubetest.ID(7), "", ""},
		{"no id", "", "", ""},
	} {
		inst, known := c.Instance(test.id)
		if known != (test.want != "") || inst.Status != test.want || inst.Reason != test.reason {
			t.Errorf("%s: got %+v, %t; want status %q and reason %q", test.name, inst, known, test.want, test.reason)
		}
	}
	c.drop(t, kubetest.ID(3))
	if inst, _ := c.Instance(kubetest.ID(3)); inst.Status != instance.StatusDeleted || inst.Reason != "Culled" {
		t.Errorf("without the pod: got %+v, want the tombstone", inst)
	}
}

// The start timeout passes without an event.
func TestCacheInstanceFailsByTheClock(t *testing.T) {
	now := kubetest.Noon
	c := startCache(t, func() time.Time { return now }, kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.Unscheduled))
	for after, want := range map[time.Duration]instance.Status{0: instance.StatusPending, kubetest.StartTimeout + instance.ReportLag: instance.StatusFailed} {
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
	odd := "org/image:tag" // not valid as a label
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
		func() *corev1.Pod {
			pulling := kubetest.Pod(kubetest.ID(9), at(0), kubetest.WithLabel(instance.PreloadLabel, "true"))
			delete(pulling.Labels, instance.IDLabel)
			pulling.OwnerReferences = []metav1.OwnerReference{{Kind: "DaemonSet", Name: "x", Controller: new(true)}}
			return pulling
		}(),
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
	if _, err := informers.ByTemplate("no object"); err == nil {
		t.Error("got no error for the template of a string")
	}
	if got, want := names(c.InstancePods()), []string{"1", "2", "3", "4", "6"}; !slices.Equal(got, want) {
		t.Errorf("the pods of instances are %v, want %v", got, want)
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
			t.Errorf("template %q: got error %v, want ErrUnknown with the name", name, err)
		}
	}
	if got, ok := c.ProxyService(); !ok || got.Namespace != "binder" {
		t.Errorf("got Service %v, %t; want the one in the controller's namespace", got, ok)
	}
	if _, ok := startCache(t, kubetest.ClockAt(kubetest.Noon)).ProxyService(); ok {
		t.Error("got a Service where there is none")
	}
}

// Reads do not reach the API server.
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
		t.Errorf("the API server got %v", actions)
	}
}

// The transforms keep everything that is read, and drop the rest.
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
		slimmed := podstore.Slim(full)
		if slimmed.ManagedFields != nil || slimmed.Spec.Containers != nil || slimmed.Status.PodIPs != nil || slimmed.Status.HostIPs != nil {
			t.Errorf("%s: unread fields are kept: %v", name, slimmed)
		}
		for _, after := range []time.Duration{0, 2 * time.Minute, 10 * time.Minute, 2 * time.Hour} {
			now := kubetest.Noon.Add(after)
			if got, want := instance.FromPod(slimmed, nil, now, kubetest.StartTimeout), instance.FromPod(full, nil, now, kubetest.StartTimeout); got != want {
				t.Errorf("%s after %s: the instance is\n%+v, want\n%+v", name, after, got, want)
			}
			if got, want := testRules().Judge(slimmed, nil, now, false), testRules().Judge(full, nil, now, false); got != want {
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

	// Other objects lose their managedFields only.
	tombstone, template := kubetest.Tombstone(kubetest.Pod(kubetest.ID(1), kubetest.Noon), instance.EndCulled, "not used"), kubetest.Template("jupyter")
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "binder-proxy"}}
	for _, want := range []runtime.Object{tombstone, template, service} {
		full := want.DeepCopyObject()
		full.(metav1.Object).SetManagedFields(managed)
		if got := mustTransform(t, informers.Slim, full); !equality.Semantic.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

func mustTransform(t testing.TB, transform func(any) (any, error), obj any) any {
	t.Helper()
	got, err := transform(obj)
	noError(t, err)
	return got
}

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

// noImage makes the image of the pod one that cannot be pulled.
var noImage = kubetest.StartingWith("ImagePullBackOff", "manifest unknown")

// The cache reads only what the Roles allow: the service's own objects, in two
// namespaces.
func TestCacheWatchesOnlyItsOwn(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon))
	want := map[string]string{
		"pods":           "binder-instances app.kubernetes.io/managed-by=binder-deploy-kubernetes ",
		"events":         "binder-instances app.kubernetes.io/managed-by=binder-deploy-kubernetes ",
		"warnings":       "binder-instances  involvedObject.kind=Pod,type=Warning",
		"podtemplates":   "binder-instances  ",
		"resourcequotas": "binder-instances  ",
		"daemonsets":     "binder-instances app.kubernetes.io/managed-by=binder-deploy-kubernetes ",
		"services":       "binder  metadata.name=binder-proxy",
		"leases":         "binder binder-project.org/election=binder-deploy-kubernetes ",
	}
	verbs := map[string][]string{}
	for _, action := range c.Client.Actions() {
		var opts metav1.ListOptions
		switch action := action.(type) {
		case k8stesting.ListActionImpl:
			opts = action.ListOptions
		case k8stesting.WatchActionImpl:
			opts = action.ListOptions
		}
		resource := action.GetResource().Resource
		if opts.FieldSelector == "involvedObject.kind=Pod,type=Warning" {
			resource = "warnings" // events, too
		}
		verbs[resource] = append(verbs[resource], action.GetVerb())
		got := strings.Join([]string{action.GetNamespace(), opts.LabelSelector, opts.FieldSelector}, " ")
		if got != want[resource] {
			t.Errorf("%s %s: got %q, want %q", action.GetVerb(), resource, got, want[resource])
		}
	}
	for resource := range want {
		if got, want := verbs[resource], []string{"list", "watch"}; !slices.Equal(got, want) {
			t.Errorf("calls of %s are %v, want %v", resource, got, want)
		}
	}
}

func TestCacheSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := kubetest.NewServer(time.Now, kubetest.Pod(kubetest.ID(1), time.Now()))
		// client-go delays retries after other errors by a clock outside the bubble.
		restore := server.FailOn("list", "podtemplates", apierrors.NewResourceExpired("too old resource version"))
		c := newTestCache(t, server)
		if c.Synced() {
			t.Error("synced before it runs")
		}
		runUntilEnd(t, c.Run)
		time.Sleep(time.Minute)
		if c.Synced() {
			t.Error("synced before the templates were read")
		}
		if _, known := c.Instance(kubetest.ID(1)); !known {
			t.Error("the instance is unknown although the pods could be read")
		}
		restore()
		time.Sleep(2 * time.Minute) // more than the longest pause between two attempts
		if !c.Synced() {
			t.Error("not synced although everything could be read")
		}
	})
}

func TestOnInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCache(t, time.Now, kubetest.Pod(kubetest.ID(1), kubetest.Noon))
		var heard []string
		noError(t, c.OnInstance(func(id string) { heard = append(heard, "updated "+id[31:]) },
			func(pod *corev1.Pod) { heard = append(heard, "gone "+pod.Labels[instance.IDLabel][31:]) }))
		synctest.Wait()
		c.put(t, kubetest.Pod(kubetest.ID(2), kubetest.Noon))
		c.put(t, kubetest.Pod(kubetest.ID(2), kubetest.Noon, kubetest.Starting))
		c.put(t, kubetest.Pod(kubetest.ID(3), kubetest.Noon, kubetest.WithLabel(instance.PoolLabel, "warm"))) // no instance
		c.drop(t, kubetest.ID(2))
		c.Client.Tracker().Delete(kubetest.PodResource, kubetest.Namespace, instance.PodName(kubetest.ID(3)))
		synctest.Wait()
		if want := []string{"updated 1", "updated 2", "updated 2", "gone 2"}; !slices.Equal(heard, want) {
			t.Errorf("heard %v, want %v", heard, want)
		}
	})
}

func TestOnInstanceAfterTheEnd(t *testing.T) {
	c := newTestCache(t, kubetest.NewServer(time.Now))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.Run(ctx)
	if err := c.OnInstance(func(string) {}, func(*corev1.Pod) {}); err == nil {
		t.Error("got no error for a handler that will never be called")
	}
}

// The read after a broken watch finds that a pod was deleted meanwhile. It calls the
// handlers and wakes waiting clients.
func TestPodDeletedDuringABrokenWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := kubetest.NewServer(time.Now, kubetest.Pod(kubetest.ID(1), kubetest.Noon))
		broken := server.BreakFirstPodWatch()
		c := startCacheOn(t, server)
		gone, lost := make(chan string, 2), make(chan struct{})
		noError(t, c.OnInstance(func(string) {}, func(pod *corev1.Pod) { gone <- pod.Labels[instance.IDLabel] }))
		go func() {
			c.Await(t.Context(), kubetest.ID(1), func(_ instance.Instance, known bool) bool { return !known })
			close(lost)
		}()
		c.DropPod(t, instance.PodName(kubetest.ID(1)))
		time.Sleep(time.Minute)
		if _, known := c.Instance(kubetest.ID(1)); !known || len(gone) > 0 {
			t.Fatal("the watch is not broken")
		}
		broken.Expire()
		if id := receive(t, gone); id != kubetest.ID(1) {
			t.Errorf("the handler was called for %s", id)
		}
		synctest.Wait() // without another look of the client in the meantime
		select {
		case <-lost:
		default:
			t.Error("the waiting client was not woken")
		}
		if len(gone) > 0 {
			t.Error("the handler was called twice")
		}
	})
}

func isKnown(_ instance.Instance, known bool) bool { return known }

func isDeployed(inst instance.Instance, known bool) bool {
	return known && inst.Status == instance.StatusDeployed
}

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCache(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now(), kubetest.Starting))
		for _, test := range []struct {
			name   string
			id     string
			change *corev1.Pod     // after a second; can be nil
			want   instance.Status // "" for unknown
			after  time.Duration
		}{
			{"deployed already", kubetest.ID(2), nil, instance.StatusDeployed, 0},
			{"becomes deployed", kubetest.ID(1), kubetest.Pod(kubetest.ID(1), time.Now()), instance.StatusDeployed, time.Second},
			{"becomes known", kubetest.ID(3), kubetest.Pod(kubetest.ID(3), time.Now()), instance.StatusDeployed, time.Second},
			{"another change", kubetest.ID(4), kubetest.Pod(kubetest.ID(4), time.Now(), kubetest.Starting), instance.StatusDeploying, time.Minute},
			{"change of another instance", kubetest.ID(5), kubetest.Pod(kubetest.ID(6), time.Now()), "", time.Minute},
			{"never", kubetest.ID(7), nil, "", time.Minute},
		} {
			if test.want == instance.StatusDeployed && test.change == nil {
				c.put(t, kubetest.Pod(test.id, time.Now()))
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			var changing sync.WaitGroup
			changing.Go(func() {
				time.Sleep(time.Second)
				if test.change != nil {
					c.put(t, test.change)
				}
			})
			began := time.Now()
			inst, known := c.Await(ctx, test.id, isDeployed)
			if took := time.Since(began); took != test.after {
				t.Errorf("%s: took %s, want %s", test.name, took, test.after)
			}
			if inst.Status != test.want || known != (test.want != "") {
				t.Errorf("%s: got %+v, %t; want status %q", test.name, inst, known, test.want)
			}
			cancel()
			changing.Wait()
		}
	})
}

// While a client waits, and no longer, the cache dials a starting instance. The instance
// is deployed as soon as it listens.
func TestAwaitDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCache(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now(), kubetest.NotReadySince(time.Now()),
			kubetest.WithAnnotation(instance.ReadyWhenAnnotation, instance.ReadyWhenListening)))
		var updates atomic.Int64
		noError(t, c.OnInstance(func(string) { updates.Add(1) }, func(*corev1.Pod) {}))
		await := func(limit time.Duration) (instance.Instance, int64) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			before := c.dials.Load()
			inst, _ := c.Await(ctx, kubetest.ID(1), isDeployed)
			return inst, c.dials.Load() - before
		}
		if inst, dials := await(10 * time.Second); inst.Status != instance.StatusDeploying || dials == 0 {
			t.Errorf("before it listens: got %+v after %d dials", inst, dials)
		}
		time.Sleep(10 * time.Second)
		before := c.dials.Load()
		time.Sleep(time.Minute)
		wantEqual(t, "dials after the last client has gone", c.dials.Load(), before)
		c.listens.Store(true)
		heard, began := updates.Load(), time.Now()
		if inst, _ := await(time.Minute); inst.Status != instance.StatusDeployed || inst.Address != "10.0.0.7:8888" || time.Since(began) > time.Second {
			t.Errorf("once it listens: got %+v after %s", inst, time.Since(began))
		}
		synctest.Wait() // the handler is called after the client is woken
		wantEqual(t, "calls of the handler when the instance listens", updates.Load()-heard, 1)
	})
}

// A tombstone wakes a waiting client.
func TestAwaitTombstone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCache(t, time.Now)
		began := time.Now()
		event := kubetest.Tombstone(kubetest.Pod(kubetest.ID(1), kubetest.Noon), instance.EndCulled, "")
		time.AfterFunc(time.Second, func() { _ = c.Client.Tracker().Add(event) })
		inst, known := c.Await(t.Context(), kubetest.ID(1), isKnown)
		if took := time.Since(began); !known || inst.Status != instance.StatusDeleted || took != time.Second {
			t.Errorf("got %+v, %t after %s, want it deleted after 1s", inst, known, took)
		}
	})
}

// warning returns a Warning Event of an instance's pod.
func warning(n int, pod *corev1.Pod, reason, message string) *corev1.Event {
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: kubetest.Namespace, Name: fmt.Sprintf("%s.%x", pod.Name, n), ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubelet"}}},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: pod.Name, UID: pod.UID},
		Type:           corev1.EventTypeWarning, Reason: reason, Message: message,
		FirstTimestamp: metav1.NewTime(kubetest.Noon), LastTimestamp: metav1.NewTime(kubetest.Noon),
	}
}

// A Warning Event of a pod wakes a waiting client, and says what the pod does not.
func TestAwaitWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := kubetest.Pod(kubetest.ID(1), time.Now(), kubetest.Starting)
		c := startCache(t, time.Now, pod)
		began := time.Now()
		time.AfterFunc(time.Second, func() {
			_ = c.Client.Tracker().Add(warning(1, pod, "FailedMount", `configmap "settings" not found`))
		})
		inst, _ := c.Await(t.Context(), kubetest.ID(1), func(inst instance.Instance, _ bool) bool { return inst.Fault != "" })
		if took := time.Since(began); took != time.Second || inst.Status != instance.StatusDeploying || inst.Fault != instance.FaultTemplate ||
			inst.Detail != `FailedMount: configmap "settings" not found` || strings.Contains(inst.Message, "settings") {
			t.Errorf("after %s: got %+v", took, inst)
		}
	})
}

// Of Warning Events only what is read is kept, and nothing of those that say nothing
// about an instance. However long a message is, it is clipped.
func TestCacheKeepsSlimWarnings(t *testing.T) {
	pod := kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.Starting)
	other := kubetest.Pod(kubetest.ID(2), kubetest.Noon)
	foreign := kubetest.Pod(kubetest.ID(3), kubetest.Noon, func(p *corev1.Pod) { p.Name = "database-0" })
	long := strings.Repeat("x", 1<<20)
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), pod, other,
		warning(1, pod, "FailedMount", long), warning(2, pod, "DNSConfigForming", long), warning(3, foreign, "FailedMount", long),
		kubetest.Tombstone(other, instance.EndFailed, long))
	if got := c.Warnings(pod); len(got) != 1 || len(got[0].Message) > 600 || got[0].ManagedFields != nil {
		t.Errorf("kept of the warnings of the pod are %v", got)
	}
	if got := c.Warnings(other); len(got) != 0 {
		t.Errorf("a tombstone is a warning: %v", got)
	}
	for _, event := range c.warnings.GetStore().List() {
		if event := event.(*corev1.Event); event.InvolvedObject.UID != pod.UID && event.Message != "" {
			t.Errorf("kept is %v", event)
		}
	}
}

// A change between the first look and the wait is not missed.
func TestAwaitLooksAgain(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon))
	looks := 0
	_, known := c.Await(t.Context(), kubetest.ID(1), func(_ instance.Instance, known bool) bool {
		if looks++; looks == 1 {
			c.put(t, kubetest.Pod(kubetest.ID(1), kubetest.Noon)) // there is no waiting client to wake
		}
		return known
	})
	if !known {
		t.Error("the instance is not known")
	}
}

// A list and a status say of every instance what it is, also when they are asked for again, when
// the clock alone has changed it, and when an Event says more than its pod. Only a status for
// the key has a detail.
func TestEncoded(t *testing.T) {
	now := kubetest.Noon
	c := startCache(t, func() time.Time { return now }, kubetest.Template("jupyter"),
		kubetest.Pod(kubetest.ID(1), kubetest.Noon), kubetest.Pod(kubetest.ID(2), kubetest.Noon, kubetest.Starting),
		kubetest.Pod(kubetest.ID(3), kubetest.Noon, kubetest.Broken), kubetest.Pod(kubetest.ID(4), kubetest.Noon, kubetest.LastUsed(kubetest.Noon.Add(time.Hour))),
		kubetest.Tombstone(kubetest.Pod(kubetest.ID(5), kubetest.Noon.Add(-time.Hour)), instance.EndCulled, "told"),
		kubetest.Pod(kubetest.ID(6), kubetest.Noon, kubetest.Deleting),
		kubetest.Pod(kubetest.ID(7), kubetest.Noon, kubetest.Deleting), kubetest.Tombstone(kubetest.Pod(kubetest.ID(7), kubetest.Noon), instance.EndCulled, "told"))
	routes := newTestAPI(c.Cache, nil).Routes()
	checkStatus := func(when string, want protocol.StatusResponse, header ...string) {
		t.Helper()
		body, err := json.Marshal(want)
		noError(t, err)
		answer := ask(routes, "GET", "http://hub.example/applications/jupyter/"+want.ID, "", header...)
		if answer.Code != http.StatusOK || answer.Body.String() != string(body)+"\n" || answer.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: the status is %d\n%s, want\n%s", when, answer.Code, answer.Body, body)
		}
	}
	check := func(when string) {
		t.Helper()
		locate := func(id string) string { return "hub.example/user/" + id }
		var want []protocol.StatusResponse
		for _, inst := range c.Instances("") {
			status := protocol.NewStatusResponse(inst, locate(inst.ID))
			status.Detail = inst.Detail
			want = append(want, status)
		}
		for range 2 {
			answer := httptest.NewRecorder()
			protocol.WriteList(answer, httptest.NewRequest(http.MethodGet, "/applications/", nil), c.EachEncoded(""), locate)
			var got []protocol.StatusResponse
			noError(t, json.Unmarshal(answer.Body.Bytes(), &got))
			if !slices.Equal(got, want) {
				t.Errorf("%s: the list is\n%+v, want\n%+v", when, got, want)
			}
			for _, status := range want {
				checkStatus(when, status, "Authorization", testAPIKey)
				status.Detail = ""
				checkStatus(when, status)
			}
		}
	}
	check("at first")
	for _, now = range []time.Time{kubetest.Noon.Add(kubetest.StartTimeout), kubetest.Noon.Add(2 * time.Hour), kubetest.Noon} {
		check("at " + now.String())
	}
	before := c.Instances("")
	pod, err := c.StoredPod(instance.PodName(kubetest.ID(2)))
	noError(t, err)
	noError(t, c.Client.Tracker().Add(warning(1, pod, "FailedMount", "secret not found")))
	kubetest.Eventually(t, "the Event is known", func() bool { return !slices.Equal(c.Instances(""), before) })
	check("with an Event")
	c.ChangePod(t, instance.PodName(kubetest.ID(1)), kubetest.LastUsed(kubetest.Noon.Add(time.Minute)))
	kubetest.Eventually(t, "the use is known", func() bool { inst, _ := c.Instance(kubetest.ID(1)); return inst.LastActivity.After(kubetest.Noon) })
	check("after a use")
	if _, kept := c.Encoded("jupyter", kubetest.ID(1)); !kept {
		t.Error("the status of a deployed instance is not kept")
	}
	for _, template := range []string{"", "other", "jupyte", "jupyter\",\"location\":\"hub.example", "jupyter\",\"status\":\"deployed"} {
		if _, kept := c.Encoded(template, kubetest.ID(1)); kept {
			t.Errorf("template %q has the instance, too", template)
		}
		path := "/applications/" + url.PathEscape(template) + "/" + kubetest.ID(1)
		if answer := ask(routes, "GET", path, ""); answer.Code != http.StatusNotFound {
			t.Errorf("%s: got %d %s", path, answer.Code, answer.Body)
		}
	}
	if _, kept := c.Encoded("jupyter", kubetest.ID(6)); kept {
		t.Error("the status of an instance that is being deleted is kept")
	}
	pod, err = c.StoredPod(instance.PodName(kubetest.ID(1)))
	noError(t, err)
	pod = pod.DeepCopy()
	pod.ResourceVersion, pod.Annotations[instance.LastActivityAnnotation] = "999999999", instance.FormatTime(kubetest.Noon.Add(2*time.Minute))
	c.Wrote(pod)
	check("after a write that the watch has not delivered")
}
