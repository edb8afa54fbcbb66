package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func warm(pod *corev1.Pod) { pod.Labels[instance.PoolLabel] = instance.PoolWarm }

// names are those of pods or DaemonSets, sorted, without what all of them have.
func names[T metav1.Object](objects []T) []string {
	var all []string
	for _, object := range objects {
		all = append(all, strings.TrimLeft(strings.TrimPrefix(object.GetName(), "binder-"), "0"))
	}
	slices.Sort(all)
	return all
}

// What a replica has written, it reads at once, by every question, whether or not
// the watch works.
func TestWrote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := kubetest.NewServer(time.Now, kubetest.Pod(kubetest.ID(1), time.Now(), warm), kubetest.Pod(kubetest.ID(2), time.Now()))
		server.BreakFirstPodWatch()
		c := startCacheOn(t, server)
		var updated []string
		if err := c.OnPod(func(pod *corev1.Pod) { updated = append(updated, pod.Name) }, func(*corev1.Pod) {}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		updated = nil
		waiting := make(chan instance.Instance)
		go func() {
			inst, _ := c.Await(t.Context(), kubetest.ID(1), func(_ instance.Instance, known bool) bool { return known })
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
			t.Errorf("the created pod is %v, %t; want it slimmed", pod, ok)
		}
		if len(updated) != 3 {
			t.Errorf("handlers were told of %v, want all three", updated)
		}
	})
}

// Warm pods are nobody's instance, are found by their template, and whatever happens
// to them is told.
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
		if err := c.OnWarm(func(template string) { changed = append(changed, template) }); err != nil {
			t.Fatal(err)
		}
		steps := []struct {
			name string
			do   func()
			want string
		}{
			{"those that are there", func() {}, "jupyter,other"},
			{"another comes", func() { c.put(t, kubetest.Pod(kubetest.ID(4), time.Now(), warm)) }, "jupyter"},
			{"it is claimed", func() { c.put(t, kubetest.Pod(kubetest.ID(4), time.Now())) }, "jupyter"},
			{"an instance changes", func() { c.put(t, kubetest.Pod(kubetest.ID(4), time.Now(), kubetest.Starting)) }, ""},
			{"one goes", func() { c.DropPod(t, instance.PodName(kubetest.ID(2))) }, "other"},
			{"a template comes", func() { _ = c.Client.Tracker().Add(kubetest.Template("third")) }, "third"},
		}
		for _, step := range steps {
			step.do()
			synctest.Wait()
			slices.Sort(changed)
			if got := strings.Join(changed, ","); got != step.want {
				t.Errorf("%s: told of %q, want %q", step.name, got, step.want)
			}
			changed = nil
		}
		m := newTestMetrics()
		registerCollectors(m, c.Cache, newTestCuller(t, c).Culler)
		c.put(t, kubetest.Pod(kubetest.ID(5), time.Now(), warm, kubetest.Starting))
		wantMetrics(t, m, "binder_pool_pods", "binder_pool_pods{state=\"ready\"} 1\nbinder_pool_pods{state=\"starting\"} 1")
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
			if got := strings.Join(names(c.Preloads(template)), " "); got != want {
				t.Errorf("of %q: %q, want %q", template, got, want)
			}
		}
		if got := names(c.PreloadPods(preloadSet("one", "a"))); !slices.Equal(got, []string{"1"}) {
			t.Errorf("the pods are %v", got)
		}
		changed := map[string]int{}
		if err := c.OnPreload(func(template string) { changed[template]++ }); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if fmt.Sprint(changed) != "map[a:3 b:1]" {
			t.Errorf("told of %v", changed)
		}

		waiting := make(chan string)
		go func() {
			sets := c.AwaitPreload(t.Context(), "c", func(sets []*appsv1.DaemonSet) bool { return len(sets) > 0 })
			waiting <- strings.Join(names(sets), " ")
		}()
		synctest.Wait()
		c.WrotePreload(preloadSet("three", "c"))
		if got := receive(t, waiting); got != "three" {
			t.Errorf("a waiting client got %q", got)
		}
		deleted := preloadSet("two", "b")
		deleted.DeletionTimestamp = new(metav1.Now())
		c.WrotePreload(deleted)
		if got := c.Preloads("b"); len(got) > 0 {
			t.Errorf("a deleted preload is still there: %v", names(got))
		}
		if err := c.Client.Tracker().Delete(appsv1.SchemeGroupVersion.WithResource("daemonsets"), kubetest.Namespace, "one"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if sets := c.AwaitPreload(ctx, "a", func(sets []*appsv1.DaemonSet) bool { return len(sets) > 0 }); len(sets) > 0 {
			t.Errorf("what is gone is still there: %v", names(sets))
		}
	})
}
