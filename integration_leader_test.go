//go:build integration

package main

import (
	"net/http"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/leader"
)

// leaseHolder is who the Lease says leads.
func (s *sandbox) leaseHolder(t testing.TB) string {
	t.Helper()
	lease, err := s.client.CoordinationV1().Leases(s.namespace).Get(t.Context(), "binder-deploy-kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

// One of two replicas leads, and the other goes on where it ends.
func TestIntegrationLeadIsHandedOver(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, nil)
	s.putTemplate(t, kubetest.Template(kubetest.TemplateName))
	apps := []*runningApp{s.startApp(t, s.client), s.startApp(t, s.client)}
	if a, b := apps[0].config.Identity, apps[1].config.Identity; a == b {
		t.Fatalf("both replicas are called %s", a)
	}
	eventuallyWithin(t, kubetest.Patience, "one leads", func() bool { return apps[0].leads(t) || apps[1].leads(t) })
	first, second := apps[0], apps[1]
	if second.leads(t) {
		first, second = second, first
	}
	if got := s.leaseHolder(t); got != first.config.Identity {
		t.Errorf("the Lease is held by %q, want %q", got, first.config.Identity)
	}
	second.awaitReady(t)
	// Whoever leads, both launch, and the leader culls what the other launched.
	culled := second.launch(t, `{"cull-timeout": 1}`)
	s.ready(t, culled, "127.0.0.1")
	eventuallyWithin(t, kubetest.Patience, "the leader culls", func() bool { return second.status(t, culled).Reason == string(instance.EndCulled) })
	// The tombstone is there before the leader has heard of the delete.
	eventuallyWithin(t, kubetest.Patience, "the leader has culled one", func() bool {
		return metric(t, first.metrics, "binder_culls_total", string(instance.EndCulled)) == 1
	})
	if second.leads(t) {
		t.Error("both lead")
	}

	left := second.launch(t, `{"cull-timeout": 1}`)
	s.ready(t, left, "127.0.0.1")
	first.stop()
	if first.leads(t) {
		t.Error("it leads after its end")
	}
	if got := s.leaseHolder(t); got == first.config.Identity {
		t.Error("the Lease was not given back")
	}
	// At the other's next try, and not only when the Lease has run out.
	eventuallyWithin(t, kubetest.Patience, "the other leads", func() bool { return second.leads(t) })
	if got := s.leaseHolder(t); got != second.config.Identity {
		t.Errorf("the Lease is held by %q, want %q", got, second.config.Identity)
	}
	eventuallyWithin(t, kubetest.Patience, "the other culls", func() bool { return second.status(t, left).Reason == string(instance.EndCulled) })
}

// A leader that is cut off stops before another begins.
func TestIntegrationCutOffLeaderStopsFirst(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, nil)
	way, config := forward(t, s.config)
	seen := &traffic{}
	cutOff := s.startApp(t, connect(t, config, seen.wrap))
	eventuallyWithin(t, kubetest.Patience, "the first leads", func() bool { return cutOff.leads(t) })
	other := s.startApp(t, s.client)
	other.awaitReady(t)

	way.cut()
	var stopped time.Time
	eventuallyWithin(t, 2*leader.LeaseDuration, "the other leads", func() bool {
		begun := other.leads(t) // asked first: if the first still leads then, both do
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
		t.Error("the first was not seen to stop before the other began")
	} else {
		t.Logf("nobody led for %s", time.Since(stopped))
	}
	if code := cutOff.probe(t, "/readyz"); code != http.StatusOK {
		t.Errorf("who is cut off is no longer ready: %d", code)
	}
	// Back again, it does not take the lead away.
	asked := seen.count(http.MethodGet, "/leases/", http.StatusOK)
	way.restore(t)
	eventuallyWithin(t, leader.LeaseDuration, "the first has looked at the Lease again", func() bool {
		return seen.count(http.MethodGet, "/leases/", http.StatusOK) > asked
	})
	if cutOff.leads(t) || !other.leads(t) {
		t.Error("the lead has changed")
	}
}
