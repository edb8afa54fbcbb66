package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/activity"
	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/config"
	"github.com/binder-project/binder-deploy-kubernetes/internal/contact"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/keys"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"
	"github.com/binder-project/binder-deploy-kubernetes/internal/tombstone"
)

// testAPIKey is the API key of all tests.
const testAPIKey = "5f2e0c6ab1d94e33"

// withKey is the header of an authorised request.
var withKey = []string{"Authorization", testAPIKey}

func testRules() lifetime.Rules {
	return lifetime.Rules{CullTimeout: time.Hour, StartTimeout: kubetest.StartTimeout}
}

func newTestMetrics() *metrics.Metrics { return metrics.New("test", metricValues()) }

// testCache is a running read model and its fake API server.
type testCache struct {
	*Cache
	*kubetest.Server
	dials   atomic.Int64 // to starting instances
	listens atomic.Bool  // whether these succeed
}

// startCache starts a read model on a fake API server that has some objects. It returns
// when the watches are open. The read model ends with the test.
func startCache(t testing.TB, now func() time.Time, objects ...runtime.Object) *testCache {
	t.Helper()
	return startCacheOn(t, kubetest.NewServer(now, objects...))
}

// startCacheOn starts another read model on a fake API server.
func startCacheOn(t testing.TB, server *kubetest.Server) *testCache {
	t.Helper()
	c := newTestCache(t, server)
	watches := len(c.Calls("watch"))
	runUntilEnd(t, c.Cache.Run)
	kubetest.Eventually(t, "the caches have synced and the watches are open", func() bool {
		return c.Synced() && len(c.Calls("watch")) >= watches+len(c.informers())+1
	})
	return c
}

// newTestCache returns a read model that does not run.
func newTestCache(t testing.TB, server *kubetest.Server) *testCache {
	t.Helper()
	c := &testCache{Server: server}
	var err error
	c.Cache, err = NewCache(CacheDeps{
		Client: server.Client, Now: server.Now,
		Election: "binder-deploy-kubernetes", Namespace: "binder", InstancesNamespace: kubetest.Namespace, ProxyService: "binder-proxy", Rules: testRules(),
		Dial: func(context.Context, string) error {
			c.dials.Add(1)
			if c.listens.Load() {
				return nil
			}
			return errRefused
		},
	})
	noError(t, err)
	return c
}

// InstancePods returns the pods that the culler looks at.
func (c *Cache) InstancePods() []*corev1.Pod {
	var pods []*corev1.Pod
	for _, record := range c.recordsOfTemplate("") {
		if record.IsInstance || record.IsStray {
			pods = append(pods, record.Pod())
		}
	}
	return pods
}

// put creates or replaces a pod at the fake API server. It returns when the read model
// has it.
func (c *testCache) put(t testing.TB, pod *corev1.Pod) {
	t.Helper()
	pod = c.PutPod(t, pod)
	kubetest.Eventually(t, "the cache has pod "+pod.Name, func() bool {
		cached, ok := c.pods.Get(pod.Name)
		return ok && cached.GetResourceVersion() == pod.ResourceVersion
	})
}

// drop removes an instance's pod at the fake API server. It returns when the read model
// has lost it.
func (c *testCache) drop(t testing.TB, id string) {
	t.Helper()
	c.DropPod(t, instance.PodName(id))
	kubetest.Eventually(t, "the cache has lost pod "+instance.PodName(id), func() bool {
		_, ok := c.Pod(id)
		return !ok
	})
}

// parts makes the parts that write, as newApp does, on one read model.
type parts struct {
	client    kubernetes.Interface
	namespace string
	cache     *Cache
	metrics   *metrics.Metrics
	now       func() time.Time
}

func (c *testCache) parts() parts {
	return parts{c.Client, kubetest.Namespace, c.Cache, newTestMetrics(), c.Server.Now}
}

func (p parts) pods() typedcorev1.PodInterface { return p.client.CoreV1().Pods(p.namespace) }

func (p parts) remover() *tombstone.Remover {
	return &tombstone.Remover{Client: p.client, Namespace: p.namespace, Now: p.now, Log: kubetest.NoLog(), Metrics: p.metrics}
}

