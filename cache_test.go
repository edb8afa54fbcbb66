package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/contact"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func warm(pod *corev1.Pod) { pod.Labels[instance.PoolLabel] = instance.PoolWarm }

// names returns the names of objects, sorted; of a pod the number that its id is made of.
func names[T metav1.Object](objects []T) []string {
	var all []string
	for _, object := range objects {
		id := strings.TrimLeft(object.GetLabels()[instance.IDLabel], "0")
		all = append(all, cmp.Or(id, strings.TrimLeft(strings.TrimPrefix(object.GetName(), "binder-"), "0")))
	}
	slices.Sort(all)
	return all
}

// A replica reads its own writes at once, even if the watch is broken.
func TestWrote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := kubetest.NewServer(time.Now, kubetest.Pod(kubetest.ID(1), time.Now(), warm), kubetest.Pod(kubetest.ID(2), time.Now()))
		server.BreakFirstPodWatch()
		c := startCacheOn(t, server)
		var updated []string
		noError(t, c.OnInstance(func(id string) { updated = append(updated, id) }, func(*corev1.Pod) {}))
		synctest.Wait()
		updated = nil
		waiting := make(chan instance.Instance)
		go func() {
			inst, _ := c.Await(t.Context(), kubetest.ID(1), isKnown)
			waiting <- inst
		}()
		synctest.Wait()

		claimed := server.ChangePod(t, instance.PodName(kubetest.ID(1)), func(pod *corev1.Pod) { delete(pod.Labels, instance.PoolLabel) })
		created := server.PutPod(t, kubetest.Pod(kubetest.ID(3), time.Now()))
		created.ManagedFields = []metav1.ManagedFieldsEntry{{}}
		ended := kubetest.Pod(kubetest.ID(2), time.Now(), kubetest.Deleting)
		for _, pod := range []*corev1.Pod{claimed, created, ended} {
			c.Wrote(pod)
		}
		if inst := receive(t, waiting); inst.ID != kubetest.ID(1) || inst.Status != instance.StatusDeployed {
			t.Errorf("a waiting client got %+v", inst)
		}
		if got := names(c.InstancePods()); !slices.Equal(got, []string{"1", "2", "3"}) {
			t.Errorf("the pods of instances are %v", got)
		}
		if got := c.WarmPods(kubetest.TemplateName); len(got) > 0 {
			t.Errorf("a claimed pod is still warm: %v", names(got))
		}
		var statuses []string
		for _, inst := range c.Instances(kubetest.TemplateName) {
			statuses = append(statuses, string(inst.Status))
		}
		slices.Sort(statuses)
		if want := []string{"deleted", "deployed", "deployed"}; !slices.Equal(statuses, want) {
			t.Errorf("the instances are %v, want %v", statuses, want)
		}
		if pod, ok := c.Pod(kubetest.ID(3)); !ok || pod.ManagedFields != nil || pod.Spec.Containers != nil {
			t.Errorf("the created pod is %v, %t; want only what is read", pod, ok)
		}
		if len(updated) != 3 {
			t.Errorf("the handler was called for %v, want all three", updated)
		}
	})
}

