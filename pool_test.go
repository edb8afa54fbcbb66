package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"

	"github.com/binder-project/binder-deploy-kubernetes/internal/pool"
)

// testPool is a pool on a fake API server, by a clock that a test moves.
type testPool struct {
	*pool.Pool
	server *poolServer
	clock  *atomic.Pointer[time.Time]
	lines  *poolLines
}

// poolLines is what was logged.
type poolLines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *poolLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *poolLines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), what)
}

func newTestPool(t testing.TB, templates ...*corev1.PodTemplate) *testPool {
	t.Helper()
	clock, lines := &atomic.Pointer[time.Time]{}, &poolLines{}
	clock.Store(&poolNoon)
	now := func() time.Time { return *clock.Load() }
	server := newPoolServer(now)
	for _, template := range templates {
		if err := server.client.Tracker().Add(template); err != nil {
			t.Fatal(err)
		}
	}
	cluster, read := poolCluster(t, server)
	log := slog.New(slog.NewTextHandler(lines, &slog.HandlerOptions{Level: slog.LevelDebug}))
	kept, err := pool.New(server.client.CoreV1().Pods(poolNamespace), cluster, poolStartTimeout, metrics.New("test", metricValues()), log, now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	read()
	return &testPool{kept, server, clock, lines}
}

func (p *testPool) advance(by time.Duration) {
	later := p.Now().Add(by)
	p.clock.Store(&later)
}

// run runs the pool until the test, or the function that it returns, ends it.
func (p *testPool) run(t testing.TB) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// settled passes until nothing is left to do and the watch has shown all of it.
func (p *testPool) settled(t testing.TB, states map[string]*pool.PoolState) {
	t.Helper()
	poolEventually(t, "the cache has what the server has", func() bool {
		pods := p.server.pods(t)
		for _, pod := range pods {
			if cached, ok := p.Cluster.ManagedPod(pod.Name); !ok || cached.ResourceVersion != pod.ResourceVersion {
				return false
			}
		}
		return len(p.Cluster.(*Cluster).pods.GetStore().List()) == len(pods)
	})
	p.Pass(t.Context(), states)
}

func (p *testPool) ids(t testing.TB) map[string]bool {
	t.Helper()
	ids := map[string]bool{}
	for _, pod := range p.server.pods(t) {
		ids[pod.Labels[instance.IDLabel]] = true
	}
	return ids
}

func (p *testPool) setTemplate(t testing.TB, template *corev1.PodTemplate) {
	t.Helper()
	if _, err := p.server.client.CoreV1().PodTemplates(poolNamespace).Update(t.Context(), template, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestPoolRuns goes through the life of a kept, with nothing but the watch to
// drive it: the clock stands still.
func TestPoolRuns(t *testing.T) {
	template := poolTemplate("jupyter", "3")
	kept := newTestPool(t, template, poolTemplate("other", "0"))
	kept.run(t)
	has := func(what string, want int, good func(pod *corev1.Pod) bool) {
		t.Helper()
		poolEventually(t, what, func() bool {
			pods := kept.server.pods(t)
			for i := range pods {
				if !good(&pods[i]) {
					return false
				}
			}
			return len(pods) == want
		})
	}
	ofHash := func(template *corev1.PodTemplate) func(*corev1.Pod) bool {
		return func(pod *corev1.Pod) bool {
			return pod.Labels[instance.TemplateHashLabel] == podtemplate.Hash(template)
		}
	}
	has("it is filled", 3, ofHash(template))
	first := kept.server.pods(t)[0]
	if _, used := first.Annotations[instance.LastActivityAnnotation]; used || !instance.IsWarm(&first) || instance.IsInstance(&first) {
		t.Errorf("a warm pod has labels %v and annotations %v", first.Labels, first.Annotations)
	}

	kept.server.change(t, first.Name, func(pod *corev1.Pod) { delete(pod.Labels, instance.PoolLabel) })
	has("the claimed one is replaced", 4, ofHash(template))

	changed := template.DeepCopy()
	changed.Template.Spec.Containers[0].Image = "app:2"
	kept.setTemplate(t, changed)
	claimed := func(pod *corev1.Pod) bool { return pod.Name == first.Name }
	has("warm ones are of the new version", 4, func(pod *corev1.Pod) bool { return claimed(pod) || ofHash(changed)(pod) })

	changed = changed.DeepCopy()
	changed.Annotations[instance.PoolSizeAnnotation] = "1"
	kept.setTemplate(t, changed)
	has("it is smaller", 2, func(pod *corev1.Pod) bool { return claimed(pod) || instance.IsWarm(pod) })

	if err := kept.server.client.CoreV1().PodTemplates(poolNamespace).Delete(t.Context(), "jupyter", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	has("only the claimed one outlives the template", 1, claimed)
	if created := len(kept.server.written("create")); created != 3+1+3 {
		t.Errorf("%d pods were created for it, want 7", created)
	}
}

// TestPoolCountsWhatItCreated: a pass that comes before the watch creates nothing
// twice, nor deletes one more than is too many.
func TestPoolCountsWhatItCreated(t *testing.T) {
	kept := newTestPool(t, poolTemplate("jupyter", "10"))
	states := map[string]*pool.PoolState{}
	for range 5 {
		kept.Pass(t.Context(), states)
	}
	if got := len(kept.server.written("create")); got != 10 {
		t.Fatalf("%d pods were created, want 10", got)
	}
	kept.settled(t, states)
	smaller := poolTemplate("jupyter", "4")
	kept.setTemplate(t, smaller)
	poolEventually(t, "the cache has the new size", func() bool {
		cached, ok := kept.Cluster.(*Cluster).PodTemplate("jupyter")
		return ok && cached.Annotations[instance.PoolSizeAnnotation] == "4"
	})
	for range 5 {
		kept.Pass(t.Context(), states)
	}
	if got := len(kept.server.pods(t)); got != 4 {
		t.Fatalf("%d pods are left, want 4", got)
	}
	kept.settled(t, states)
	if state := states["jupyter"]; len(state.Creating)+len(state.Deleted) != 0 {
		t.Errorf("still expected are %v and %v", state.Creating, state.Deleted)
	}
}

// TestPoolForgetsWhatNeverCame: a created pod that nobody ever sees is not
// counted for ever.
func TestPoolForgetsWhatNeverCame(t *testing.T) {
	kept := newTestPool(t, poolTemplate("jupyter", "1"))
	states := map[string]*pool.PoolState{"jupyter": {
		Creating: map[string]time.Time{"binder-lost": poolNoon},
	}}
	kept.Pass(t.Context(), states)
	if got := kept.server.written("create"); len(got) != 0 {
		t.Fatalf("created %q at once", got)
	}
	kept.advance(pool.UnseenTimeout + time.Second)
	kept.Pass(t.Context(), states)
	if got := kept.server.written("create"); len(got) != 1 {
		t.Fatalf("created %q after the timeout, want one", got)
	}
}

func TestPoolPauses(t *testing.T) {
	kept := newTestPool(t, poolTemplate("jupyter", "3"))
	states := map[string]*pool.PoolState{}
	quota := apierrors.NewForbidden(poolPods.GroupResource(), "x", errors.New("exceeded quota"))
	tries := 0
	kept.server.refusing(func(verb, _ string) error {
		if verb == "create" {
			if tries++; tries%3 != 1 { // one of three is let through, and then fails
				return quota
			}
		}
		return nil
	})
	step := func(after time.Duration, wantTries int) {
		t.Helper()
		kept.advance(after)
		kept.settled(t, states)
		if tries != wantTries {
			t.Fatalf("%s after noon: %d tries, want %d", kept.Now().Sub(poolNoon), tries, wantTries)
		}
	}
	step(0, 3)
	step(4*time.Second, 3)
	step(time.Second, 5) // of 5s: two more, of which one is let through
	step(9*time.Second, 5)
	if got := poolMetric(t, kept.Metrics, "binder_pool_failures_total", ""); got != 2 {
		t.Errorf("%v failures are counted, want 2", got)
	}
	if got := kept.lines.count("level=WARN"); got != 2 {
		t.Errorf("%d warnings, want one a pause", got)
	}
	// Another version of the template starts anew.
	changed := poolTemplate("jupyter", "3")
	changed.Template.Spec.Containers[0].Image = "app:2"
	kept.setTemplate(t, changed)
	poolEventually(t, "the cache has the new version", func() bool {
		cached, ok := kept.Cluster.(*Cluster).PodTemplate("jupyter")
		return ok && podtemplate.Hash(cached) == podtemplate.Hash(changed)
	})
	kept.server.refusing(nil)
	step(0, 5)
	if got := len(kept.server.pods(t)); got != 3 {
		t.Errorf("there are %d pods, want 3", got)
	}
}

// TestPoolReplacesFailed: and leaves no tombstone, for nobody knew it.
func TestPoolReplacesFailed(t *testing.T) {
	kept := newTestPool(t, poolTemplate("jupyter", "1"))
	states := map[string]*pool.PoolState{}
	kept.settled(t, states)
	first := kept.server.pods(t)[0].Name
	kept.server.change(t, first, func(pod *corev1.Pod) { pod.Status.Phase = corev1.PodFailed })
	kept.settled(t, states)
	kept.settled(t, states)
	if got := kept.server.written("delete"); len(got) != 1 || got[0] != first {
		t.Fatalf("deleted %q, want the failed one", got)
	}
	if got := len(kept.server.pods(t)); got != 0 {
		t.Fatalf("there are %d pods during the pause", got)
	}
	kept.advance(pool.FirstPause)
	kept.settled(t, states)
	if got := len(kept.server.pods(t)); got != 1 {
		t.Errorf("there are %d pods after the pause, want 1", got)
	}
	for _, action := range kept.server.client.Actions() {
		if action.GetResource().Resource == "events" && action.GetVerb() != "list" && action.GetVerb() != "watch" {
			t.Errorf("%s of an event", action.GetVerb())
		}
	}
}

// TestPoolSparesTheClaimed: one that was claimed since it was looked at lives.
func TestPoolSparesTheClaimed(t *testing.T) {
	kept := newTestPool(t, poolTemplate("jupyter", "1"))
	states := map[string]*pool.PoolState{}
	kept.settled(t, states)
	pod, err := kept.server.get(kept.server.pods(t)[0].Name)
	if err != nil {
		t.Fatal(err)
	}
	kept.server.change(t, pod.Name, func(pod *corev1.Pod) { delete(pod.Labels, instance.PoolLabel) })
	kept.Remove(t.Context(), pool.PoolRemoval{pod, pool.RemoveSurplus}, states["jupyter"])
	if got := kept.server.written("delete"); len(got) != 0 {
		t.Errorf("deleted %q", got)
	}
	if got := states["jupyter"].Deleted; len(got) != 0 {
		t.Errorf("taken for deleted are %v", got)
	}
}

func TestPoolWarnsOnce(t *testing.T) {
	bad := poolTemplate("jupyter", "two")
	kept := newTestPool(t, bad)
	states := map[string]*pool.PoolState{}
	for range 3 {
		kept.Pass(t.Context(), states)
	}
	if got := kept.lines.count("has no warm pool"); got != 1 {
		t.Errorf("%d warnings, want 1", got)
	}
	if got := kept.server.written("create"); len(got) != 0 {
		t.Errorf("created %q", got)
	}
}

// TestPoolOfABadTemplate: what cannot be built is a failure as any other.
func TestPoolOfABadTemplate(t *testing.T) {
	bad := poolTemplate("jupyter", "2")
	bad.Annotations[instance.PortAnnotation] = "http"
	kept := newTestPool(t, bad)
	states := map[string]*pool.PoolState{}
	for range 3 {
		kept.Pass(t.Context(), states)
	}
	if got := kept.lines.count("warm pods fail"); got != 1 {
		t.Errorf("%d warnings, want 1", got)
	}
}

// TestPoolWhileTheServerIsAway: it is tried again every few seconds, with pauses
// that do not grow, for it is not the template's fault.
func TestPoolWhileTheServerIsAway(t *testing.T) {
	for _, away := range []string{"create", "delete"} {
		t.Run(away, func(t *testing.T) {
			kept := newTestPool(t, poolTemplate("jupyter", "1"))
			states := map[string]*pool.PoolState{}
			if away == "delete" {
				kept.settled(t, states)
				kept.advance(poolStartTimeout) // in which it has not become ready
			}
			tries := 0
			kept.server.refusing(func(verb, _ string) error {
				if verb == away {
					tries++
					return errors.New("the API server is away")
				}
				return nil
			})
			for outage := 1; outage < 10; outage++ {
				for range 3 {
					kept.settled(t, states)
				}
				if lines := kept.lines.count("level=ERROR"); tries != outage || lines != outage {
					t.Fatalf("after %d pauses: %d tries, %d lines", outage-1, tries, lines)
				}
				kept.advance(pool.FirstPause)
			}
			kept.server.refusing(nil)
			kept.settled(t, states)
			if got := len(kept.server.written(away)); got != 1 {
				t.Errorf("%d writes once the server is back, want 1", got)
			}
		})
	}
}

// TestPoolForgetsTemplates: nothing is kept of those that are gone.
func TestPoolForgetsTemplates(t *testing.T) {
	kept := newTestPool(t, poolTemplate("jupyter", "1"))
	states := map[string]*pool.PoolState{}
	kept.settled(t, states)
	if err := kept.server.client.CoreV1().PodTemplates(poolNamespace).Delete(t.Context(), "jupyter", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	poolEventually(t, "the state is dropped", func() bool {
		kept.settled(t, states)
		return len(states) == 0
	})
	if got := kept.ids(t); len(got) != 0 {
		t.Errorf("left are %v", got)
	}
}

// TestPoolStopsWithTheLead: Run returns, and nothing of it is running.
func TestPoolStopsWithTheLead(t *testing.T) {
	kept := newTestPool(t, poolTemplate("jupyter", "2"))
	stop := kept.run(t)
	poolEventually(t, "it is filled", func() bool { return len(kept.server.pods(t)) == 2 })
	stop()
	for name := range kept.ids(t) {
		kept.server.change(t, instance.PodName(name), func(pod *corev1.Pod) { delete(pod.Labels, instance.PoolLabel) })
	}
	poolEventually(t, "the cache knows of the claims", func() bool { return len(kept.Cluster.WarmPods("jupyter")) == 0 })
	if got := len(kept.server.pods(t)); got != 2 {
		t.Errorf("there are %d pods, want 2", got)
	}
}

// TestPoolLeavesOutTheDeleted: one that was deleted counts no longer, though the
// watch has not shown that yet; afterwards nothing is kept of it.
func TestPoolLeavesOutTheDeleted(t *testing.T) {
	template := poolTemplate("jupyter", "2")
	kept := newTestPool(t, template)
	states := map[string]*pool.PoolState{}
	kept.settled(t, states)
	kept.settled(t, states)
	state := states["jupyter"]
	gone := kept.server.pods(t)[0]
	state.Deleted[gone.UID] = gone.Name
	view := kept.View(t.Context(), "jupyter", template, state, poolNoon)
	if len(view.Pods) != 1 || view.Pods[0].Name == gone.Name {
		t.Errorf("counted are %d pods, want the other one", len(view.Pods))
	}
	kept.server.change(t, gone.Name, poolDeleting)
	kept.settled(t, states)
	if len(state.Deleted) != 0 {
		t.Errorf("still kept are %v", state.Deleted)
	}
}