func (p parts) tracker() *activity.Tracker {
	return activity.New(activity.Deps{Pods: p.pods(), Cache: p.cache, Rules: testRules(), Metrics: p.metrics, Log: kubetest.NoLog(), Now: p.now})
}

func (p parts) launcher(t testing.TB) *launch.Launcher {
	t.Helper()
	return p.limitedLauncher(t, admission.Limits{})
}

func (p parts) limitedLauncher(t testing.TB, limits admission.Limits) *launch.Launcher {
	t.Helper()
	launcher, err := launch.New(launch.Deps{
		Pods: p.pods(), Cache: p.cache, Templates: p.cache, Remover: p.remover(),
		Admission:    admission.New(admission.Deps{Limits: limits, Instances: p.cache, Now: p.now}),
		RepeatableID: keys.NewSecret("a secret").InstanceID, MaxAge: lifetime.Rules{MaxAge: 48 * time.Hour}.MaxAgeOf, StartTimeout: kubetest.StartTimeout,
		Metrics: p.metrics, Log: kubetest.NoLog(), Now: p.now, Random: rand.Reader,
	})
	noError(t, err)
	return launcher
}

func (p parts) culler(t testing.TB, interval time.Duration, log *slog.Logger) *Culler {
	t.Helper()
	culler, err := NewCuller(CullerDeps{
		Pods: p.pods(), Cache: p.cache, Remover: p.remover(), Rules: testRules(), Hold: lifetime.NewHold(contactGap),
		Interval: interval, ReplicaClocks: func(own time.Time) (slowest, fastest time.Time) { return own, own }, Metrics: p.metrics, Log: log, Now: p.now,
	})
	noError(t, err)
	return culler
}

// wantNoWrites checks that the API server was not asked to change anything.
func wantNoWrites(t testing.TB, server *kubetest.Server) {
	t.Helper()
	if writes := server.Writes(); len(writes) > 0 {
		t.Errorf("the writes are %v, want none", writes)
	}
}

// runUntilEnd runs a function in the background. stop ends it and waits for it; the end
// of the test does too.
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

// emptyHost is a machine without environment variables and files.
func emptyHost() config.Environment {
	return config.Environment{
		Env:      func(string) (string, bool) { return "", false },
		ReadFile: func(string) ([]byte, error) { return nil, os.ErrNotExist },
		Hostname: func() (string, error) { return "test", nil },
		Random:   rand.Reader,
	}
}

// webhookSecretFile is a file of every test, which holds webhookSecret.
const webhookSecretFile, webhookSecret = "webhook-secret", "what only the receiver knows"

// testConfig parses flags. The listeners are on free local ports, and the process does
// not delay its shutdown.
func testConfig(t testing.TB, flags ...string) *config.Config {
	t.Helper()
	host := emptyHost()
	host.ReadFile = func(name string) ([]byte, error) {
		if name == webhookSecretFile {
			return []byte(webhookSecret + "\n"), nil
		}
		return nil, os.ErrNotExist
	}
	c, err := config.Parse(append([]string{
		"--api-address=127.0.0.1:0", "--proxy-address=127.0.0.1:0", "--metrics-address=127.0.0.1:0",
		"--api-key=" + testAPIKey, "--shutdown-delay=0s", "--min-cull-timeout=1ms",
	}, flags...), host, io.Discard)
	noError(t, err)
	c.Secret = "what all replicas know"
	return c
}

func newTestApp(t testing.TB, client kubernetes.Interface, log *slog.Logger, flags ...string) *app {
	t.Helper()
	a, err := newApp(testConfig(t, flags...), clusterOf(client), newTestMetrics(), log, time.Now, rand.Reader)
	noError(t, err)
	return a
}

// clusterOf is a cluster that is reached by one client.
func clusterOf(client kubernetes.Interface) *cluster {
	return &cluster{client: client, leading: client, contact: contact.New(time.Now)}
}

// answer is the answer to a request; code is 0 if there was none.
type answer struct {
	code   int
	header http.Header
	body   string
}

