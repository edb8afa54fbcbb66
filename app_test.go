package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
	"github.com/binder-project/binder-deploy-kubernetes/internal/proxy"
)

// url returns the URL of a path at one of the app's servers: metrics, API, proxy.
func (a *app) url(server int, path string) string { return "http://" + a.servers[server].addr() + path }

const metricsServer, apiServer, proxyServer = 0, 1, 2

// runApp runs an app until stop, which returns its error, or the end of the test.
func runApp(t testing.TB, a *app) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.run(ctx) }()
	t.Cleanup(cancel)
	return func() error {
		cancel()
		return receive(t, ended)
	}
}

func awaitCode(t testing.TB, url string, code int) {
	t.Helper()
	kubetest.Eventually(t, fmt.Sprintf("%s answers %d", url, code), func() bool { return call(t, "GET", url, "").code == code })
}

// listensAt puts the application of an instance at a local address.
func listensAt(t testing.TB, listener net.Addr) func(*corev1.Pod) {
	t.Helper()
	ip, port, err := net.SplitHostPort(listener.String())
	noError(t, err)
	return func(pod *corev1.Pod) { pod.Status.PodIP, pod.Annotations[instance.PortAnnotation] = ip, port }
}

// isActivityPatch reports whether a call writes the last activity of instance 1.
func isActivityPatch(action k8stesting.Action) bool {
	patch, ok := action.(k8stesting.PatchAction)
	return ok && patch.GetName() == instance.PodName(kubetest.ID(1)) && strings.Contains(string(patch.GetPatch()), instance.LastActivityAnnotation)
}

// TestAppServes does what a visitor does: list, launch, status, use, stop. The API key
// must not be in the log.
func TestAppServes(t *testing.T) {
	notebook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s with %q", r.URL.Path, r.Header.Get("Authorization"))
	}))
	defer notebook.Close()
	pod := kubetest.Pod(kubetest.ID(1), time.Now().Add(-time.Minute), listensAt(t, notebook.Listener.Addr()))
	server := kubetest.NewServer(time.Now, pod, kubetest.Template("jupyter"))
	log, out := kubetest.RecordLog()
	a := newTestApp(t, server.Client, log)
	stop := runApp(t, a)
	awaitCode(t, a.url(metricsServer, "/readyz"), 200)

	want := func(server int, method, path string, code int, contains string) answer {
		t.Helper()
		got := call(t, method, a.url(server, path), "")
		if got.code != code || !strings.Contains(got.body, contains) {
			t.Errorf("%s %s: got %d %s, want %d with %q", method, path, got.code, got.body, code, contains)
		}
		return got
	}
	user := "/user/" + kubetest.ID(1)
	want(apiServer, "GET", "/applications/", 200, a.servers[proxyServer].addr()+user)
	var launched struct{ ID string }
	if err := json.Unmarshal([]byte(want(apiServer, "POST", "/applications/jupyter", 200, "id").body), &launched); err != nil || !instance.ValidID(launched.ID) {
		t.Errorf("launched %q, %v", launched.ID, err)
	}
	want(apiServer, "GET", "/applications/jupyter/"+launched.ID, 200, "pending")
	if got := want(proxyServer, "GET", "/user/"+launched.ID+"/", 503, ""); got.header.Get("Refresh") != "" {
		t.Errorf("the answer for an instance that starts reloads itself: %v", got.header)
	}
	want(apiServer, "POST", "/applications/rstudio", 404, "registryError")
	want(proxyServer, "GET", user+"/tree?token="+testAPIKey, 200, user+`/tree with ""`)
	want(proxyServer, "GET", "/", 200, "<h1>Binder</h1>")
	want(proxyServer, "GET", "/session/"+kubetest.ID(1), 200, "Your jupyter")
	want(proxyServer, "POST", "/", 404, "")
	for _, path := range []string{"/api/routes", "/applications", "/applications/jupyter", "/metrics", "/healthz", "/user"} {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			want(proxyServer, method, path, 404, "")
		}
	}
	want(apiServer, "DELETE", "/applications/jupyter/"+launched.ID, 200, "Stopped")
	server.FailOn("create", "pods", errors.New("the API server is away"))
	for range 3 {
		want(apiServer, "POST", "/applications/jupyter", 503, "badKubeRequest")
		want(proxyServer, "POST", "/launch/jupyter", 503, "")
	}
	want(metricsServer, "GET", "/metrics", 200, `binder_launches_total{result="ok",template="jupyter"} 1`)
	want(metricsServer, "GET", "/metrics", 200, "binder_cache_synced 1")
	notebook.Close()
	for range 3 {
		want(proxyServer, "GET", user+"/tree", 502, "")
	}

	noError(t, stop())
	if !strings.Contains(out.String(), instance.PodName(launched.ID)) || strings.Contains(out.String(), launched.ID) || strings.Contains(out.String(), testAPIKey) {
		t.Errorf("want the instance's pod in the log, and neither its id nor the API key:\n%s", out)
	}
	for _, line := range []string{`"request failed"`, `"the instance did not answer"`} {
		wantEqual(t, "lines "+line+", which strangers can repeat", strings.Count(out.String(), line), 1)
	}
	for i, ended := range a.servers {
		wantEqual(t, "a request to "+ended.name+" after the end", call(t, "GET", a.url(i, "/"), "").code, 0)
	}
	if !slices.ContainsFunc(server.Writes(), isActivityPatch) {
		t.Error("the activity was not written at the end")
	}
}

