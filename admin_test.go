package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/binder-project/binder-deploy-kubernetes/internal/admin"
	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/preload"
)

// adminAPI returns an API whose state is that of a read model.
func adminAPI(t testing.TB, c *Cache, limits admission.Limits, preloads TemplatePreloader) *API {
	t.Helper()
	api := newTestAPI(c, &fakeLauncher{})
	api.Admin = admin.New(admin.Deps{
		Opens: api.Keys.Opens, Draining: api.Draining,
		State: func(ctx context.Context) admin.State { return c.adminState(ctx, limits, preloads) },
	})
	return api
}

func TestAdminState(t *testing.T) {
	at := func(n int) time.Time { return kubetest.Noon.Add(time.Duration(n) * time.Second) }
	c := startCache(t, kubetest.ClockAt(at(9)),
		kubetest.Template("jupyter", kubetest.WithTemplateAnnotation(instance.PoolSizeAnnotation, "3"), kubetest.WithTemplateAnnotation(instance.MaxInstancesAnnotation, "5")),
		kubetest.Template("paused", kubetest.WithTemplateAnnotation(instance.MaxInstancesAnnotation, "0")),
		kubetest.Pod(kubetest.ID(2), at(2), kubetest.Starting),
		kubetest.Pod(kubetest.ID(1), at(1), kubetest.WithAnnotation(instance.ActivitySourceAnnotation, "http")),
		kubetest.Pod(kubetest.ID(3), at(3), kubetest.OfTemplate("r/studio"), kubetest.StartingWith("InvalidImageName", "bad")),
		kubetest.Pod(kubetest.ID(4), at(4), warm), kubetest.Pod(kubetest.ID(7), at(4), warm, kubetest.Starting),
		kubetest.Pod(kubetest.ID(6), at(5), kubetest.Deleting),
		kubetest.Tombstone(kubetest.Pod(kubetest.ID(5), at(5)), instance.EndCulled, "idle for 1h0m0s"),
		&corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Name: "instances", Namespace: kubetest.Namespace},
			Status: corev1.ResourceQuotaStatus{
				Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("8"), corev1.ResourceLimitsMemory: resource.MustParse("0")},
				Used: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("6")},
			},
		})
	kubetest.Eventually(t, "the quota is known", func() bool { return len(c.Quotas()) == 1 })
	api := adminAPI(t, c.Cache, admission.Limits{MaxInstances: 4, Paused: true}, &fakePreloader{})
	wantJSON(t, ask(api.Routes(), "GET", "/admin/state/", "", withKey...), fmt.Sprintf(`{
		"launches-paused": true,
		"limits": [
			{"source": "--max-instances", "resource": "instances", "used": "2", "hard": "4", "share": 0.5},
			{"source": "instances", "resource": "limits.memory", "used": "0", "hard": "0", "share": 1},
			{"source": "instances", "resource": "pods", "used": "6", "hard": "8", "share": 0.75}
		],
		"templates": [
			{"name": "jupyter", "in-cluster": true, "max-instances": 5, "pending": 0, "deploying": 1, "deployed": 1, "failed": 0,
				"pool": {"size": 3, "ready": 1, "starting": 1}, "instances": [
				{"id": %q, "pod": %q, "status": "deployed", "launched": "2026-01-02T12:00:01.000Z",
					"last-activity": "2026-01-02T12:00:01.000Z", "last-activity-source": "http", "cull-at": "2026-01-02T13:05:03.000Z"},
				{"id": %q, "pod": %q, "status": "deploying", "message": "Preparing the pod on its node.", "launched": "2026-01-02T12:00:02.000Z",
					"last-activity": "2026-01-02T12:00:02.000Z", "cull-at": "2026-01-02T13:10:04.000Z"}]},
			{"name": "paused", "in-cluster": true, "max-instances": 0, "pending": 0, "deploying": 0, "deployed": 0, "failed": 0,
				"pool": {"size": 0, "ready": 0, "starting": 0}, "instances": []},
			{"name": "r/studio", "in-cluster": false, "pending": 0, "deploying": 0, "deployed": 0, "failed": 1,
				"pool": {"size": 0, "ready": 0, "starting": 0}, "instances": [
				{"id": %q, "pod": %q, "status": "failed", "reason": "InvalidImageName", "launched": "2026-01-02T12:00:03.000Z", "detail": "InvalidImageName: bad",
					"message": "The image's name is not valid: jupyter:1. Launching again will not help: tell the author of the template."}]}
		]}`,
		kubetest.ID(1), instance.PodName(kubetest.ID(1)), kubetest.ID(2), instance.PodName(kubetest.ID(2)), kubetest.ID(3), instance.PodName(kubetest.ID(3))))
	wantMetrics(t, api.Metrics, "binder_http_requests_total",
		`binder_http_requests_total{code="200",method="get",route="/admin/state",server="api"} 1`)
}