// No visitor is sent to an address that two living pods have, whatever kind the other one
// is. In the network of a node, the port tells pods apart.
func TestSharedAddresses(t *testing.T) {
	at := func(ip, hostIP, port string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			pod.Status.PodIP, pod.Status.HostIP, pod.Annotations[instance.PortAnnotation] = ip, hostIP, port
		}
	}
	const ip, node = "10.0.9.9", "192.168.0.1"
	for name, test := range map[string]struct {
		own, other func(*corev1.Pod)
		unsure     bool
	}{
		"each has its own":               {at(ip, node, "8888"), at("10.0.9.8", node, "8888"), false},
		"an instance":                    {at(ip, node, "8888"), at(ip, node, "8888"), true},
		"on another port":                {at(ip, node, "8888"), at(ip, node, "9999"), true},
		"on another node":                {at(ip, node, "8888"), at(ip, "192.168.0.2", "8888"), true},
		"written in another way":         {at(ip, node, "8888"), at("::ffff:"+ip, node, "8888"), true},
		"IPv6":                           {at("fd00::7", node, "8888"), at("fd00:0::7", node, "8888"), true},
		"warm":                           {at(ip, node, "8888"), kubetest.All(at(ip, node, "8888"), warm), true},
		"of a preload":                   {at(ip, node, "8888"), kubetest.All(at(ip, node, "8888"), kubetest.WithLabel(instance.PreloadLabel, "true"), kubetest.WithLabel(instance.IDLabel, "")), true},
		"not ready":                      {at(ip, node, "8888"), kubetest.All(kubetest.NotReadySince(kubetest.Noon), at(ip, node, "8888")), true},
		"on a silent node":               {at(ip, node, "8888"), kubetest.All(kubetest.OnSilentNode(kubetest.Noon), at(ip, node, "8888")), true},
		"being deleted":                  {at(ip, node, "8888"), kubetest.All(kubetest.Deleting, at(ip, node, "8888")), true},
		"has failed":                     {at(ip, node, "8888"), kubetest.All(kubetest.Broken, at(ip, node, "8888")), false},
		"has completed":                  {at(ip, node, "8888"), kubetest.All(kubetest.Completed, at(ip, node, "8888")), false},
		"has no address":                 {at(ip, node, "8888"), at("", node, "8888"), false},
		"the node's network":             {at(node, node, "8888"), at(node, node, "9999"), false},
		"the node's network, one port":   {at(node, node, "8888"), at(node, node, "8888"), true},
		"the node's network and another": {at(ip, node, "8888"), at(node, node, "8888"), false},
	} {
		t.Run(name, func(t *testing.T) {
			c := startCache(t, kubetest.ClockAt(kubetest.Noon),
				kubetest.Pod(kubetest.ID(1), kubetest.Noon, test.own), kubetest.Pod(kubetest.ID(2), kubetest.Noon, test.other))
			if inst, _ := c.Instance(kubetest.ID(1)); inst.Status != instance.StatusDeployed || inst.Unsure != test.unsure {
				t.Errorf("got %+v, want deployed, and unsure: %t", inst, test.unsure)
			}
			c.DropPod(t, instance.PodName(kubetest.ID(2)))
			kubetest.Eventually(t, "it is sure once the other is gone", func() bool {
				inst, _ := c.Instance(kubetest.ID(1))
				return !inst.Unsure
			})
		})
	}
}

// A replica that is cut off is not sure of instances that others may have ended, and for
// long, of none.
func TestUnsureWhileCutOff(t *testing.T) {
	server := kubetest.NewServer(kubetest.ClockAt(kubetest.Noon), ago(1, 2*time.Hour), ago(2, time.Minute), ago(3, 2*time.Hour, mangled), ago(4, 2*time.Hour, kubetest.Starting))
	c := startCacheOn(t, server)
	heard := time.Now()
	now := heard
	c.contact = contact.New(func() time.Time { return now })
	c.contact.Answered()
	for _, step := range []struct {
		after  time.Duration
		unsure string
	}{{0, ""}, {contact.LostAfter, ""}, {contact.LostAfter + time.Second, "1"}, {contact.StaleAfter + time.Second, "1 2 3"}} {
		now = heard.Add(step.after)
		var unsure []string
		for n := 1; n <= 4; n++ {
			if inst, _ := c.Instance(kubetest.ID(n)); inst.Unsure {
				unsure = append(unsure, fmt.Sprint(n))
			}
		}
		wantEqual(t, "unsure after "+step.after.String(), strings.Join(unsure, " "), step.unsure)
	}
}

// What a replica does not know may be known to others, if the API server does not tell it what
// is new.
func TestUnknownWhileBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCache(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now()))
		c.contact = contact.New(time.Now)
		c.contact.Answered()
		time.Sleep(contact.BehindAfter + time.Second)
		routes := newTestAPI(c.Cache, &fakeLauncher{}).Routes()
		const unknown = "/applications/jupyter/"
		for _, method := range []string{"GET", "DELETE"} {
			res := ask(routes, method, unknown+kubetest.ID(2), "", "Authorization", testAPIKey)
			wantError(t, res, 503, "badKubeRequest")
			wantEqual(t, "Retry-After", res.Header().Get("Retry-After"), "5")
		}
		wantError(t, ask(routes, "GET", unknown+"not-an-id", ""), 404, "noRecord")
		if res := ask(routes, "GET", unknown+kubetest.ID(1), ""); res.Code != 200 {
			t.Errorf("what is known is answered with %d %s", res.Code, res.Body)
		}
		c.contact.Answered()
		wantError(t, ask(routes, "GET", unknown+kubetest.ID(2), ""), 404, "noRecord")
	})
}