// A browser that has collected too many cookies reaches the launch page, and a page that
// says what to do. The API takes no more than an instance.
func TestAppTakesManyCookies(t *testing.T) {
	notebook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%d bytes of cookies", len(r.Header.Get("Cookie")))
	}))
	defer notebook.Close()
	pod := kubetest.Pod(kubetest.ID(1), time.Now().Add(-time.Minute), listensAt(t, notebook.Listener.Addr()))
	a := newTestApp(t, kubetest.NewServer(time.Now, pod, kubetest.Template("jupyter")).Client, kubetest.NoLog())
	stop := runApp(t, a)
	awaitCode(t, a.url(metricsServer, "/readyz"), 200)
	user := "/user/" + kubetest.ID(1) + "/"
	for _, row := range []struct {
		server       int
		method, path string
		cookies      int // KiB
		code         int
		says         string
	}{
		{proxyServer, "GET", user, 7, 200, "7168 bytes"},
		{proxyServer, "GET", user, 1000, 200, "0 bytes"},
		{proxyServer, "GET", "/launch/jupyter", 1000, 200, "Launch jupyter"},
		{proxyServer, "POST", "/launch/jupyter", 1000, 303, ""},
		{proxyServer, "GET", "/progress/" + kubetest.ID(1), 1000, 200, "deployed"},
		{proxyServer, "GET", "/launch/jupyter", 1100, 431, "Request Header Fields Too Large"}, // net/http's
		{apiServer, "GET", "/applications/", 60, 200, ""},
		{apiServer, "GET", "/applications/", 70, 431, ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), row.method, a.url(row.server, row.path), nil)
		noError(t, err)
		r.Header.Set("Accept", "text/html")
		r.Header.Set("Authorization", testAPIKey)
		r.Header.Set("Cookie", "a="+strings.Repeat("x", row.cookies<<10-len("a=")))
		r.Close = true
		res, err := http.DefaultTransport.RoundTrip(r)
		noError(t, err)
		body, err := io.ReadAll(res.Body)
		noError(t, err)
		res.Body.Close()
		if res.StatusCode != row.code || !strings.Contains(string(body), row.says) {
			t.Errorf("%s %s with %d KiB of cookies: got %d %.300q, want %d with %q", row.method, row.path, row.cookies, res.StatusCode, body, row.code, row.says)
		}
	}
	noError(t, stop())
}

// Before the first read of the cluster, an unknown instance may be one that has not been
// read yet.
func TestAppIsReadyOnlyAfterTheFirstRead(t *testing.T) {
	server := kubetest.NewServer(time.Now)
	restore := server.FailOn("list", "pods", errors.New("not yet"))
	a := newTestApp(t, server.Client, kubetest.NoLog())
	stop := runApp(t, a)
	awaitCode(t, a.url(metricsServer, "/healthz"), 200)
	wantEqual(t, "readyz before the first read", call(t, "GET", a.url(metricsServer, "/readyz"), "").code, 503)
	restore()
	awaitCode(t, a.url(metricsServer, "/readyz"), 200)
	if got := call(t, "GET", a.url(apiServer, "/applications"), ""); got.code != 200 || got.body != "[]\n" {
		t.Errorf("list: got %d %q, want 200 []", got.code, got.body)
	}
	noError(t, stop())
}

func TestAppEndsBeforeTheFirstRead(t *testing.T) {
	server := kubetest.NewServer(time.Now)
	server.FailOn("list", "*", errors.New("the API server is away"))
	a := newTestApp(t, server.Client, kubetest.NoLog())
	stop := runApp(t, a)
	awaitCode(t, a.url(metricsServer, "/healthz"), 200)
	noError(t, stop())
}