// A state without anything has empty lists, and a preload that cannot be read is left out.
func TestAdminStateOfPreloads(t *testing.T) {
	empty := adminAPI(t, startCache(t, time.Now).Cache, admission.Limits{}, &fakePreloader{})
	wantJSON(t, ask(empty.Routes(), "GET", "/admin/state", "", withKey...), `{"launches-paused": false, "limits": [], "templates": []}`)

	c := startCache(t, time.Now, kubetest.Template("jupyter"))
	p, err := preload.New(preload.Deps{
		DaemonSets: c.Client.AppsV1().DaemonSets(kubetest.Namespace), Cache: c.Cache, Templates: c.Cache,
		Namespace: kubetest.Namespace, HelperImage: "pause:1", Queues: newTestMetrics().Queues(), Log: kubetest.NoLog(), Now: time.Now,
	})
	noError(t, err)
	_, err = p.Preload(t.Context(), "jupyter")
	noError(t, err)
	kubetest.Eventually(t, "the cache has the preload", func() bool {
		_, known, err := p.Status(t.Context(), "jupyter")
		return known && err == nil
	})
	for _, row := range []struct {
		preloads TemplatePreloader
		want     bool
	}{{p, true}, {&fakePreloader{err: errors.New("the registry is away")}, false}} {
		state := c.adminState(t.Context(), admission.Limits{}, row.preloads)
		if len(state.Templates) != 1 || (state.Templates[0].Preload != nil) != row.want {
			t.Fatalf("got %+v, want a preload: %t", state, row.want)
		}
		if row.want {
			wantEqual(t, "the preload's status", state.Templates[0].Preload.Status, preload.Loading)
		}
	}
}

// However many instances there are, a state has a bounded number, and counts them all.
func TestAdminStateIsBounded(t *testing.T) {
	var objects []runtime.Object
	for n := range 250 {
		objects = append(objects, kubetest.Pod(kubetest.ID(n+1), kubetest.Noon.Add(time.Duration(n)*time.Second)))
	}
	c := startCache(t, kubetest.ClockAt(kubetest.Noon.Add(time.Hour/2)), objects...)
	state := c.adminState(t.Context(), admission.Limits{}, &fakePreloader{})
	jupyter := state.Templates[0]
	if len(jupyter.Instances) != 200 || jupyter.Deployed != 250 || jupyter.Instances[0].ID != kubetest.ID(1) {
		t.Errorf("%d of %d instances are there, from %s on; want the oldest 200 of 250", len(jupyter.Instances), jupyter.Deployed, jupyter.Instances[0].ID)
	}
	for templates, want := range map[int]int{0: 200, 1: 200, 5: 200, 10: 100, 100: 10, 5000: 10} {
		wantEqual(t, fmt.Sprint("rows of each of ", templates), admin.RowsPerTemplate(templates), want)
	}
}