// call sends a request with the API key over the network. It follows no redirects.
func call(t testing.TB, method, url, body string) answer {
	t.Helper()
	return callWith(t, http.DefaultTransport, method, url, strings.NewReader(body))
}

func callWith(t testing.TB, transport http.RoundTripper, method, url string, body io.Reader) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*kubetest.Patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	noError(t, err)
	r.Close = true
	r.Header.Set("Authorization", testAPIKey)
	res, err := transport.RoundTrip(r)
	if err != nil {
		return answer{body: err.Error()}
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Error(err)
	}
	return answer{res.StatusCode, res.Header, string(raw)}
}

// ask sends a request to a handler. The header is given as name, value, name, value.
func ask(h http.Handler, method, target, body string, header ...string) *httptest.ResponseRecorder {
	r, w := httptest.NewRequest(method, target, strings.NewReader(body)), httptest.NewRecorder()
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	h.ServeHTTP(w, r)
	return w
}

// wantError checks that an answer is an error in the form that binder-client reads. It
// returns the message.
func wantError(t testing.TB, res *httptest.ResponseRecorder, code int, kind string) string {
	t.Helper()
	if res.Code != code {
		t.Errorf("got code %d, want %d: %s", res.Code, code, res.Body)
	}
	for header, want := range map[string]string{
		"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
	} {
		wantEqual(t, header, res.Header().Get(header), want)
	}
	var body map[string]string
	err := json.Unmarshal(res.Body.Bytes(), &body)
	if err != nil || len(body) != 2 || body["type"] != kind || body["error"] == "" {
		t.Errorf("got %q, %v; want a JSON object with the type %s and an error, and nothing else", res.Body, err, kind)
	}
	return body["error"]
}

// pipeListener is a listener in memory, so that tests with synctest's clock can use
// servers.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// errRefused is the error of a dial when nothing listens.
var errRefused = errors.New("connection refused")

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// transport returns a transport whose connections all go to the listener. It ends with
// the test.
func (l *pipeListener) transport(t testing.TB) *http.Transport {
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		select {
		case l.conns <- server:
			return client, nil
		case <-l.closed:
			return nil, errRefused
		}
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// scrape returns the series whose names begin with a prefix, sorted, one per line.
func scrape(t testing.TB, m *metrics.Metrics, prefix string) string {
	t.Helper()
	res := ask(m.Handler(), http.MethodGet, "/metrics", "")
	if res.Code != http.StatusOK {
		t.Fatalf("the scrape got %d: %s", res.Code, res.Body)
	}
	var series []string
	for line := range strings.Lines(res.Body.String()) {
		if strings.HasPrefix(line, prefix) {
			series = append(series, strings.TrimSpace(line))
		}
	}
	slices.Sort(series)
	return strings.Join(series, "\n")
}

// wantMetrics checks the series whose names begin with a prefix.
func wantMetrics(t testing.TB, m *metrics.Metrics, prefix, want string) {
	t.Helper()
	if got := scrape(t, m, prefix); got != strings.TrimSpace(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", prefix, got, strings.TrimSpace(want))
	}
}

// metric returns the sum of the series of a metric, or of those that have a label of this
// value.
func metric(t testing.TB, m *metrics.Metrics, name string, label ...string) float64 {
	t.Helper()
	sum, found := 0.0, false
	for line := range strings.Lines(scrape(t, m, name)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if series != name && !strings.HasPrefix(series, name+"{") || len(label) > 0 && !strings.Contains(series, `="`+label[0]+`"`) {
			continue
		}
		number, err := strconv.ParseFloat(value, 64)
		noError(t, err)
		sum, found = sum+number, true
	}
	if !found {
		t.Fatalf("there is no metric %s with label %q", name, label)
	}
	return sum
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("unexpected error: %v", err)
	}
}

func wantEqual[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// receive takes a value from a channel. It fails the test if none comes.
func receive[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(kubetest.Patience):
		t.Fatalf("nothing was received within %s", kubetest.Patience)
		panic("unreachable")
	}
}
