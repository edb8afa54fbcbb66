//go:build integration

package main

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/contact"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/leader"
)

// flood launches as fast as the service answers, until stop is closed or there are enough
// instances. It returns the number of answers by code.
func (a *runningApp) flood(t testing.TB, most int64, stop <-chan struct{}) map[int]int {
	t.Helper()
	const clients = 24
	var clientsRunning sync.WaitGroup
	var mu sync.Mutex
	var launched atomic.Int64
	codes := map[int]int{}
	for range clients {
		clientsRunning.Go(func() {
			for launched.Load() < most {
				select {
				case <-stop:
					return
				default:
				}
				got := a.api(t, http.MethodPost, "/applications/"+kubetest.TemplateName, "")
				if got.code == http.StatusOK {
					launched.Add(1)
				}
				mu.Lock()
				codes[got.code]++
				mu.Unlock()
			}
		})
	}
	clientsRunning.Wait()
	return codes
}

// While launches flood the service, the leader keeps its Lease and culls in time. It keeps the
// Lease when their connection hangs altogether, too, and then ends nothing: this replica cannot
// write the uses that it has seen.
func TestIntegrationLeaderIsApartFromLaunches(t *testing.T) {
	s := parallelSandbox(t)
	s.putTemplate(t, kubetest.Template(kubetest.TemplateName))
	way, config := forward(t, s.config)
	k := &cluster{contact: contact.New(time.Now)}
	k.client, k.leading = connect(t, config, k.contact.Watch), connect(t, leadingConfig(s.config))
	app := s.startAppOn(t, k)
	app.awaitReady(t)
	eventuallyWithin(t, kubetest.Patience, "the service leads", func() bool { return app.leads(t) })
	var renewals []time.Duration // the time since the last one, whenever it was looked at
	look := func() {
		lease, err := s.client.CoordinationV1().Leases(s.namespace).Get(t.Context(), "binder-deploy-kubernetes", metav1.GetOptions{})
		noError(t, err)
		wantEqual(t, "changes of leader", *lease.Spec.LeaseTransitions, 0)
		renewals = append(renewals, time.Since(lease.Spec.RenewTime.Time))
	}
	culledWithin := func(limit time.Duration, id string) {
		t.Helper()
		began := time.Now()
		eventuallyWithin(t, limit, "the idle instance is culled", func() bool {
			look()
			_, exists := s.pod(t, id)
			return !exists
		})
		t.Logf("culled after %s", time.Since(began))
	}
	idle, later := app.launchServing(t, s, `{"cull-timeout": 1000}`), app.launchServing(t, s, `{"cull-timeout": 9000}`)

	stop, ended := make(chan struct{}), make(chan map[int]int)
	go func() { ended <- app.flood(t, 300, stop) }()
	culledWithin(15*time.Second, idle) // 1 s, the lag, and the hold at the start of the term
	close(stop)
	t.Logf("launches by code: %v", <-ended)

	way.stall()
	stalled := time.Now()
	loses := leader.RenewDeadline + leader.RetryPeriod // a leader that cannot renew, within that
	eventuallyWithin(t, loses+kubetest.Patience, "the time to lose the Lease has passed", func() bool {
		look()
		return time.Since(stalled) >= loses
	})
	wantEqual(t, "it leads", app.leads(t), true)
	if _, exists := s.pod(t, later); !exists {
		t.Error("the idle instance was culled, though uses could not be written")
	}
	t.Logf("the Lease was renewed every %s or sooner", slices.Max(renewals))
	if longest := slices.Max(renewals); longest > contactGap {
		t.Errorf("the Lease was not renewed for %s", longest)
	}
	way.cut() // so that the service ends without a wait
}

// A replica that is cut off is not ready, and closes its visitors' connections. It leads
// nobody to an instance that others may have ended, and after a while to none. When contact
// is back, so is all of that.
func TestIntegrationReplicaIsCutOff(t *testing.T) {
	s := parallelSandbox(t)
	s.putTemplate(t, kubetest.Template(kubetest.TemplateName, kubetest.WithTemplateAnnotation(instance.PortAnnotation, startPage(t))))
	way, config := forward(t, s.config)
	var ahead atomic.Int64 // of the clock that contact is measured with
	k := &cluster{contact: contact.New(func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })}
	k.client, k.leading = connect(t, config, k.contact.Watch), connect(t, leadingConfig(config))
	app := s.startAppOn(t, k)
	app.awaitReady(t)
	eventuallyWithin(t, kubetest.Patience, "the service leads", func() bool { return app.leads(t) })
	used, short := app.launchServing(t, s, ""), app.launchServing(t, s, `{"cull-timeout": 4000}`)
	visit := func(id string) (code int, closed bool) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, app.url(proxyServer, instance.BaseURL(id)), nil)
		res, err := http.DefaultTransport.RoundTrip(r)
		noError(t, err)
		defer res.Body.Close()
		if res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") == "" {
			t.Error("503 without Retry-After")
		}
		return res.StatusCode, res.Close
	}

	way.cut()
	eventuallyWithin(t, kubetest.Patience, "the short-lived instance is overdue", func() bool {
		inst, _ := app.cache.Instance(short)
		return time.Now().After(inst.CullAt)
	})
	app.wantServing(t, short) // no minute has passed
	ahead.Add(int64(contact.LostAfter + time.Second))
	eventuallyWithin(t, kubetest.Patience, "it is not ready, and closes connections", func() bool {
		code, closed := visit(used)
		return app.probe(t, "/readyz") == http.StatusServiceUnavailable && code == http.StatusOK && closed
	})
	if code, _ := visit(short); code != http.StatusServiceUnavailable {
		t.Errorf("an instance that may have ended answers %d", code)
	}
	wantEqual(t, "an instance that may have ended changes its replica", app.shouldChange(short, time.Now(), time.Now()), true)
	wantEqual(t, "one that is in time changes it", app.shouldChange(used, time.Now(), time.Now()), false)
	wantEqual(t, "/healthz", app.probe(t, "/healthz"), http.StatusOK)
	wantEqual(t, "the status", app.status(t, used).Status, instance.StatusDeployed)
	ahead.Add(int64(contact.StaleAfter))
	if code, _ := visit(used); code != http.StatusServiceUnavailable {
		t.Errorf("a replica that is cut off for long answers %d", code)
	}

	wantEqual(t, "after long it changes its replica", app.shouldChange(used, time.Now(), time.Now()), true)
	wantEqual(t, "one that has come back changes it", app.shouldChange(used, time.Now(), time.Now().Add(-time.Minute)), false)

	way.restore(t)
	back := time.Now()
	eventuallyWithin(t, 3*leader.RenewDeadline, "it is ready again", func() bool { return app.probe(t, "/readyz") == http.StatusOK })
	t.Logf("ready %s after contact was back", time.Since(back))
	eventuallyWithin(t, watchRetry, "it leads to the instances again", func() bool {
		first, closed := visit(used)
		second, _ := visit(short)
		return first == http.StatusOK && second == http.StatusOK && !closed
	})
	t.Logf("serving %s after contact was back", time.Since(back))
	if text := app.log.String(); strings.Count(text, "has not answered for a minute") != 1 || strings.Count(text, "answers again") != 1 {
		t.Error("the log does not tell of it once")
	}
}
