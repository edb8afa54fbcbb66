package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"

	"github.com/binder-project/binder-deploy-kubernetes/internal/config"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"

	"github.com/binder-project/binder-deploy-kubernetes/internal/preload"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// preloadTemplates is a source of templates that may be away.
type preloadTemplates struct {
	known map[string]*corev1.PodTemplate
	err   error
}

func (s preloadTemplates) Template(_ context.Context, name string) (*corev1.PodTemplate, error) {
	if s.err != nil {
		return nil, s.err
	}
	if template, ok := s.known[name]; ok {
		return template, nil
	}
	return nil, fmt.Errorf("%w: %q", podtemplate.ErrUnknown, name)
}

// preloadBench is a preloader on a cluster of which nothing is watched: what the
// cache holds is put there by see.
type preloadBench struct {
	*preload.Preloader
	client *fake.Clientset
}

func newPreloadBench(t testing.TB, templates podtemplate.Source, objects ...runtime.Object) preloadBench {
	t.Helper()
	client := fake.NewClientset(objects...)
	cluster, err := NewCluster(client, ClusterOptions{Namespace: "binder", InstancesNamespace: "instances"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if templates == nil {
		templates = clusterTemplates{cluster}
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	p, err := preload.New(client.AppsV1().DaemonSets("instances"), cluster, "instances", templates, preloadTestHelper, log)
	if err != nil {
		t.Fatal(err)
	}
	return preloadBench{p, client}
}

func (b preloadBench) see(t testing.TB, sets ...*appsv1.DaemonSet) preloadBench {
	t.Helper()
	for _, set := range sets {
		if err := b.Cluster.(*Cluster).daemonSets.GetStore().Add(set); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// writes are what was asked of the API server, as "create <name>" and so on.
func (b preloadBench) writes() []string {
	var writes []string
	for _, action := range b.client.Actions() {
		switch action := action.(type) {
		case k8stesting.CreateAction:
			writes = append(writes, "create "+action.GetObject().(metav1.Object).GetName())
		case k8stesting.DeleteActionImpl:
			writes = append(writes, fmt.Sprintf("delete %s, uid %s, %s", action.Name,
				*action.DeleteOptions.Preconditions.UID, *action.DeleteOptions.PropagationPolicy))
		}
	}
	return writes
}

// existing is a DaemonSet as the API server has it.
func existing(set *appsv1.DaemonSet, changes ...func(*appsv1.DaemonSet)) *appsv1.DaemonSet {
	set = set.DeepCopy()
	set.UID, set.Generation, set.CreationTimestamp = "uid-1", 1, metav1.NewTime(preloadTestTime)
	for _, change := range changes {
		change(set)
	}
	return set
}

func TestPreloadSettles(t *testing.T) {
	one, two := preloadTestTemplate("x"), preloadTestTemplate("x", preloadTestImage("app:2"))
	setOne, setTwo := preloadTestSet(t, one), preloadTestSet(t, two)
	source := func(templates ...*corev1.PodTemplate) preloadTemplates {
		s := preloadTemplates{known: map[string]*corev1.PodTemplate{}}
		for _, template := range templates {
			s.known[template.Name] = template
		}
		return s
	}
	gone := func(s *appsv1.DaemonSet) { s.DeletionTimestamp = &s.CreationTimestamp }
	foreign := func(s *appsv1.DaemonSet) { delete(s.Labels, instance.PreloadLabel) }

	for _, test := range []struct {
		name      string
		templates podtemplate.Source
		have      []*appsv1.DaemonSet
		want      []string
	}{
		{"never preloaded", source(one), nil, nil},
		{"in step", source(one), []*appsv1.DaemonSet{existing(setOne)}, nil},
		{"template changed: the new one first", source(two), []*appsv1.DaemonSet{existing(setOne)}, []string{"create " + setTwo.Name}},
		{"then the old one ends", source(two), []*appsv1.DaemonSet{existing(setOne), existing(setTwo)},
			[]string{"delete " + setOne.Name + ", uid uid-1, Background"}},
		{"template gone", source(), []*appsv1.DaemonSet{existing(setOne)},
			[]string{"delete " + setOne.Name + ", uid uid-1, Background"}},
		{"source of templates away: nothing follows", preloadTemplates{err: errors.New("down")}, []*appsv1.DaemonSet{existing(setOne)}, nil},
		{"template that has no image any more: the old one stays", source(preloadTestTemplate("x", preloadTestImage(""))),
			[]*appsv1.DaemonSet{existing(setOne)}, nil},
		{"being deleted by somebody: it is not made again", source(two), []*appsv1.DaemonSet{existing(setOne, gone)}, nil},
		{"somebody else's", source(), []*appsv1.DaemonSet{existing(setOne, foreign)}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newPreloadBench(t, test.templates).see(t, test.have...)
			b.Settle(t.Context())
			if got := b.writes(); !slices.Equal(got, test.want) {
				t.Errorf("writes are %q, want %q", got, test.want)
			}
		})
	}
}

func TestPreloadStatusIsThePresentVersions(t *testing.T) {
	one, two := preloadTestTemplate("x"), preloadTestTemplate("x", preloadTestImage("app:2"))
	all := func(s *appsv1.DaemonSet) {
		s.Status = appsv1.DaemonSetStatus{ObservedGeneration: 1, DesiredNumberScheduled: 3, NumberReady: 3}
	}
	setOne, setTwo := existing(preloadTestSet(t, one), all), existing(preloadTestSet(t, two))
	templates := preloadTemplates{known: map[string]*corev1.PodTemplate{"x": two}}
	for _, test := range []struct {
		name string
		have []*appsv1.DaemonSet
		want preload.Preload
	}{
		{"old only", []*appsv1.DaemonSet{setOne}, preload.Preload{Status: preload.PreloadLoading, ToDo: 3, Reason: preload.ReasonTemplateChanged}},
		{"both", []*appsv1.DaemonSet{setOne, setTwo}, preload.Preload{Status: preload.PreloadLoading}},
		{"new only", []*appsv1.DaemonSet{existing(setTwo, all)}, preload.Preload{Status: preload.PreloadCompleted, Done: 3}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newPreloadBench(t, templates).see(t, test.have...)
			got, known, err := b.Status(t.Context(), "x")
			got.Message, test.want.Template, test.want.Started = "", "x", preloadTestTime
			if err != nil || !known || got != test.want {
				t.Errorf("status is %+v, known %t, error %v; want %+v", got, known, err, test.want)
			}
			if writes := b.client.Actions(); len(writes) != 0 {
				t.Errorf("asking costs the cluster %v, want nothing", writes)
			}
		})
	}
}

func TestPreloadStatusUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // who asks for what is not there waits for a moment
		down := errors.New("down")
		set := existing(preloadTestSet(t, preloadTestTemplate("x")))
		known := preloadTemplates{known: map[string]*corev1.PodTemplate{"x": preloadTestTemplate("x")}}
		for _, test := range []struct {
			name      string
			templates podtemplate.Source
			have      []*appsv1.DaemonSet
			known     bool
			err       error
		}{
			{"never preloaded", known, nil, false, nil},
			{"no such template", preloadTemplates{}, nil, false, podtemplate.ErrUnknown},
			{"no such template any more", preloadTemplates{}, []*appsv1.DaemonSet{set}, false, podtemplate.ErrUnknown},
			{"source away, never preloaded", preloadTemplates{err: down}, nil, false, down},
			{"source away, preloaded", preloadTemplates{err: down}, []*appsv1.DaemonSet{set}, true, nil},
		} {
			_, known, err := newPreloadBench(t, test.templates).see(t, test.have...).Status(t.Context(), "x")
			if known != test.known || !errors.Is(err, test.err) {
				t.Errorf("%s: known %t, error %v; want %t, %v", test.name, known, err, test.known, test.err)
			}
		}
	})
}

