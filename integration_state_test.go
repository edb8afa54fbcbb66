//go:build integration

package main

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/activity"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/keys"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
	"github.com/binder-project/binder-deploy-kubernetes/internal/proxy"
	"github.com/binder-project/binder-deploy-kubernetes/internal/tombstone"
)

// movingClock is a clock that a test sets.
type movingClock struct{ at atomic.Pointer[time.Time] }

func (c *movingClock) set(at time.Time) { c.at.Store(&at) }
func (c *movingClock) now() time.Time   { return *c.at.Load() }

// flushAll flushes trackers at the same time.
func flushAll(ctx context.Context, trackers []*activity.Tracker) {
	var flushing sync.WaitGroup
	for _, tracker := range trackers {
		flushing.Go(func() { tracker.Flush(ctx) })
	}
	flushing.Wait()
}

// Two replicas write one instance's activity at the same time. The API server refuses one,
// which decides again: the later time stays.
func TestIntegrationActivityLaterTimeWins(t *testing.T) {
	t.Parallel()
	const pods = 8
	s := newSandbox(t, nil)
	began := time.Now().Truncate(time.Millisecond)
	for n := range pods {
		s.createPod(t, kubetest.ID(n), kubetest.LastUsed(began))
	}
	clocks := []*movingClock{{}, {}}
	replicas, gates := s.startReplicas(t, func(n int) func() time.Time { clocks[n].set(began); return clocks[n].now }, http.MethodPatch, "/pods/")
	trackers := []*activity.Tracker{replicas[0].tracker(), replicas[1].tracker()}
	// The replicas know the later use of every other instance in turn.
	later := began.Add(20 * time.Second)
	for n := range pods {
		clocks[n%2].set(later)
		clocks[1-n%2].set(began.Add(10 * time.Second))
		for _, tracker := range trackers {
			tracker.Touch(kubetest.ID(n), instance.SourceHTTP)
		}
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		flushAll(t.Context(), trackers)
	}()
	for _, g := range gates { // both have decided, neither has written
		g.awaitHeld(t, pods)
	}
	for _, g := range gates {
		g.open()
	}
	receive(t, written)
	codes := map[int]int{}
	for _, r := range replicas {
		for _, code := range []int{http.StatusOK, http.StatusConflict} {
			codes[code] += r.traffic.count(http.MethodPatch, "/pods/", code)
		}
	}
	// A replica that is refused decides again, and may write again.
	if codes[http.StatusOK] < pods || codes[http.StatusConflict] < pods {
		t.Fatalf("%d writes succeeded and %d were conflicts, want at least %d each", codes[http.StatusOK], codes[http.StatusConflict], pods)
	}
	s.awaitPods(t, replicas, pods)
	flushAll(t.Context(), trackers)
	for n := range pods {
		s.wantActivity(t, kubetest.ID(n), later)
	}
}

// After an outage the API server can be back long before the watches are. Until then a
// replica knows its own writes from their answers.
func TestIntegrationActivityIsWrittenWithoutTheWatch(t *testing.T) {
	s := parallelSandbox(t)
	began := time.Now().Truncate(time.Millisecond)
	clock := &movingClock{}
	clock.set(began)
	id := kubetest.ID(1)
	s.createPod(t, id, kubetest.LastUsed(began))
	r := s.startReplica(t, clock.now)
	tracker := r.tracker()
	r.stop()
	use := func(at time.Time) {
		clock.set(at)
		tracker.Touch(id, instance.SourceHTTP)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // a conflict lasts: the cache does not change
		defer cancel()
		tracker.Flush(ctx)
	}
	for n := range 3 {
		used := began.Add(time.Duration(n+1) * lifetime.Rules{}.Period(time.Hour))
		use(used)
		s.wantActivity(t, id, used)
	}
	// A later write by another replica still wins.
	later := clock.now().Add(time.Hour)
	s.touch(t, id, later)
	use(clock.now().Add(2 * lifetime.Rules{}.Period(time.Hour)))
	s.wantActivity(t, id, later)
}