// Warm pods belong to a template and are not instances. A handler hears of all their
// changes.
func TestWarmPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCache(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now(), warm),
			kubetest.Pod(kubetest.ID(2), time.Now(), warm, kubetest.OfTemplate("other")), kubetest.Pod(kubetest.ID(3), time.Now()))
		for template, want := range map[string][]string{kubetest.TemplateName: {"1"}, "other": {"2"}, "none": nil} {
			if got := names(c.WarmPods(template)); !slices.Equal(got, want) {
				t.Errorf("of %s: %v, want %v", template, got, want)
			}
		}
		templates := c.WarmTemplates()
		slices.Sort(templates)
		if want := []string{kubetest.TemplateName, "other"}; !slices.Equal(templates, want) {
			t.Errorf("templates %v, want %v", templates, want)
		}
		var changed []string
		noError(t, c.OnWarm(func(template string) { changed = append(changed, template) }))
		steps := []struct {
			name string
			do   func()
			want string
		}{
			{"pods at the start", func() {}, "jupyter,other"},
			{"a warm pod is created", func() { c.put(t, kubetest.Pod(kubetest.ID(4), time.Now(), warm)) }, "jupyter"},
			{"it is claimed", func() { c.put(t, kubetest.Pod(kubetest.ID(4), time.Now())) }, "jupyter"},
			{"an instance changes", func() { c.put(t, kubetest.Pod(kubetest.ID(4), time.Now(), kubetest.Starting)) }, ""},
			{"a warm pod is deleted", func() { c.DropPod(t, instance.PodName(kubetest.ID(2))) }, "other"},
			{"a template is created", func() { _ = c.Client.Tracker().Add(kubetest.Template("third")) }, "third"},
		}
		for _, step := range steps {
			step.do()
			synctest.Wait()
			slices.Sort(changed)
			wantEqual(t, "heard of at: "+step.name, strings.Join(changed, ","), step.want)
			changed = nil
		}
		m := newTestMetrics()
		noError(t, registerCollectors(m, c.Cache, newTestCuller(t, c).Culler))
		c.put(t, kubetest.Pod(kubetest.ID(5), time.Now(), warm, kubetest.Starting))
		wantMetrics(t, m, "binder_pool_pods", `
binder_pool_pods{state="ready",template="other"} 1
binder_pool_pods{state="starting",template="other"} 1`)
	})
}

func preloadSet(name, template string) *appsv1.DaemonSet {
	labels := map[string]string{
		instance.ManagedByLabel: instance.ManagerName, instance.PreloadLabel: "true", instance.TemplateLabel: template,
	}
	return &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: kubetest.Namespace, Labels: labels, ResourceVersion: "7"}}
}

func TestPreloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		foreign := preloadSet("foreign", "a")
		delete(foreign.Labels, instance.PreloadLabel)
		deleting := preloadSet("deleting", "a")
		deleting.DeletionTimestamp = new(metav1.Now())
		pulling := kubetest.Pod(kubetest.ID(1), time.Now(), kubetest.OfTemplate("a"), kubetest.WithLabel(instance.PreloadNameLabel, "one"))
		c := startCache(t, time.Now, preloadSet("one", "a"), preloadSet("two", "b"), foreign, deleting, pulling,
			kubetest.Pod(kubetest.ID(2), time.Now(), kubetest.OfTemplate("a")))
		for template, want := range map[string]string{"a": "one", "b": "two", "": "one two", "c": ""} {
			wantEqual(t, "preloads of "+template, strings.Join(names(c.Preloads(template)), " "), want)
		}
		if got := names(c.PreloadPods(preloadSet("one", "a"))); !slices.Equal(got, []string{"1"}) {
			t.Errorf("the pods are %v", got)
		}
		changed := map[string]int{}
		noError(t, c.OnPreload(func(template string) { changed[template]++ }))
		synctest.Wait()
		if fmt.Sprint(changed) != "map[a:3 b:1]" {
			t.Errorf("heard of %v", changed)
		}

		waiting := make(chan string)
		go func() {
			sets := c.AwaitPreload(t.Context(), "c", func(sets []*appsv1.DaemonSet) bool { return len(sets) > 0 })
			waiting <- strings.Join(names(sets), " ")
		}()
		synctest.Wait()
		c.WrotePreload(preloadSet("three", "c"))
		wantEqual(t, "the preload of a waiting client", receive(t, waiting), "three")
		deleted := preloadSet("two", "b")
		deleted.DeletionTimestamp = new(metav1.Now())
		c.WrotePreload(deleted)
		if got := c.Preloads("b"); len(got) > 0 {
			t.Errorf("a deleted preload is still there: %v", names(got))
		}
		noError(t, c.Client.Tracker().Delete(appsv1.SchemeGroupVersion.WithResource("daemonsets"), kubetest.Namespace, "one"))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if sets := c.AwaitPreload(ctx, "a", func(sets []*appsv1.DaemonSet) bool { return len(sets) > 0 }); len(sets) > 0 {
			t.Errorf("a preload that is gone is still there: %v", names(sets))
		}
	})
}