func TestPreloadRefused(t *testing.T) {
	resource := schema.GroupResource{Group: "apps", Resource: "daemonsets"}
	for _, test := range []struct {
		name     string
		template *corev1.PodTemplate
		err      error // the API server's
		want     int   // HTTP status
	}{
		{"a template without an image", preloadTestTemplate("x", preloadTestImage("")), nil, 500},
		{"a template with a bad port", preloadTestTemplate("x", func(t *corev1.PodTemplate) {
			t.Annotations = map[string]string{instance.PortAnnotation: "many"}
		}), nil, 500},
		{"no image volumes", preloadTestTemplate("x"), apierrors.NewInvalid(schema.GroupKind{}, "x", nil), 500},
		{"no right", preloadTestTemplate("x"), apierrors.NewForbidden(resource, "x", errors.New("no")), 500},
		{"API server away", preloadTestTemplate("x"), errors.New("connection refused"), 503},
		{"no such template", nil, nil, 404},
	} {
		t.Run(test.name, func(t *testing.T) {
			templates := preloadTemplates{}
			if test.template != nil {
				templates.known = map[string]*corev1.PodTemplate{"x": test.template}
			}
			b := newPreloadBench(t, templates)
			b.client.PrependReactor("create", "daemonsets", func(k8stesting.Action) (bool, runtime.Object, error) {
				return true, nil, test.err
			})
			_, err := b.Preload(t.Context(), "x")
			if err == nil || protocol.AnswerFor(err).Code != test.want {
				t.Errorf("error is %v, want one that is answered with %d", err, test.want)
			}
			if test.err != nil && !errors.Is(err, test.err) {
				t.Errorf("error %v does not say for the log: %v", err, test.err)
			}
		})
	}
}