// No read sends a request to the API server.
func TestIntegrationReadsCostNothing(t *testing.T) {
	s := parallelSandbox(t)
	port := startPage(t)
	pod := s.createPod(t, kubetest.ID(1), kubetest.WithAnnotation(instance.PortAnnotation, port), func(pod *corev1.Pod) { pod.Status.PodIP = "127.0.0.1" })
	s.createPod(t, kubetest.ID(2), kubetest.Unscheduled)
	s.remember(t, s.createPod(t, kubetest.ID(3)), instance.End{Reason: instance.EndGone, Message: "deleted from outside"})
	s.deletePod(t, kubetest.ID(3))
	s.putTemplate(t, kubetest.Template(kubetest.TemplateName))
	r := s.startReplica(t, time.Now)
	api := newTestAPI(r.Cache, r.launcher(t))
	tracker := r.tracker()
	proxy := proxy.New(proxy.Deps{
		Instances: r.Cache, Touch: tracker.Touch, IsAPIKey: keys.New(testAPIKey).Opens, Log: kubetest.NoLog(),
	})

	before := len(r.traffic.all())
	if before == 0 {
		t.Fatal("the requests of the watches were not counted")
	}
	read := func() {
		for path, code := range map[string]int{
			"/applications":                                 200,
			"/applications/" + kubetest.TemplateName:        200,
			"/applications/none":                            200,
			"/applications/jupyter/" + kubetest.ID(1):       200,
			"/applications/jupyter/" + kubetest.ID(2) + "/": 200,
			"/applications/jupyter/" + kubetest.ID(3):       200,
			"/applications/jupyter/" + kubetest.ID(4):       404, // after a wait for the watch
			"/applications/none/" + kubetest.ID(1):          404,
			"/none":                                         404,
		} {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				wantEqual(t, method+" "+path, ask(api.Routes(), method, path, "", withKey...).Code, code)
			}
		}
		for id, code := range map[string]int{kubetest.ID(1): 200, kubetest.ID(2): 503, kubetest.ID(3): 410, kubetest.ID(4): 404} {
			wantEqual(t, "a visit of "+id, ask(proxy, http.MethodGet, instance.BaseURL(id), "").Code, code)
		}
		wantEqual(t, "metrics", ask(r.metrics.Handler(), http.MethodGet, "/metrics", "").Code, http.StatusOK)
	}
	var reading sync.WaitGroup
	for range 20 {
		reading.Go(read)
	}
	reading.Wait()
	if calls := r.traffic.all()[before:]; len(calls) > 0 {
		t.Errorf("the reads sent %v, want nothing", calls)
	}

	// The visits are written later, by one request.
	tracker.Flush(t.Context())
	calls := r.traffic.all()[before:]
	if len(calls) != 1 || calls[0].method != http.MethodPatch || calls[0].code != http.StatusOK {
		t.Errorf("the flush sent %v, want one PATCH of %s", calls, pod.Name)
	}
}

// The API server applies the selectors of the watches.
func TestIntegrationWatchesSelect(t *testing.T) {
	s := parallelSandbox(t)
	r := s.startReplica(t, time.Now)
	s.createPod(t, kubetest.ID(1), kubetest.WithLabel(instance.ManagedByLabel, "another"))
	s.createPod(t, kubetest.ID(2))
	for _, name := range []string{"binder-api", "binder-proxy"} {
		s.putService(t, name)
	}
	kubetest.Eventually(t, "the proxy's Service is known", func() bool { _, known := r.ProxyService(); return known })
	kubetest.Eventually(t, "the instance is known", func() bool { _, known := r.Instance(kubetest.ID(2)); return known })
	if got := names(r.InstancePods()); !slices.Equal(got, []string{"2"}) {
		t.Errorf("the cache has the pods %v, want only the managed one", got)
	}
	if got := r.services.GetStore().ListKeys(); !slices.Equal(got, []string{s.namespace + "/binder-proxy"}) {
		t.Errorf("the cache has the services %v", got)
	}
}

