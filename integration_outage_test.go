//go:build integration

package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// watchRetry is how long client-go may wait until it opens a broken watch again,
// after an outage of the length that these tests have: its delays double, from
// one second or so.
const watchRetry = time.Minute

// awayLimit and stalledLimit are how long a launch may take to be refused, where
// the API server refuses connections and where it does not answer at all.
const (
	awayLimit    = 2 * time.Second
	stalledLimit = 5 * time.Second
)

// wantAway checks that a request that needs the API server is refused, with when
// to try again, and within a limit.
func (a *runningApp) wantAway(t testing.TB, method, path string, limit time.Duration) {
	t.Helper()
	began := time.Now()
	code, header, answer := a.api(t, method, path, "")
	if took := time.Since(began); took > limit {
		t.Errorf("%s %s was refused after %s, want within %s", method, path, took, limit)
	}
	if code != http.StatusServiceUnavailable || header.Get("Retry-After") != "5" || !strings.Contains(answer, protocol.TypeBadKubeRequest) {
		t.Errorf("%s %s got %d, Retry-After %q, %s; want 503, 5 and %s", method, path, code, header.Get("Retry-After"), answer, protocol.TypeBadKubeRequest)
	}
	if strings.Contains(answer, "127.0.0.1") || strings.Contains(answer, instance.PodName("")) {
		t.Errorf("the answer tells how the cluster is made: %s", answer)
	}
}

// wantServing checks that an instance is shown and reached as before.
func (a *runningApp) wantServing(t testing.TB, id string) {
	t.Helper()
	if status := a.status(t, id); status.Status != instance.StatusDeployed || status.Location == "" {
		t.Errorf("the instance is %+v, want deployed", status)
	}
	if code, page := a.visit(t, id); code != http.StatusOK || page != "a notebook" {
		t.Errorf("the instance answered %d %q", code, page)
	}
	if code, _, answer := a.api(t, http.MethodGet, "/applications", ""); code != http.StatusOK || !strings.Contains(answer, id) {
		t.Errorf("a list got %d %s", code, answer)
	}
	for _, probe := range []string{"/readyz", "/healthz"} {
		if code := a.probe(t, probe); code != http.StatusOK {
			t.Errorf("%s is %d", probe, code)
		}
	}
}

// The API server is away until the lead is lost, and for longer than a cull
// timeout: what is read and visited goes on from the cache, launches are refused
// at once, and when it is back, all works again, and what was used meanwhile is
// not taken for idle.
func TestIntegrationOutage(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, nil)
	s.putTemplate(t, kubetest.Template(kubetest.TemplateName, kubetest.WithTemplateAnnotation(instance.PortAnnotation, startPage(t))))
	way, config := forward(t, s.config)
	app := s.startApp(t, connect(t, config))
	app.awaitReady(t)
	eventuallyWithin(t, kubetest.Patience, "the service leads", func() bool { return app.leads(t) })
	const timeout = 6 * time.Second // with its lag, less than it takes to lose the lead
	used, idle := app.launch(t, `{"cull-timeout": 6000}`), app.launch(t, `{"cull-timeout": 6000}`)
	removed := app.launch(t, "")
	for _, id := range []string{used, idle, removed} {
		s.ready(t, id, "127.0.0.1")
		app.awaitStatus(t, id, instance.StatusDeployed)
	}
	before, _ := s.pod(t, used)

	way.cut()
	cut := time.Now()
	const launch, stop = "/applications/" + kubetest.TemplateName, "/applications/" + kubetest.TemplateName + "/"
	app.wantAway(t, http.MethodPost, launch, awayLimit)
	app.wantAway(t, http.MethodDelete, stop+idle, awayLimit)
	s.deletePod(t, removed)
	eventuallyWithin(t, 20*time.Second, "the lead is lost", func() bool {
		app.wantServing(t, used)
		return !app.leads(t)
	})
	app.wantAway(t, http.MethodPost, launch, awayLimit)
	if status := app.status(t, removed); status.Status != instance.StatusDeployed {
		t.Errorf("what nobody can know to be gone is %+v", status)
	}
	annotated, _ := s.pod(t, used)
	if last, err := instance.LastActivity(annotated); err != nil || time.Since(last) < timeout+lifetime.Lag(timeout) {
		t.Fatalf("the annotation is only %s old, %v: the outage was too short to mean anything", time.Since(last), err)
	}
	// Only one visit from here until the culler might judge it.
	app.wantServing(t, used)

	way.restore(t)
	t.Logf("the API server was away for %s", time.Since(cut))
	back := time.Now()
	launched := app.launch(t, "")
	eventuallyWithin(t, 15*time.Second, "the service leads again", func() bool { return app.leads(t) })
	eventuallyWithin(t, watchRetry, "the watches have resumed", func() bool {
		app.visit(t, used)
		return app.status(t, launched).Status == instance.StatusPending && app.status(t, removed).Status != instance.StatusDeployed
	})
	t.Logf("the watches resumed after %s", time.Since(back))
	eventuallyWithin(t, kubetest.Patience, "the idle instance is culled", func() bool {
		app.visit(t, used)
		return app.status(t, idle).Reason == string(instance.EndCulled)
	})
	app.wantServing(t, used)
	s.wantAlive(t, used, before.UID)
	eventuallyWithin(t, kubetest.Patience, "the use is written", func() bool {
		pod, _ := s.pod(t, used)
		last, err := instance.LastActivity(pod)
		return err == nil && last.After(back)
	})
}

