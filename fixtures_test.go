package main

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/binder-project/binder-deploy-kubernetes/internal/activity"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"
)

// testRules are the server's settings in tests.
func testRules() lifetime.Rules {
	return lifetime.Rules{CullTimeout: time.Hour, StartTimeout: kubetest.StartTimeout}
}

// testCache is a read model that runs, on a fake API server.
type testCache struct {
	*Cache
	*kubetest.Server
}

// startCache starts a read model on a fake API server with objects in it, and
// returns when it has read them and watches. It ends with the test.
func startCache(t testing.TB, now func() time.Time, objects ...runtime.Object) *testCache {
	t.Helper()
	return startCacheOn(t, kubetest.NewServer(now, objects...))
}

// startCacheOn starts one more read model on a fake API server.
func startCacheOn(t testing.TB, server *kubetest.Server) *testCache {
	t.Helper()
	c := newTestCache(t, server)
	c.start(t)
	return c
}

// newTestCache makes a read model that has not read anything yet.
func newTestCache(t testing.TB, server *kubetest.Server) *testCache {
	t.Helper()
	cache, err := NewCache(server.Client, CacheOptions{
		Namespace: "binder", InstancesNamespace: kubetest.Namespace, ProxyService: "binder-proxy", Rules: testRules(),
	}, server.Now)
	if err != nil {
		t.Fatal(err)
	}
	return &testCache{cache, server}
}

func (c *testCache) start(t testing.TB) {
	t.Helper()
	watches := len(c.Calls("watch"))
	runUntilEnd(t, c.Cache.Run)
	kubetest.Eventually(t, "the caches have synced and the watches are open", func() bool {
		return c.Synced() && len(c.Calls("watch")) >= watches+len(c.informers())
	})
}

// put creates or replaces a pod at the fake API server, and returns when the cache
// has it.
func (c *testCache) put(t testing.TB, pod *corev1.Pod) {
	t.Helper()
	pod = c.PutPod(t, pod)
	kubetest.Eventually(t, "the cache has pod "+pod.Name, func() bool {
		cached, ok := lookup[*corev1.Pod](c.pods, pod.Namespace+"/"+pod.Name)
		return ok && cached.ResourceVersion == pod.ResourceVersion
	})
}

// drop takes a pod away at the fake API server, and returns when the cache has lost
// it.
func (c *testCache) drop(t testing.TB, id string) {
	t.Helper()
	c.DropPod(t, instance.PodName(id))
	kubetest.Eventually(t, "the cache has lost pod "+instance.PodName(id), func() bool {
		_, ok := c.Pod(id)
		return !ok
	})
}

// tracker makes a Tracker of activity on a read model.
func (c *testCache) tracker() *activity.Tracker {
	return activity.New(activity.Deps{
		Pods: c.Client.CoreV1().Pods(kubetest.Namespace), Cache: c.Cache, Rules: testRules(),
		Metrics: newTestMetrics(), Log: kubetest.NoLog(), Now: c.Server.Now,
	})
}

// runUntilEnd runs something until the test ends, or until stop is called.
func runUntilEnd(t testing.TB, run func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { run(ctx) })
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return stop
}

func newTestMetrics() *metrics.Metrics { return metrics.New("test", metricValues()) }

// metric is the value of a series whose labels have these values, in the order of
// their names; of a histogram, how much was observed.
func metric(t testing.TB, m *metrics.Metrics, name string, labels ...string) float64 {
	t.Helper()
	scraped := httptest.NewRecorder()
	m.Handler().ServeHTTP(scraped, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(scraped.Body.String()) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		family, pairs, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
		if family != name && family != name+"_count" {
			continue
		}
		var values []string
		for pair := range strings.SplitSeq(pairs, ",") {
			if _, quoted, ok := strings.Cut(pair, "="); ok {
				values = append(values, strings.Trim(quoted, `"`))
			}
		}
		if strings.Join(values, ",") == strings.Join(labels, ",") {
			number, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return number
		}
	}
	t.Fatalf("there is no metric %s with labels %q", name, labels)
	return 0
}

// receive takes one value from a channel, and fails the test when none comes.
func receive[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(kubetest.Patience):
		t.Fatalf("nothing came within %s", kubetest.Patience)
		panic("unreachable")
	}
}

// wantError checks that an answer is an error as binder-client can read it, and
// returns its message.
func wantError(t testing.TB, res *httptest.ResponseRecorder, code int, kind string) string {
	t.Helper()
	if res.Code != code {
		t.Errorf("got code %d, want %d: %s", res.Code, code, res.Body)
	}
	for header, want := range map[string]string{
		"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
	} {
		if got := res.Header().Get(header); got != want {
			t.Errorf("%s is %q, want %q", header, got, want)
		}
	}
	var body map[string]string
	if err := json.Unmarshal(res.Body.Bytes(), &body); err != nil {
		t.Errorf("the body is no JSON object of strings: %v: %q", err, res.Body)
		return ""
	}
	if len(body) != 2 || body["type"] != kind || body["error"] == "" {
		t.Errorf("got body %v, want the type %s, an error, and no more", body, kind)
	}
	return body["error"]
}