func TestAppNamesTheFlagOfAPortInUse(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	noError(t, err)
	defer listener.Close()
	for _, flag := range []string{"--api-address", "--proxy-address", "--metrics-address"} {
		c := testConfig(t, flag+"="+listener.Addr().String())
		_, err := newApp(c, clusterOf(kubetest.NewServer(time.Now).Client), newTestMetrics(), kubetest.NoLog(), time.Now, rand.Reader)
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s in use: got %v, want an error that names it", flag, err)
		}
	}
}

// One broken server ends the process, so that the kubelet restarts it.
func TestAppEndsWhenAServerBreaks(t *testing.T) {
	for i, name := range []string{"metrics", "api", "proxy"} {
		a := newTestApp(t, kubetest.NewServer(time.Now).Client, kubetest.NoLog())
		a.servers[i].listener.Close()
		ended := make(chan error, 1)
		go func() { ended <- a.run(t.Context()) }()
		if err := receive(t, ended); !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), name) {
			t.Errorf("the listener of %s is closed: ended with %v, want an error that names it", name, err)
		}
	}
}

// inMemory replaces the app's listeners by listeners in memory. It returns transports to
// the metrics server and the API.
func inMemory(t testing.TB, a *app) (metrics, api http.RoundTripper) {
	transports := make([]http.RoundTripper, len(a.servers))
	for i, s := range a.servers {
		s.listener.Close()
		listener := newPipeListener()
		s.listener, transports[i] = listener, listener.transport(t)
	}
	return transports[metricsServer], transports[apiServer]
}

// runInMemory runs an app with listeners in memory until ctx is done. It returns when the
// app is ready.
func runInMemory(ctx context.Context, t testing.TB, a *app) (metrics, api http.RoundTripper, ended <-chan error) {
	metrics, api = inMemory(t, a)
	end := make(chan error, 1)
	go func() { end <- a.run(ctx) }()
	time.Sleep(time.Second)
	if got := callWith(t, metrics, "GET", "http://binder.example/readyz", nil); got.code != 200 {
		t.Fatalf("readyz is %d", got.code)
	}
	return metrics, api, end
}

// slowLaunch begins to post a launch. send is where the body is written to.
func slowLaunch(t testing.TB, api http.RoundTripper) (send *io.PipeWriter, answered <-chan answer) {
	body, send := io.Pipe()
	got := make(chan answer, 1)
	go func() { got <- callWith(t, api, "POST", "http://binder.example/applications", body) }()
	synctest.Wait() // until the handler waits for the body
	return send, got
}

// The shutdown delays so that load balancers notice, then drains, then writes the
// activity.
func TestAppEndsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := kubetest.NewServer(time.Now, kubetest.Pod(kubetest.ID(1), time.Now()), kubetest.Template("jupyter"))
		a := newTestApp(t, server.Client, kubetest.NoLog(), "--shutdown-delay=5s", "--drain-timeout=20s")
		ctx, cancel := context.WithCancel(t.Context())
		metrics, api, ended := runInMemory(ctx, t, a)
		send, launched := slowLaunch(t, api)

		began := time.Now()
		cancel()
		synctest.Wait()
		wantEqual(t, "readyz during the delay", callWith(t, metrics, "GET", "http://binder.example/readyz", nil).code, 503)
		time.Sleep(4 * time.Second)
		wantEqual(t, "a request during the delay", callWith(t, api, "GET", "http://binder.example"+firstPath, nil).code, 200)
		a.activity.Touch(kubetest.ID(1), instance.SourceHTTP)

		time.Sleep(10 * time.Second) // it drains now
		wantEqual(t, "a new request while the app drains", callWith(t, api, "GET", "http://binder.example"+firstPath, nil).code, 0)
		if len(ended) > 0 {
			t.Fatal("the app has ended before its last request")
		}
		_, _ = io.WriteString(send, `{"template-name": "jupyter"}`)
		send.Close()
		if got := receive(t, launched); got.code != 200 || !strings.Contains(got.body, `"id"`) {
			t.Errorf("the request under way got %d %s, want 200 and an id", got.code, got.body)
		}
		noError(t, receive(t, ended))
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("the app ended after %s, its last request after 14s", took)
		}
		writes := server.Writes()
		created := slices.IndexFunc(writes, func(action k8stesting.Action) bool { return action.Matches("create", "pods") })
		flushed := slices.IndexFunc(writes, isActivityPatch)
		if created < 0 || flushed < created {
			t.Errorf("the writes are %v, want the activity after the launch", writes)
		}
	})
}

func TestAppCutsOffSlowRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, out := kubetest.RecordLog()
		a := newTestApp(t, kubetest.NewServer(time.Now, kubetest.Template("jupyter")).Client, log, "--drain-timeout=3s")
		ctx, cancel := context.WithCancel(t.Context())
		_, api, ended := runInMemory(ctx, t, a)
		send, launched := slowLaunch(t, api)
		began := time.Now()
		cancel()
		noError(t, receive(t, ended))
		if took := time.Since(began); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("ended after %s, want the drain timeout of 3s", took)
		}
		send.Close() // else the transport waits for the body
		if got := receive(t, launched); got.code != 0 {
			t.Errorf("the slow request got %d", got.code)
		}
		if !strings.Contains(out.String(), "level=WARN") {
			t.Errorf("the log has no warning of the request that was cut off:\n%s", out)
		}
	})
}

// While the app waits for the first read, it repeats a warning, once a minute.
func TestAppSaysThatItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := kubetest.NewServer(time.Now)
		server.FailOn("list", "pods", errors.New("away"))
		log, out := kubetest.RecordLog()
		a := newTestApp(t, server.Client, log)
		inMemory(t, a)
		broken := errors.New("a server broke")
		ctx, cancel := context.WithCancelCause(t.Context())
		waited := make(chan error, 1)
		go func() { waited <- a.awaitSync(ctx) }()
		for _, row := range []struct {
			after    time.Duration
			warnings int
		}{{9 * time.Second, 0}, {2 * time.Second, 1}, {time.Minute, 2}} {
			time.Sleep(row.after)
			synctest.Wait()
			wantEqual(t, "warnings after another "+row.after.String(), strings.Count(out.String(), "level=WARN"), row.warnings)
		}
		cancel(broken)
		if err := receive(t, waited); !errors.Is(err, broken) {
			t.Errorf("ended with %v, want what ended it", err)
		}
	})
}

// The flags reach the culler, leader election reports contact with the API server to it,
// and a mistake in a template becomes an Event.
func TestAppLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		server := kubetest.NewServer(time.Now,
			kubetest.Pod(kubetest.ID(1), now.Add(-3*time.Hour), kubetest.LastUsed(now)), kubetest.Pod(kubetest.ID(2), now.Add(-time.Hour)),
			kubetest.Template("jupyter", kubetest.WithTemplateAnnotation(instance.IdlePathsAnnotation, "(")))
		a := newTestApp(t, server.Client, kubetest.NoLog(), "--cull-timeout=10m", "--max-age=2h", "--cull-interval=50ms")
		ctx, cancel := context.WithCancel(t.Context())
		_, api, ended := runInMemory(ctx, t, a)
		wantIn := func(id, want string) {
			t.Helper()
			if got := callWith(t, api, "GET", "http://binder.example/applications/jupyter/"+id, nil); !strings.Contains(got.body, want) {
				t.Errorf("got %d %s, want %s", got.code, got.body, want)
			}
		}
		wantIn(kubetest.ID(1), string(instance.StatusDeployed)) // a new leader holds deletes back
		wantIn(kubetest.ID(2), string(instance.StatusDeployed))
		time.Sleep(lifetime.SettleTime)
		wantIn(kubetest.ID(1), string(instance.EndExpired)) // without contact they would still be held
		wantIn(kubetest.ID(2), string(instance.EndCulled))
		events, err := server.Client.CoreV1().Events(kubetest.Namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil || !slices.ContainsFunc(events.Items, func(event corev1.Event) bool { return event.Reason == "InvalidAnnotation" }) {
			t.Errorf("the Events are %v, %v; want one about the template", events, err)
		}
		cancel()
		noError(t, receive(t, ended))
	})
}

func TestProbes(t *testing.T) {
	for _, row := range []struct {
		name                     string
		synced, cutOff, stopping bool
		healthz, readyz          int
	}{
		{"serving", true, false, false, 200, 200},
		{"before the first read", false, false, false, 200, 503},
		{"cut off from the API server", true, true, false, 200, 503},
		{"ending", true, false, true, 200, 503},
		{"ending before the first read", false, false, true, 200, 503},
	} {
		h := &health{synced: func() bool { return row.synced }, cutOff: func() bool { return row.cutOff }}
		h.stopping.Store(row.stopping)
		routes := h.routes(http.NotFoundHandler(), false)
		for path, want := range map[string]int{"/healthz": row.healthz, "/readyz": row.readyz, "/applications": 404} {
			wantEqual(t, row.name+": "+path, ask(routes, "GET", path, "").Code, want)
		}
	}
}

