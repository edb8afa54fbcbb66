//go:build integration

package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/leader"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// leaseHolder returns the holder of the service's Lease.
func (s *sandbox) leaseHolder(t testing.TB) string {
	t.Helper()
	lease, err := s.client.CoordinationV1().Leases(s.namespace).Get(t.Context(), "binder-deploy-kubernetes", metav1.GetOptions{})
	noError(t, err)
	if lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

// One of two replicas leads. When it ends, the other takes over.
func TestIntegrationLeadIsHandedOver(t *testing.T) {
	s := parallelSandbox(t)
	s.putTemplate(t, kubetest.Template(kubetest.TemplateName))
	apps := []*runningApp{s.startApp(t, s.client), s.startApp(t, s.client)}
	if a, b := apps[0].config.Identity, apps[1].config.Identity; a == b {
		t.Fatalf("both replicas have the identity %s", a)
	}
	eventuallyWithin(t, kubetest.Patience, "a replica leads", func() bool { return apps[0].leads(t) || apps[1].leads(t) })
	first, second := apps[0], apps[1]
	if second.leads(t) {
		first, second = second, first
	}
	wantEqual(t, "the holder of the Lease", s.leaseHolder(t), first.config.Identity)
	second.awaitReady(t)
	// The leader culls what the other replica launched.
	culled := second.launch(t, `{"cull-timeout": 1}`)
	s.ready(t, culled, loopback(culled))
	eventuallyWithin(t, kubetest.Patience, "the leader culls", func() bool { return second.status(t, culled).Reason == string(instance.EndCulled) })
	// The tombstone is there before the delete is counted.
	eventuallyWithin(t, kubetest.Patience, "the leader has culled one", func() bool {
		return metric(t, first.metrics, "binder_culls_total", string(instance.EndCulled)) == 1
	})
	if second.leads(t) {
		t.Error("both lead")
	}

	left := second.launch(t, `{"cull-timeout": 1}`)
	s.ready(t, left, loopback(left))
	first.stop()
	if first.leads(t) {
		t.Error("the first leads after its end")
	}
	if got := s.leaseHolder(t); got == first.config.Identity {
		t.Error("the Lease was not released")
	}
	// The Lease was released, so the other need not wait until it expires.
	eventuallyWithin(t, kubetest.Patience, "the other leads", func() bool { return second.leads(t) })
	wantEqual(t, "the holder of the Lease", s.leaseHolder(t), second.config.Identity)
	eventuallyWithin(t, kubetest.Patience, "the other culls", func() bool { return second.status(t, left).Reason == string(instance.EndCulled) })
}

// A leader that is cut off from the API server stops before another begins.
func TestIntegrationCutOffLeaderStopsFirst(t *testing.T) {
	s := parallelSandbox(t)
	way, config := forward(t, s.config)
	seen := &traffic{}
	cutOff := s.startApp(t, connect(t, config, seen.wrap))
	eventuallyWithin(t, kubetest.Patience, "the first leads", func() bool { return cutOff.leads(t) })
	other := s.startApp(t, s.client)
	other.awaitReady(t)

	way.cut()
	var stopped time.Time
	eventuallyWithin(t, 2*leader.LeaseDuration, "the other leads", func() bool {
		begun := other.leads(t) // read first: if cutOff leads after that, both lead
		still := cutOff.leads(t)
		if begun && still {
			t.Fatal("both lead")
		}
		if !begun && !still && stopped.IsZero() {
			stopped = time.Now()
		}
		return begun
	})
	if stopped.IsZero() {
		t.Error("the first did not stop before the other began")
	} else {
		t.Logf("no replica led for %s", time.Since(stopped))
	}
	wantEqual(t, "readyz of the replica that is cut off", cutOff.probe(t, "/readyz"), http.StatusOK)
	// With contact again, it does not take the lead back.
	asked := seen.count(http.MethodGet, "/leases/", http.StatusOK)
	way.restore(t)
	eventuallyWithin(t, leader.LeaseDuration, "the first has read the Lease again", func() bool {
		return seen.count(http.MethodGet, "/leases/", http.StatusOK) > asked
	})
	if cutOff.leads(t) || !other.leads(t) {
		t.Error("the lead has changed")
	}
}

// watchRetry is the most time until a watch is open again after the outages of these tests. It
// takes seconds, on a machine that has nothing else to do.
const watchRetry = 30 * time.Second

// awayLimit and stalledLimit bound the time of a request that fails because the API server
// refuses connections, or does not answer.
const (
	awayLimit    = 2 * time.Second
	stalledLimit = 5 * time.Second
)

// wantAway checks that a request that needs the API server is refused within a limit, and
// that the answer says when to try again.
func (a *runningApp) wantAway(t testing.TB, method, path string, limit time.Duration) {
	t.Helper()
	began := time.Now()
	got := a.api(t, method, path, "")
	if took := time.Since(began); took > limit {
		t.Errorf("%s %s was refused after %s, want within %s", method, path, took, limit)
	}
	retry := got.header.Get("Retry-After")
	if got.code != http.StatusServiceUnavailable || retry != "5" || !strings.Contains(got.body, protocol.TypeBadKubeRequest) {
		t.Errorf("%s %s got %d, Retry-After %q, %s; want 503, 5 and %s", method, path, got.code, retry, got.body, protocol.TypeBadKubeRequest)
	}
	if strings.Contains(got.body, "127.0.0.1") || strings.Contains(got.body, instance.PodName("")) {
		t.Errorf("the answer has details of the cluster: %s", got.body)
	}
}

// wantServing checks that an instance is listed, described and reached.
func (a *runningApp) wantServing(t testing.TB, id string) {
	t.Helper()
	if status := a.status(t, id); status.Status != instance.StatusDeployed || status.Location == "" {
		t.Errorf("the instance is %+v, want deployed", status)
	}
	if got := a.visit(t, id); got.code != http.StatusOK || got.body != "a notebook" {
		t.Errorf("the instance answered %d %q", got.code, got.body)
	}
	if got := a.api(t, http.MethodGet, "/applications", ""); got.code != http.StatusOK || !strings.Contains(got.body, id) {
		t.Errorf("a list got %d %s", got.code, got.body)
	}
	for _, probe := range []string{"/readyz", "/healthz"} {
		wantEqual(t, probe, a.probe(t, probe), http.StatusOK)
	}
}

// The API server is away for longer than the lease and a cull timeout. Reads and visits
// keep working from the cache, and launches are refused. Afterwards all works again, and
// instances that were used meanwhile are not culled.
func TestIntegrationOutage(t *testing.T) {
	s := parallelSandbox(t)
	s.putTemplate(t, kubetest.Template(kubetest.TemplateName, kubetest.WithTemplateAnnotation(instance.PortAnnotation, startPage(t))))
	way, config := forward(t, s.config)
	app := s.startApp(t, connect(t, config))
	app.awaitReady(t)
	eventuallyWithin(t, kubetest.Patience, "the service leads", func() bool { return app.leads(t) })
	const timeout = 6 * time.Second // with its lag, shorter than the lease
	used, idle := app.launchServing(t, s, `{"cull-timeout": 6000}`), app.launchServing(t, s, `{"cull-timeout": 6000}`)
	removed := app.launchServing(t, s, "")
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
		t.Errorf("the deleted instance is %+v without a watch, want deployed", status)
	}
	app.wantAway(t, http.MethodGet, stop+kubetest.ID(9), instance.WatchDelay+awayLimit) // others may know it
	annotated, _ := s.pod(t, used)
	if last, err := instance.LastActivity(annotated); err != nil || time.Since(last) < timeout+(lifetime.Rules{}).Lag(timeout) {
		t.Fatalf("the annotation is only %s old, %v: the outage was too short", time.Since(last), err)
	}
	// The last visit before the culler can judge the instance.
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

// A network that loses all packets gives no error. A launch has a time limit.
func TestIntegrationStalledAPIServer(t *testing.T) {
	s := parallelSandbox(t)
	s.putTemplate(t, kubetest.Template(kubetest.TemplateName, kubetest.WithTemplateAnnotation(instance.PortAnnotation, startPage(t))))
	way, config := forward(t, s.config)
	app := s.startApp(t, connect(t, config))
	app.awaitReady(t)
	id := app.launchServing(t, s, "")
	way.stall()
	app.wantServing(t, id)
	app.wantAway(t, http.MethodPost, "/applications/"+kubetest.TemplateName, stalledLimit)
	app.wantServing(t, id)
	way.cut() // so that the service ends without a wait
}

// After a broken watch the cache has all changes of the time in between.
func TestIntegrationWatchBreaks(t *testing.T) {
	t.Parallel()
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprintf("server away %t", away), func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, nil)
			way, config := forward(t, s.config)
			behind := *s
			behind.config = config
			s.createPod(t, kubetest.ID(1))
			s.createPod(t, kubetest.ID(2))
			r := behind.startReplica(t, time.Now)
			gone := make(chan *corev1.Pod, 10)
			noError(t, r.OnInstance(func(string) {}, func(pod *corev1.Pod) { gone <- pod }))

			if away {
				way.cut()
			} else {
				way.drop()
			}
			s.deletePod(t, kubetest.ID(1))
			used := time.Now().Add(time.Minute).Truncate(time.Millisecond)
			s.touch(t, kubetest.ID(2), used)
			s.createPod(t, kubetest.ID(3))
			if away {
				way.restore(t)
			}

			eventuallyWithin(t, watchRetry, "the cache has all changes", func() bool {
				_, first := r.Pod(kubetest.ID(1))
				second, _ := r.Pod(kubetest.ID(2))
				last, err := instance.LastActivity(second)
				_, third := r.Instance(kubetest.ID(3))
				return !first && third && err == nil && last.Equal(used)
			})
			if pod := receive(t, gone); pod.Labels[instance.IDLabel] != kubetest.ID(1) {
				t.Errorf("the handler was called for pod %s", pod.Name)
			}
		})
	}
}