// Only templates that exist in the cluster have a label of their own, and each of them has all
// its series.
func TestCollectors(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon),
		kubetest.Template(kubetest.TemplateName, kubetest.WithTemplateAnnotation(instance.PoolSizeAnnotation, "3")),
		kubetest.Pod(kubetest.ID(1), kubetest.Noon), kubetest.Pod(kubetest.ID(2), kubetest.Noon), kubetest.Pod(kubetest.ID(3), kubetest.Noon, kubetest.Starting),
		kubetest.Pod(kubetest.ID(4), kubetest.Noon, kubetest.Broken, kubetest.OfTemplate("of-a-registry")),
		kubetest.Pod(kubetest.ID(5), kubetest.Noon, kubetest.WithLabel(instance.PoolLabel, "warm")),
		kubetest.Tombstone(kubetest.Pod(kubetest.ID(6), kubetest.Noon), instance.EndCulled, ""),
		&corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Name: "instances", Namespace: kubetest.Namespace},
			Status: corev1.ResourceQuotaStatus{
				Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1k"), corev1.ResourceLimitsMemory: resource.MustParse("2Gi")},
				Used: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("7")},
			},
		})
	m := newTestMetrics()
	noError(t, registerCollectors(m, c.Cache, newTestCuller(t, c).Culler))
	kubetest.Eventually(t, "the template is known", func() bool { return m.TemplateLabel(kubetest.TemplateName) == kubetest.TemplateName })
	wantMetrics(t, m, "binder_instances{", `
binder_instances{status="deployed",template="jupyter"} 2
binder_instances{status="deployed",template="other"} 0
binder_instances{status="deploying",template="jupyter"} 1
binder_instances{status="deploying",template="other"} 0
binder_instances{status="failed",template="jupyter"} 0
binder_instances{status="failed",template="other"} 1
binder_instances{status="pending",template="jupyter"} 0
binder_instances{status="pending",template="other"} 0`)
	wantMetrics(t, m, "binder_pool_pods", `
binder_pool_pods{state="ready",template="jupyter"} 1
binder_pool_pods{state="starting",template="jupyter"} 0`)
	wantMetrics(t, m, "binder_pool_size", `binder_pool_size{template="jupyter"} 3`)
	wantMetrics(t, m, "binder_quota_", `
binder_quota_hard{quota="instances",resource="limits.memory"} 2.147483648e+09
binder_quota_hard{quota="instances",resource="pods"} 1000
binder_quota_used{quota="instances",resource="limits.memory"} 0
binder_quota_used{quota="instances",resource="pods"} 7`)
	c.put(t, kubetest.Pod(kubetest.ID(3), kubetest.Noon))
	wantEqual(t, "deployed", metric(t, m, "binder_instances", "deployed"), 3)
	wantEqual(t, "remembered", metric(t, m, "binder_tombstones"), 1)

	noError(t, c.Client.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("podtemplates"), kubetest.Namespace, kubetest.TemplateName))
	kubetest.Eventually(t, "the template's series end", func() bool { return !strings.Contains(scrape(t, m, "binder_"), `"jupyter"`) })
}

func TestSyncedGauge(t *testing.T) {
	running := startCache(t, kubetest.ClockAt(kubetest.Noon))
	unread := newTestCache(t, running.Server)
	for c, want := range map[*testCache]string{running: "1", unread: "0"} {
		m := newTestMetrics()
		noError(t, registerCollectors(m, c.Cache, newTestCuller(t, c).Culler))
		wantMetrics(t, m, "binder_cache_synced", "binder_cache_synced "+want)
	}
}

// A claim is found at once at the replica that has made it, and by the watch at others, among the
// pods of its template.
func TestCacheFindsClaims(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), kubetest.Pod(kubetest.ID(1), kubetest.Noon, warm))
	find := func(template string, n int) string {
		id, _ := c.ClaimedFor(template, kubetest.ID(n))
		return id
	}
	wantEqual(t, "before the claim", find(kubetest.TemplateName, 9), "")
	claimed := kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.WithAnnotation(instance.ClaimedForAnnotation, kubetest.ID(9)))
	claimed.ResourceVersion = "1000"
	c.Wrote(claimed)
	wantEqual(t, "its own claim", find(kubetest.TemplateName, 9), kubetest.ID(1))
	c.PutPod(t, kubetest.Pod(kubetest.ID(2), kubetest.Noon, kubetest.WithAnnotation(instance.ClaimedForAnnotation, kubetest.ID(8))))
	kubetest.Eventually(t, "another replica's claim is found", func() bool { return find(kubetest.TemplateName, 8) == kubetest.ID(2) })
	wantEqual(t, "of another template", find("other", 8), "")
	wantEqual(t, "of nothing", find(kubetest.TemplateName, 7), "")
}