// No other origin's page reads the admin page or what it shows, not even an allowed one.
func TestAdminIsNotShared(t *testing.T) {
	const origin = "https://hub.example"
	for _, allowed := range []string{origin, "*"} {
		api := adminAPI(t, startCache(t, time.Now).Cache, admission.Limits{}, &fakePreloader{})
		api.AllowOrigins = []string{allowed}
		for _, path := range []string{"/admin", "/admin/", "/admin/state", "/%61dmin/state", "/admin/other"} {
			for _, method := range []string{"GET", "OPTIONS"} {
				res := ask(api.Routes(), method, path, "", append([]string{"Origin", origin, "Access-Control-Request-Method", "GET"}, withKey...)...)
				for name := range res.Header() {
					if strings.HasPrefix(name, "Access-Control-") {
						t.Errorf("%s %s with %s allowed has %s", method, path, allowed, name)
					}
				}
			}
		}
		res := ask(api.Routes(), "GET", "/applications", "", append([]string{"Origin", origin}, withKey...)...)
		wantEqual(t, "the allowed origin of the API", res.Header().Get("Access-Control-Allow-Origin"), allowed)
	}
}

// A stream sends the state, and each change within a second. It ends with the key, and with
// the server.
func TestAdminStream(t *testing.T) {
	for _, how := range []string{"a new key", "draining"} {
		synctest.Test(t, func(t *testing.T) {
			c := newTestCache(t, kubetest.NewServer(time.Now))
			api := newTestAPI(c.Cache, &fakeLauncher{})
			draining, drain := context.WithCancel(t.Context())
			var revoked atomic.Bool
			api.Admin = admin.New(admin.Deps{
				Opens: func(header string) bool { return !revoked.Load() && api.Keys.Opens(header) }, Draining: draining,
				State: func(ctx context.Context) admin.State {
					return c.adminState(ctx, admission.Limits{}, &fakePreloader{})
				},
			})
			noError(t, c.onAdminState(api.Admin.Changed))
			runUntilEnd(t, c.Cache.Run)
			kubetest.Eventually(t, "the caches have synced", c.Synced)
			listener := newPipeListener()
			server := newServer("api", listener, api.Routes(), shortRequests(), kubetest.NoLog())
			go func() { _ = server.serve() }()
			defer server.shutdown(time.Second)
			transport := listener.transport(t)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://binder.example/admin/state", nil)
			noError(t, err)
			r.Header.Set("Accept", "text/event-stream")
			r.Header.Set("Authorization", testAPIKey)
			res, err := transport.RoundTrip(r)
			noError(t, err)
			defer res.Body.Close()
			wantEqual(t, "Content-Type", res.Header.Get("Content-Type"), "text/event-stream")
			lines := bufio.NewScanner(res.Body)
			next := func() (statuses []string, ok bool) { // of the instances
				for lines.Scan() {
					data, is := strings.CutPrefix(lines.Text(), "data: ")
					if !is {
						continue
					}
					var state admin.State
					noError(t, json.Unmarshal([]byte(data), &state))
					for _, template := range state.Templates {
						for _, inst := range template.Instances {
							statuses = append(statuses, string(inst.Status))
						}
					}
					return statuses, true
				}
				return nil, false
			}
			want := func(when, want string) {
				t.Helper()
				if got, ok := next(); !ok || strings.Join(got, ",") != want {
					t.Errorf("%s: got %q, %t, want %q", when, got, ok, want)
				}
			}
			want("at first", "")
			for _, step := range []struct {
				what string
				do   func()
				want string
			}{
				{"launched", func() { c.PutPod(t, kubetest.Pod(kubetest.ID(1), time.Now(), kubetest.Starting)) }, "deploying"},
				{"ready", func() { c.PutPod(t, kubetest.Pod(kubetest.ID(1), time.Now())) }, "deployed"},
				{"its delete is accepted", func() { c.Wrote(kubetest.Pod(kubetest.ID(1), time.Now(), kubetest.Deleting)) }, ""},
			} {
				const later = 3 * time.Minute // the server's time limits do not end the stream
				changes := time.Now().Add(later)
				time.AfterFunc(later, step.do)
				want(step.what, step.want)
				if took := time.Since(changes); took < 0 || took > time.Second {
					t.Errorf("%s: it took %s", step.what, took)
				}
			}
			if how == "draining" {
				drain()
			} else {
				revoked.Store(true)
			}
			began := time.Now()
			time.AfterFunc(time.Minute, drain) // ends what should have ended
			if got, ok := next(); ok || time.Since(began) >= time.Minute {
				t.Errorf("after %s: got %q, %t after %s, want the end", how, got, ok, time.Since(began))
			}
			drain()
		})
	}
}