// TestPreloadRuns goes through the life of a preload with the watches on.
func TestPreloadRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		template := preloadTestTemplate("x", func(t *corev1.PodTemplate) {
			t.Template.Spec.InitContainers = []corev1.Container{{Image: "setup:1"}}
		})
		b := newPreloadBench(t, nil, template)
		ctx, stop := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer stop()
		go b.Cluster.(*Cluster).Run(ctx)
		time.Sleep(time.Second) // of the bubble's clock: the caches are filled
		go b.Run(ctx)
		names := func() []string {
			time.Sleep(time.Second) // no longer than a change takes to be noticed, and shorter than the interval
			list, err := b.DaemonSets.List(ctx, metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, set := range list.Items {
				names = append(names, set.Name)
			}
			return names
		}

		began := time.Now()
		got, err := b.Preload(ctx, "x")
		if waited := time.Since(began); waited >= kube.OwnWriteWait {
			t.Errorf("preload answered after %s: the watch did not wake it", waited)
		}
		if err != nil || got.Name != "x" || got.ImageSource != "app:1" || got.Port != 8000 || !slices.Equal(got.Images, []string{"setup:1", "app:1"}) {
			t.Errorf("preload answers %+v, error %v", got, err)
		}
		// At once: the answer came when the watch had delivered it.
		if status, known, err := b.Status(ctx, "x"); !known || err != nil || status.Status != preload.PreloadLoading {
			t.Errorf("then its status is %+v, known %t, error %v", status, known, err)
		}
		if _, err := b.Preload(ctx, "x"); err != nil {
			t.Errorf("a second time: %v", err)
		}
		want := []string{preloadTestSet(t, template).Name}
		if got := names(); !slices.Equal(got, want) {
			t.Errorf("preloaded twice, there are %q, want %q", got, want)
		}

		changed := template.DeepCopy()
		preloadTestImage("app:2")(changed)
		templates := b.client.CoreV1().PodTemplates("instances")
		if _, err := templates.Update(ctx, changed, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		want = []string{preloadTestSet(t, changed).Name}
		if got := names(); !slices.Equal(got, want) {
			t.Errorf("after a change of the template there are %q, want %q", got, want)
		}

		if err := templates.Delete(ctx, "x", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := names(); len(got) != 0 {
			t.Errorf("when the template is gone there are still %q", got)
		}
	})
}

// TestPreloadPodsOfOneVersion: those of the version before say nothing of it.
func TestPreloadPodsOfOneVersion(t *testing.T) {
	set := existing(preloadTestSet(t, preloadTestTemplate("x")))
	other := preloadTestSet(t, preloadTestTemplate("x", preloadTestImage("app:2")))
	b := newPreloadBench(t, nil)
	for _, s := range []*appsv1.DaemonSet{set, other} {
		pod := &corev1.Pod{ObjectMeta: s.Spec.Template.ObjectMeta}
		pod.Name, pod.Namespace = s.Name+"-abcde", "instances"
		if err := b.Cluster.(*Cluster).pods.GetStore().Add(pod); err != nil {
			t.Fatal(err)
		}
	}
	if pods := b.Cluster.PreloadPods(set); len(pods) != 1 || !strings.HasPrefix(pods[0].Name, set.Name) {
		t.Errorf("pods are %v, want only those of %s", pods, set.Name)
	}
	if instances := b.Cluster.(*Cluster).Instances(""); len(instances) != 0 {
		t.Errorf("pods of preloads are instances: %+v", instances)
	}
	if pods := b.Cluster.(*Cluster).InstancePods(); len(pods) != 0 {
		t.Errorf("pods of preloads would be culled: %v", pods)
	}
}

func TestPreloadHelperImageFlag(t *testing.T) {
	from := config.OSEnvironment()
	from.Env = func(string) (string, bool) { return "", false }
	for _, test := range []struct {
		args  []string
		want  string
		wrong bool
	}{
		{nil, "registry.k8s.io/pause:3.10.1", false},
		{[]string{"--preload-helper-image=r/p@sha256:00"}, "r/p@sha256:00", false},
		{[]string{"--preload-helper-image="}, "", true},
		{[]string{"--preload-helper-image=a b"}, "a b", true},
	} {
		config, err := config.Parse(test.args, from, io.Discard)
		if config.PreloadHelperImage != test.want || (err != nil) != test.wrong || test.wrong && !strings.Contains(err.Error(), "--preload-helper-image") {
			t.Errorf("%q gives %q, error %v", test.args, config.PreloadHelperImage, err)
		}
	}
}