// Where the network swallows everything, nothing says that the API server is
// away: a launch has a limit of its own.
func TestIntegrationStalledAPIServer(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, nil)
	s.putTemplate(t, kubetest.Template(kubetest.TemplateName, kubetest.WithTemplateAnnotation(instance.PortAnnotation, startPage(t))))
	way, config := forward(t, s.config)
	app := s.startApp(t, connect(t, config))
	app.awaitReady(t)
	id := app.launch(t, "")
	s.ready(t, id, "127.0.0.1")
	app.awaitStatus(t, id, instance.StatusDeployed)

	way.stall()
	app.wantServing(t, id)
	app.wantAway(t, http.MethodPost, "/applications/"+kubetest.TemplateName, stalledLimit)
	app.wantServing(t, id)
	way.cut() // so that the end of the service need not wait as well
}

// A watch that breaks goes on where it was: nothing that happened in between is
// missed, neither what came nor what went.
func TestIntegrationWatchBreaks(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name         string
		breaks, mend func(t testing.TB, way *forwarder)
	}{
		{"connections end", func(_ testing.TB, way *forwarder) { way.drop() }, func(testing.TB, *forwarder) {}},
		{"the server is away", func(_ testing.TB, way *forwarder) { way.cut() }, func(t testing.TB, way *forwarder) { way.restore(t) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, nil)
			way, config := forward(t, s.config)
			away := *s
			away.config = config
			s.createPod(t, kubetest.ID(1))
			s.createPod(t, kubetest.ID(2))
			r := away.startReplica(t, time.Now)
			gone := make(chan *corev1.Pod, 10)
			if err := r.OnPod(func(*corev1.Pod) {}, func(pod *corev1.Pod) { gone <- pod }); err != nil {
				t.Fatal(err)
			}

			row.breaks(t, way)
			s.deletePod(t, kubetest.ID(1))
			used := time.Now().Add(time.Minute).Truncate(time.Millisecond)
			s.touch(t, kubetest.ID(2), used)
			s.createPod(t, kubetest.ID(3))
			row.mend(t, way)

			eventuallyWithin(t, watchRetry, "the cache has what happened", func() bool {
				_, first := r.Pod(kubetest.ID(1))
				second, _ := r.Pod(kubetest.ID(2))
				last, err := instance.LastActivity(second)
				_, third := r.Instance(kubetest.ID(3))
				return !first && third && err == nil && last.Equal(used)
			})
			if pod := receive(t, gone); pod.Labels[instance.IDLabel] != kubetest.ID(1) {
				t.Errorf("pod %s is said to be gone", pod.Name)
			}
		})
	}
}
