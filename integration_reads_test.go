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
)

// No read asks the API server anything, whoever reads what, and however often.
func TestIntegrationReadsCostNothing(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, nil)
	port := startPage(t)
	pod := s.createPod(t, instanceID(1), withAnnotation(instance.PortAnnotation, port), func(pod *corev1.Pod) { pod.Status.PodIP = "127.0.0.1" })
	s.createPod(t, instanceID(2), unscheduled)
	if err := s.remover().remember(t.Context(), s.createPod(t, instanceID(3)), "deleted from outside"); err != nil {
		t.Fatal(err)
	}
	s.deletePod(t, instanceID(3))
	s.putTemplate(t, newTemplate(testTemplate))
	r := s.startReplica(t, time.Now)
	api := newTestAPI(r.Cluster, r.launcher(t))
	activity := r.activity()
	proxy := NewProxy(r.Cluster, activity.Touch, newAPIKey(testAPIKey), noLog())

	before := len(r.traffic.all())
	if before == 0 {
		t.Fatal("not even the watches were counted")
	}
	read := func() {
		for path, code := range map[string]int{
			"/applications":                                200,
			"/applications/" + testTemplate:                200,
			"/applications/none":                           200,
			"/applications/jupyter/" + instanceID(1):       200,
			"/applications/jupyter/" + instanceID(2) + "/": 200,
			"/applications/jupyter/" + instanceID(3):       200,
			"/applications/jupyter/" + instanceID(4):       404, // waits for the watch
			"/applications/none/" + instanceID(1):          404,
			"/none":                                        404,
		} {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				if res := ask(t, api.Routes(), method, path, testAPIKey, ""); res.Code != code {
					t.Errorf("%s %s: got %d, want %d", method, path, res.Code, code)
				}
			}
		}
		for id, code := range map[string]int{instanceID(1): 200, instanceID(2): 503, instanceID(3): 410, instanceID(4): 404} {
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
	activity.Flush(t.Context())
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

	s.createPod(t, instanceID(1), withLabel(instance.ManagedByLabel, "somebody-else"))
	s.createPod(t, instanceID(2))
	for _, name := range []string{"binder-api", "binder-proxy"} {
		s.putService(t, name)
	}
	eventually(t, "the proxy's Service is known", func() bool { _, known := r.ProxyService(); return known })
	eventually(t, "the instance is known", func() bool { _, known := r.Instance(instanceID(2)); return known })
	for what, got := range map[string][]string{
		"pods":     r.pods.GetStore().ListKeys(),
		"services": r.services.GetStore().ListKeys(),
	} {
		want := map[string][]string{
			"pods":     {s.namespace + "/" + instance.PodName(instanceID(2))},
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
	now := clockAt(time.Now().Add(time.Minute))
	old := s.startReplica(t, now)

	s.createPod(t, instanceID(1))
	s.createPod(t, instanceID(2), unscheduled)
	s.createPod(t, instanceID(3), waits("ImagePullBackOff", "manifest unknown"))
	s.createPod(t, instanceID(4), broken)
	s.createPod(t, instanceID(5), ofTemplate("org/another"), withAnnotation(instance.StripPrefixAnnotation, "true"))
	s.createPod(t, instanceID(6), withAnnotation(instance.LastActivityAnnotation, "yesterday"))
	ended := map[string]instance.EndReason{instanceID(7): instance.EndCulled, instanceID(8): instance.EndStopped, instanceID(9): instance.EndFailed}
	for id, reason := range ended {
		if err := s.remover().remove(t.Context(), s.createPod(t, id), reason, "why "+id, true); err != nil {
			t.Fatal(err)
		}
	}
	gone := s.createPod(t, instanceID(10), ofTemplate("org/another"))
	s.deletePod(t, instanceID(10))
	if err := s.remover().remember(t.Context(), gone, "deleted from outside"); err != nil {
		t.Fatal(err)
	}
	// A delete that did not happen leaves a tombstone of what lives on.
	if err := s.remover().remember(t.Context(), s.createPod(t, instanceID(11)), "not so"); err != nil {
		t.Fatal(err)
	}
	fresh := s.startReplica(t, now)
	for n := 1; n <= 11; n++ {
		old.awaitPod(t, s, instanceID(n))
		fresh.awaitPod(t, s, instanceID(n))
	}
	eventually(t, "the older replica has the tombstones", func() bool { return len(old.tombstones.GetStore().ListKeys()) == 5 })

	want := map[string]instance.Status{
		instanceID(1): instance.StatusDeployed, instanceID(2): instance.StatusPending, instanceID(3): instance.StatusFailed, instanceID(4): instance.StatusFailed,
		instanceID(5): instance.StatusDeployed, instanceID(6): instance.StatusDeployed, instanceID(7): instance.StatusDeleted, instanceID(8): instance.StatusDeleted,
		instanceID(9): instance.StatusDeleted, instanceID(10): instance.StatusDeleted, instanceID(11): instance.StatusDeployed,
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
	for _, template := range []string{"", testTemplate, "org/another", "none"} {
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
