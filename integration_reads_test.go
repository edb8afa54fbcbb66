//go:build integration

package main

import (
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"

	"github.com/binder-project/binder-deploy-kubernetes/internal/proxy"
)

// No read asks the API server anything, whoever reads what, and however often.
func TestIntegrationReadsCostNothing(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, nil)
	port := startPage(t)
	pod := s.createPod(t, kubetest.ID(1), kubetest.WithAnnotation(instance.PortAnnotation, port), func(pod *corev1.Pod) { pod.Status.PodIP = "127.0.0.1" })
	s.createPod(t, kubetest.ID(2), kubetest.Unscheduled)
	if err := s.remover().Remember(t.Context(), s.createPod(t, kubetest.ID(3)), "deleted from outside"); err != nil {
		t.Fatal(err)
	}
	s.deletePod(t, kubetest.ID(3))
	s.putTemplate(t, kubetest.Template(kubetest.TemplateName))
	r := s.startReplica(t, time.Now)
	api := newTestAPI(r.Cache, r.launcher(t))
	tracker := r.tracker()
	proxy := proxy.New(proxy.Deps{
		Instances: r.Cache, Touch: tracker.Touch, IsAPIKey: protocol.NewAPIKey(testAPIKey).Opens, Log: kubetest.NoLog(),
	})

	before := len(r.traffic.all())
	if before == 0 {
		t.Fatal("not even the watches were counted")
	}
	read := func() {
		for path, code := range map[string]int{
			"/applications":                                 200,
			"/applications/" + kubetest.TemplateName:        200,
			"/applications/none":                            200,
			"/applications/jupyter/" + kubetest.ID(1):       200,
			"/applications/jupyter/" + kubetest.ID(2) + "/": 200,
			"/applications/jupyter/" + kubetest.ID(3):       200,
			"/applications/jupyter/" + kubetest.ID(4):       404, // waits for the watch
			"/applications/none/" + kubetest.ID(1):          404,
			"/none":                                         404,
		} {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				if res := ask(t, api.Routes(), method, path, testAPIKey, ""); res.Code != code {
					t.Errorf("%s %s: got %d, want %d", method, path, res.Code, code)
				}
			}
		}
		for id, code := range map[string]int{kubetest.ID(1): 200, kubetest.ID(2): 503, kubetest.ID(3): 410, kubetest.ID(4): 404} {
			if res := ask(t, proxy, http.MethodGet, instance.BaseURL(id), "", ""); res.Code != code {
				t.Errorf("visit of %s: got %d, want %d", id, res.Code, code)
			}
		}
		if res := ask(t, r.metrics.Handler(), http.MethodGet, "/metrics", "", ""); res.Code != http.StatusOK {
			t.Errorf("metrics: got %d", res.Code)
		}
	}
	var reading sync.WaitGroup
	for range 20 {
		reading.Go(read)
	}
	reading.Wait()
	if calls := r.traffic.all()[before:]; len(calls) > 0 {
		t.Errorf("the reads cost %v, want nothing", calls)
	}

	// The visits alone have left something to write, and that is counted.
	tracker.Flush(t.Context())
	calls := r.traffic.all()[before:]
	if len(calls) != 1 || calls[0].method != http.MethodPatch || calls[0].code != http.StatusOK {
		t.Errorf("the flush cost %v, want one PATCH of %s", calls, pod.Name)
	}
}

// The selectors are the API server's to apply: of all that is in a namespace,
// only what is meant reaches the cache.
func TestIntegrationWatchesSelect(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, nil)
	r := s.startReplica(t, time.Now)

	s.createPod(t, kubetest.ID(1), kubetest.WithLabel(instance.ManagedByLabel, "somebody-else"))
	s.createPod(t, kubetest.ID(2))
	for _, name := range []string{"binder-api", "binder-proxy"} {
		s.putService(t, name)
	}
	kubetest.Eventually(t, "the proxy's Service is known", func() bool { _, known := r.ProxyService(); return known })
	kubetest.Eventually(t, "the instance is known", func() bool { _, known := r.Instance(kubetest.ID(2)); return known })
	for what, got := range map[string][]string{
		"pods":     r.pods.GetStore().ListKeys(),
		"services": r.services.GetStore().ListKeys(),
	} {
		want := map[string][]string{
			"pods":     {s.namespace + "/" + instance.PodName(kubetest.ID(2))},
			"services": {s.namespace + "/binder-proxy"},
		}[what]
		if !slices.Equal(got, want) {
			t.Errorf("the cache has the %s %v, want %v", what, got, want)
		}
	}
}

// A replica that has just started answers as one that has seen it all: from the
// pods and the tombstones.
func TestIntegrationRestartForgetsNothing(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, nil)
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
		if err := s.remover().RemoveIfUnchanged(t.Context(), s.createPod(t, id), reason, "why "+id); err != nil {
			t.Fatal(err)
		}
	}
	gone := s.createPod(t, kubetest.ID(10), kubetest.OfTemplate("org/another"))
	s.deletePod(t, kubetest.ID(10))
	if err := s.remover().Remember(t.Context(), gone, "deleted from outside"); err != nil {
		t.Fatal(err)
	}
	// A delete that did not happen leaves a tombstone of what lives on.
	if err := s.remover().Remember(t.Context(), s.createPod(t, kubetest.ID(11)), "not so"); err != nil {
		t.Fatal(err)
	}
	fresh := s.startReplica(t, now)
	for n := 1; n <= 11; n++ {
		old.awaitPod(t, s, kubetest.ID(n))
		fresh.awaitPod(t, s, kubetest.ID(n))
	}
	kubetest.Eventually(t, "the older replica has the tombstones", func() bool { return len(old.tombstones.GetStore().ListKeys()) == 5 })

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