// A new replica answers like one that has seen all changes: it reads the pods and the
// tombstones.
func TestIntegrationRestartForgetsNothing(t *testing.T) {
	s := parallelSandbox(t)
	now := kubetest.ClockAt(time.Now().Add(time.Minute))
	old := s.startReplica(t, now)

	s.createPod(t, kubetest.ID(1))
	s.createPod(t, kubetest.ID(2), kubetest.Unscheduled)
	s.createPod(t, kubetest.ID(3), noImage)
	s.createPod(t, kubetest.ID(4), kubetest.Broken)
	s.createPod(t, kubetest.ID(5), kubetest.OfTemplate("org/another"), kubetest.WithAnnotation(instance.StripPrefixAnnotation, "true"))
	s.createPod(t, kubetest.ID(6), kubetest.WithAnnotation(instance.LastActivityAnnotation, "yesterday"))
	ended := map[string]instance.EndReason{kubetest.ID(7): instance.EndCulled, kubetest.ID(8): instance.EndStopped, kubetest.ID(9): instance.EndFailed}
	for id, reason := range ended {
		noError(t, s.remover().RemoveIfUnchanged(t.Context(), s.createPod(t, id), instance.End{Reason: reason, Message: "why " + id}))
	}
	gone := s.createPod(t, kubetest.ID(10), kubetest.OfTemplate("org/another"))
	s.deletePod(t, kubetest.ID(10))
	s.remember(t, gone, instance.End{Reason: instance.EndGone, Message: "deleted from outside"})
	// A delete that fails leaves the tombstone of a living instance.
	s.remember(t, s.createPod(t, kubetest.ID(11)), instance.End{Reason: instance.EndGone, Message: "not deleted"})
	fresh := s.startReplica(t, now)
	for n := 1; n <= 11; n++ {
		old.awaitPod(t, s, kubetest.ID(n))
		fresh.awaitPod(t, s, kubetest.ID(n))
	}
	kubetest.Eventually(t, "the older replica has the tombstones", func() bool {
		return !slices.ContainsFunc([]int{7, 8, 9, 10, 11}, func(n int) bool { _, known := old.Tombstone(kubetest.ID(n)); return !known })
	})

	want := map[string]instance.Status{
		kubetest.ID(1): instance.StatusDeployed, kubetest.ID(2): instance.StatusPending, kubetest.ID(3): instance.StatusFailed, kubetest.ID(4): instance.StatusFailed,
		kubetest.ID(5): instance.StatusDeployed, kubetest.ID(6): instance.StatusDeployed, kubetest.ID(7): instance.StatusDeleted, kubetest.ID(8): instance.StatusDeleted,
		kubetest.ID(9): instance.StatusDeleted, kubetest.ID(10): instance.StatusDeleted, kubetest.ID(11): instance.StatusDeployed,
	}
	got := map[string]instance.Status{}
	for _, inst := range fresh.Instances("") {
		got[inst.ID] = inst.Status
		if reason, over := ended[inst.ID]; over && (inst.Reason != string(reason) || inst.Message != "why "+inst.ID) {
			t.Errorf("%s ended for %s %q, want %s", inst.ID, inst.Reason, inst.Message, reason)
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("the new replica knows %v, want %v", got, want)
	}
	for _, template := range []string{"", kubetest.TemplateName, "org/another", "none"} {
		if a, b := old.Instances(template), fresh.Instances(template); !slices.Equal(a, b) {
			t.Errorf("of template %q the old replica knows\n%+v\nand the new one\n%+v", template, a, b)
		}
	}
	for id := range want {
		a, _ := old.Instance(id)
		if b, known := fresh.Instance(id); a != b || !known {
			t.Errorf("of %s the old replica knows\n%+v\nand the new one\n%+v", id, a, b)
		}
	}
}

// remember notes the end of a pod that somebody else has deleted.
func (s *sandbox) remember(t testing.TB, pod *corev1.Pod, end instance.End) {
	t.Helper()
	_, err := s.remover().Remember(t.Context(), pod, end)
	noError(t, err)
}

func (s *sandbox) remover() *tombstone.Remover {
	return &tombstone.Remover{Client: s.client, Namespace: s.namespace, Now: time.Now, Log: kubetest.NoLog()}
}

// wantAlive checks that a pod is there, has a UID, and is not being deleted.
func (s *sandbox) wantAlive(t testing.TB, id string, uid types.UID) *corev1.Pod {
	t.Helper()
	pod, exists := s.pod(t, id)
	if !exists || pod.DeletionTimestamp != nil || pod.UID != uid {
		t.Fatalf("pod %s: exists %t, UID %s, deleted at %s; want UID %s, alive", instance.PodName(id), exists, pod.UID, pod.DeletionTimestamp, uid)
	}
	return pod
}

// wantTombstone checks the tombstone of an instance.
func (s *sandbox) wantTombstone(t testing.TB, id string, reason instance.EndReason, message string) *corev1.Event {
	t.Helper()
	event, exists := s.tombstone(t, id)
	if !exists || event.Reason != string(reason) || event.Message != message {
		t.Fatalf("tombstone of %s: exists %t, %s %q; want %s %q", id, exists, event.Reason, event.Message, reason, message)
	}
	return event
}

// A pod that was changed since it was read is not deleted, and gets no tombstone.
func TestIntegrationRemoverSparesWhatWasTouched(t *testing.T) {
	s := parallelSandbox(t)
	read := s.createPod(t, kubetest.ID(1))
	reader := s.startReplica(t, time.Now)
	used := time.Now().Add(time.Minute).Truncate(time.Millisecond)
	s.touch(t, kubetest.ID(1), used)

	if err := s.remover().RemoveIfUnchanged(t.Context(), read, instance.End{Reason: instance.EndCulled, Message: "not used"}); !apierrors.IsConflict(err) {
		t.Fatalf("got error %v, want a conflict", err)
	}
	pod := s.wantAlive(t, kubetest.ID(1), read.UID)
	s.wantActivity(t, kubetest.ID(1), used)
	if event, exists := s.tombstone(t, kubetest.ID(1)); exists {
		t.Errorf("a living instance has a tombstone: %s %s", event.Reason, event.Message)
	}
	if inst, _ := reader.Instance(kubetest.ID(1)); inst.Status != instance.StatusDeployed {
		t.Errorf("the instance is %s while its pod lives, want deployed", inst.Status)
	}

	// The next attempt has the present version.
	noError(t, s.remover().RemoveIfUnchanged(t.Context(), pod, instance.End{Reason: instance.EndFailed, Message: "failed"}))
	s.wantGone(t, kubetest.ID(1), instance.EndFailed)
	event := s.wantTombstone(t, kubetest.ID(1), instance.EndFailed, "failed")
	if event.Type != corev1.EventTypeWarning || event.Count != 1 {
		t.Errorf("the tombstone is of type %s, counts %d; want one Warning", event.Type, event.Count)
	}
	kubetest.Eventually(t, "the instance has the reason of the tombstone", func() bool {
		inst, _ := reader.Instance(kubetest.ID(1))
		return inst.Status == instance.StatusDeleted && inst.Reason == string(instance.EndFailed) && inst.Message == "failed"
	})
}

// A stop deletes an instance although it was used.
func TestIntegrationRemoverStopsWhatWasTouched(t *testing.T) {
	s := parallelSandbox(t)
	read := s.createPod(t, kubetest.ID(1))
	s.touch(t, kubetest.ID(1), time.Now())
	noError(t, s.remover().Remove(t.Context(), read, instance.End{Reason: instance.EndStopped, Message: "stopped by request"}))
	s.wantGone(t, kubetest.ID(1), instance.EndStopped)
	if err := s.remover().Remove(t.Context(), read, instance.End{Reason: instance.EndStopped, Message: "stopped by request"}); !apierrors.IsNotFound(err) {
		t.Errorf("the second stop got %v, want not found", err)
	}
}

// A pod that has replaced another of the same name is not deleted.
func TestIntegrationRemoverSparesAnotherPodOfTheName(t *testing.T) {
	s := parallelSandbox(t)
	remover := s.remover()
	for n, remove := range []func(context.Context, *corev1.Pod, instance.End) error{remover.Remove, remover.RemoveIfUnchanged} {
		id := kubetest.ID(n)
		read := s.createPod(t, id)
		s.deletePod(t, id)
		other := s.createPod(t, id)
		if other.UID == read.UID {
			t.Fatalf("both pods have the UID %s", other.UID)
		}
		if err := remove(t.Context(), read, instance.End{Reason: instance.EndCulled, Message: "not used"}); !apierrors.IsConflict(err) {
			t.Errorf("way %d: got error %v, want a conflict", n, err)
		}
		s.wantAlive(t, id, other.UID)
	}
}

// The API server keeps the whole tombstone without the pod, even with an unusual template
// name and the longest message.
func TestIntegrationTombstoneOutlivesThePod(t *testing.T) {
	s := parallelSandbox(t)
	name := "org/Émile's image:" + strings.Repeat("x", 200)
	pod := s.createPod(t, kubetest.ID(1), kubetest.OfTemplate(name))
	message := instance.Clip(strings.Repeat("…", 2000)) // of three bytes each
	noError(t, s.remover().RemoveIfUnchanged(t.Context(), pod, instance.End{Reason: instance.EndCulled, Message: message}))
	s.wantGone(t, kubetest.ID(1), instance.EndCulled)
	event := s.wantTombstone(t, kubetest.ID(1), instance.EndCulled, message)
	if !maps.Equal(event.Labels, pod.Labels) {
		t.Errorf("the labels are %v, want the pod's %v", event.Labels, pod.Labels)
	}
	wantEqual(t, "the template", event.Annotations[instance.TemplateNameAnnotation], name)
	want := corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: s.namespace, Name: pod.Name, UID: pod.UID}
	if event.InvolvedObject != want {
		t.Errorf("the object is %+v, want %+v", event.InvolvedObject, want)
	}
	if !event.FirstTimestamp.Equal(&pod.CreationTimestamp) || event.LastTimestamp.Before(&pod.CreationTimestamp) {
		t.Errorf("the times are %s and %s, want %s and now", event.FirstTimestamp, event.LastTimestamp, pod.CreationTimestamp)
	}
	list, err := s.client.CoreV1().Events(s.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: instance.Selector().String()})
	noError(t, err)
	if !slices.ContainsFunc(list.Items, func(e corev1.Event) bool { return e.UID == event.UID }) {
		t.Errorf("the watch's selector does not find it among %d events", len(list.Items))
	}
}

func TestIntegrationRemember(t *testing.T) {
	s := parallelSandbox(t)
	pod := s.createPod(t, kubetest.ID(1))
	remember := func(message string) {
		t.Helper()
		s.remember(t, pod, instance.End{Reason: instance.EndGone, Message: message})
	}
	remember("deleted from outside")
	s.wantTombstone(t, kubetest.ID(1), instance.EndGone, "deleted from outside")
	remember("deleted, by another leader")
	s.wantTombstone(t, kubetest.ID(1), instance.EndGone, "deleted, by another leader")

	// The reason of a delete by this service replaces that of others, and stays.
	noError(t, s.remover().RemoveIfUnchanged(t.Context(), pod, instance.End{Reason: instance.EndCulled, Message: "not used"}))
	written := s.wantTombstone(t, kubetest.ID(1), instance.EndCulled, "not used")
	remember("deleted from outside")
	if kept := s.wantTombstone(t, kubetest.ID(1), instance.EndCulled, "not used"); kept.ResourceVersion != written.ResourceVersion {
		t.Errorf("the tombstone was changed: resourceVersion %s, want %s", kept.ResourceVersion, written.ResourceVersion)
	}
}