// A replica that is cut off says so once, and closes connections after each answer, so that
// visitors who keep one open go to another replica.
func TestVisitorsLeaveAReplicaThatIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, lines := kubetest.RecordLog()
		listener := newPipeListener()
		handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
		public := newServer("proxy", listener, handler, longRequests(), log)
		a := &app{cluster: clusterOf(nil), log: log, servers: []*server{newServer("metrics", newPipeListener(), handler, shortRequests(), log), public}, proxy: new(proxy.Proxy), now: time.Now}
		runUntilEnd(t, a.watchContact)
		served := make(chan error, 1)
		go func() { served <- public.serve() }()
		transport := listener.transport(t)
		for _, step := range []struct {
			name   string
			heard  bool
			closes bool
		}{{"in contact", true, false}, {"cut off", false, true}, {"back", true, false}} {
			for range 45 { // for a minute and a half
				if step.heard {
					a.contact.Answered()
				}
				time.Sleep(2 * time.Second)
			}
			res, err := transport.RoundTrip(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/", nil))
			noError(t, err)
			res.Body.Close()
			wantEqual(t, step.name+": the server closes the connection", res.Close, step.closes)
		}
		public.shutdown(time.Second)
		noError(t, receive(t, served))
		if text := lines.String(); strings.Count(text, "has not answered") != 1 || strings.Count(text, "answers again") != 1 {
			t.Errorf("the log is\n%s", text)
		}
	})
}

func TestOperatorsRoutes(t *testing.T) {
	h := &health{synced: func() bool { return true }, cutOff: func() bool { return false }}
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	for request, code := range map[string]int{
		"GET /metrics": http.StatusTeapot, "HEAD /readyz": 200, "POST /metrics": 405, "POST /readyz": 405, "DELETE /healthz": 405,
	} {
		method, path, _ := strings.Cut(request, " ")
		wantEqual(t, request, ask(h.routes(metrics, false), method, path, "").Code, code)
	}
}

// Profiles are on only where the flag turns them on, and only at the metrics' port; never at
// the host of an instance.
func TestProfilesAreForOperators(t *testing.T) {
	const domain = "users.example"
	for _, flags := range [][]string{nil, {"--pprof"}} {
		flags := append(flags, "--public-host=hub.example", "--instance-domain="+domain)
		a := newTestApp(t, kubetest.NewServer(time.Now).Client, kubetest.NoLog(), flags...)
		stop := runApp(t, a)
		awaitCode(t, a.url(metricsServer, "/readyz"), 200)
		for _, host := range []string{"hub.example", "127.0.0.1", kubetest.ID(1) + "." + domain} {
			for server, s := range a.servers {
				for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile?seconds=301", "/debug/pprof/cmdline", "/debug/pprof/symbol"} {
					on := slices.Contains(flags, "--pprof") && server == metricsServer && !strings.HasSuffix(host, domain)
					res := ask(s.http.Handler, "GET", "http://"+host+path, "")
					served := res.Code == http.StatusOK || res.Code == http.StatusBadRequest
					if want := on && !strings.Contains(path, "cmdline") && !strings.Contains(path, "symbol"); served != want {
						t.Errorf("%q: %s at %s of %s: got %d, want it served: %t", flags, path, s.name, host, res.Code, want)
					}
				}
			}
		}
		noError(t, stop())
	}
}

// The longest profile reaches its end, although the limits of the server are shorter.
func TestLongProfile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, listener := &health{}, newPipeListener()
		server := newServer("metrics", listener, h.routes(http.NotFoundHandler(), true), shortRequests(), kubetest.NoLog())
		served := make(chan error, 1)
		go func() { served <- server.serve() }()
		began := time.Now()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/debug/pprof/goroutine?seconds=300", nil)
		noError(t, err)
		transport := listener.transport(t)
		res, err := transport.RoundTrip(r)
		noError(t, err)
		body, err := io.ReadAll(res.Body)
		if took := time.Since(began); err != nil || res.StatusCode != 200 || len(body) == 0 || took != 5*time.Minute {
			t.Errorf("got %d with %d bytes, %v after %s; want a profile after 5 minutes", res.StatusCode, len(body), err, took)
		}
		transport.CloseIdleConnections()
		server.shutdown(time.Second)
		noError(t, receive(t, served))
	})
}
