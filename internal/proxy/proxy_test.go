package proxy

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

const testAPIKey = "0123456789abcdef"

// base is the base URL of instance 1, the instance of most tests.
var base = instance.BaseURL(kubetest.ID(1))

// knownInstances is a read model that holds what a test puts into it, and waits for
// nothing.
type knownInstances map[string]instance.Instance

func (k knownInstances) Instance(id string) (instance.Instance, bool) {
	inst, known := k[id]
	return inst, known
}

func (k knownInstances) Await(_ context.Context, id string, _ func(instance.Instance, bool) bool) (instance.Instance, bool) {
	return k.Instance(id)
}

// testProxy is a proxy that serves.
type testProxy struct {
	*httptest.Server
	handler  *Proxy
	log      *kubetest.LogBuffer
	inFlight atomic.Int64

	mu      sync.Mutex
	touches map[string]int
	source  instance.Source // of the last touch
}

func startProxy(t testing.TB, instances ...instance.Instance) *testProxy {
	t.Helper()
	return startProxyWith(t, func(*Deps) {}, instances...)
}

func startProxyWith(t testing.TB, change func(*Deps), instances ...instance.Instance) *testProxy {
	t.Helper()
	known := knownInstances{}
	for _, inst := range instances {
		known[inst.ID] = inst
	}
	p := &testProxy{touches: map[string]int{}}
	deps := Deps{Instances: known, IdleTimeout: 3 * kubetest.Patience, Touch: p.touch, IsAPIKey: func(value string) bool { return strings.Contains(value, testAPIKey) }}
	deps.Log, p.log = kubetest.RecordLog()
	change(&deps)
	p.handler = New(deps)
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.inFlight.Add(1)
		defer p.inFlight.Add(-1)
		p.handler.ServeHTTP(w, r)
	}))
	p.Listener = Listen(p.Listener, deps.IdleTimeout)
	p.Config.ConnContext = ConnContext
	p.Config.ErrorLog = slog.NewLogLogger(deps.Log.Handler(), slog.LevelError)
	p.Start()
	t.Cleanup(p.Close)
	client := p.Client()
	client.Timeout = kubetest.Patience
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client.Transport.(*http.Transport).DisableCompression = true // it would ask for compression by itself
	return p
}

func (p *testProxy) touch(id string, source instance.Source) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.touches[id]++
	p.source = source
}

// touched returns how many times instance n was said to be in use.
func (p *testProxy) touched(n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.touches[kubetest.ID(n)]
}

// get sends a GET with headers given as name, value, name, value.
func (p *testProxy) get(t testing.TB, target string, headers ...string) (*http.Response, string) {
	t.Helper()
	return p.do(t, http.MethodGet, target, nil, headers...)
}

// do sends a request, follows no redirect, and returns once it has read the answer.
func (p *testProxy) do(t testing.TB, method, target string, body io.Reader, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, p.URL+target, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "hub.example:8000"
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	res, err := p.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(answer)
}

// application starts an application and returns its instance, which is instance 1.
func application(t testing.TB, h http.HandlerFunc, changes ...func(*instance.Instance)) instance.Instance {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	inst := instance.Instance{
		ID: kubetest.ID(1), Template: "jupyter", Status: instance.StatusDeployed, Address: server.Listener.Addr().String(),
	}
	for _, change := range changes {
		change(&inst)
	}
	return inst
}

// receive takes one value from a channel, and fails the test if none comes.
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

func TestRefuses(t *testing.T) {
	id := kubetest.ID(1)
	ready := instance.Instance{ID: id, Status: instance.StatusDeployed}
	for _, row := range []struct {
		name, path string
		inst       instance.Instance
		code       int
		retryAfter string
		says       string
	}{
		{"the root", "/", ready, 404, "", "nothing at this address"},
		{"no id", "/user/", ready, 404, "", "nothing at this address"},
		{"no valid id", "/user/me/tree", instance.Instance{ID: "me", Status: instance.StatusDeployed}, 404, "", "nothing at this address"},
		{"an escaped id", "/user/%30" + id[1:] + "/", ready, 404, "", "nothing at this address"},
		{"an escaped prefix", "/%75ser/" + id + "/", ready, 404, "", "nothing at this address"},
		{"another prefix", "/User/" + id + "/", ready, 404, "", "nothing at this address"},
		{"an unknown id", base + "tree", instance.Instance{}, 404, "", "no such instance"},
		{"pending", base, instance.Instance{ID: id, Status: instance.StatusPending}, 503, "1", "is starting"},
		{"deploying", "/user/" + id, instance.Instance{ID: id, Status: instance.StatusDeploying}, 503, "1", "is starting"},
		{"failed", base, instance.Instance{ID: id, Status: instance.StatusFailed, Message: "image x: not found"}, 502, "", "image x: not found"},
		{"deleted", base, instance.Instance{ID: id, Status: instance.StatusDeleted, Message: "idle for 1h0m0s"}, 410, "", "idle for 1h0m0s"},
	} {
		p := startProxy(t, row.inst)
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			res, body := p.do(t, method, row.path, nil)
			if res.StatusCode != row.code || !strings.Contains(body, row.says) {
				t.Errorf("%s, %s: got %d %q, want %d and %q", row.name, method, res.StatusCode, body, row.code, row.says)
			}
			for header, want := range map[string]string{
				"Retry-After": row.retryAfter, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
				"Content-Type": "text/plain; charset=utf-8", // a message must not become a page
			} {
				if got := res.Header.Get(header); got != want {
					t.Errorf("%s, %s: %s is %q, want %q", row.name, method, header, got, want)
				}
			}
		}
		if got := p.touched(1); got != 0 {
			t.Errorf("%s: touched %d times, want never: it was not used", row.name, got)
		}
	}
}

// Nobody is sent to an address that may be another's. The visit counts as use, unless the
// template says that pages send such requests by themselves.
func TestRefusesAnUnsureAddress(t *testing.T) {
	inst := application(t, func(http.ResponseWriter, *http.Request) { t.Error("the request was forwarded") })
	inst.Unsure, inst.IdlePaths, inst.Template = true, "^api/poll$", "jupyter"
	for path, touches := range map[string]int{base: 1, strings.TrimSuffix(base, "/"): 1, base + "api/poll": 0} {
		p := startProxy(t, inst)
		res, body := p.get(t, path, "Accept", "text/html")
		if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") != "5" || !strings.Contains(body, "jupyter cannot be reached") {
			t.Errorf("%s: got %d, Retry-After %q\n%s", path, res.StatusCode, res.Header.Get("Retry-After"), body)
		}
		if got := p.touched(1); got != touches {
			t.Errorf("%s: touched %d times, want %d", path, got, touches)
		}
		res, _ = p.get(t, path, "Upgrade", "websocket", "Connection", "Upgrade", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version", "13")
		if got := p.touched(1); res.StatusCode != http.StatusServiceUnavailable || got != touches {
			t.Errorf("%s as a WebSocket: got %d, touched %d times in all", path, res.StatusCode, got)
		}
	}
}

// Browsers get a page where they ask for one. Without launch pages it has no button.
func TestRefusesWithAPage(t *testing.T) {
	ended := instance.Instance{ID: kubetest.ID(1), Template: "jupyter", Status: instance.StatusDeleted}
	for _, launchPage := range []bool{true, false} {
		p := startProxy(t, ended)
		p.handler.deps.LaunchPage = launchPage
		res, body := p.get(t, base, "Accept", "text/html")
		if got := res.Header.Get("Content-Type"); got != "text/html; charset=utf-8" || strings.Contains(body, "<form") != launchPage {
			t.Errorf("launch pages %t: got %s\n%s", launchPage, got, body)
		}
		if res, _ := p.do(t, http.MethodPost, base, nil, "Accept", "text/html"); strings.Contains(res.Header.Get("Content-Type"), "html") {
			t.Error("a POST got a page")
		}
	}
}

func TestAddsTheSlash(t *testing.T) {
	p := startProxy(t, application(t, func(http.ResponseWriter, *http.Request) { t.Error("the request was forwarded") }))
	for _, query := range []string{"", "?token=a%2Fb&x=1", "?//evil.example/..;"} {
		res, _ := p.get(t, strings.TrimSuffix(base, "/")+query)
		if got := res.Header.Get("Location"); res.StatusCode != http.StatusTemporaryRedirect || got != base+query {
			t.Errorf("%q: got %d to %q, want 307 to %q", query, res.StatusCode, got, base+query)
		}
	}
	if got := p.touched(1); got != 0 {
		t.Errorf("touched %d times, want never: nothing was forwarded", got)
	}
}

// This replica's watch may not know yet what another replica has just told a client,
// and an instance that is starting may be ready in a moment.
func TestWaitsAMoment(t *testing.T) {
	ready := func(*corev1.Pod) {}
	for _, row := range []struct {
		name          string
		before, later func(*corev1.Pod) // the state of the pod; nil for none
		code          int
		took          time.Duration
	}{
		{"unknown", nil, nil, 404, instance.WatchDelay},
		{"starting", kubetest.Starting, nil, 503, startDelay},
		{"unknown, then starting", nil, kubetest.Starting, 503, startDelay/2 + startDelay},
		{"unknown, then ready", nil, ready, 307, startDelay / 2},
		{"starting, then ready", kubetest.Starting, ready, 307, startDelay / 2},
		{"starting, then broken", kubetest.Starting, kubetest.Broken, 502, startDelay / 2},
		{"ready", ready, nil, 307, 0},
		{"ended", kubetest.Deleting, nil, 410, 0},
		{"broken", kubetest.Broken, nil, 502, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			world := kubetest.NewWorld(time.Now, nil)
			put := func(state func(*corev1.Pod)) {
				if state != nil {
					world.PutPod(t, kubetest.Pod(kubetest.ID(1), time.Now(), state))
				}
			}
			put(row.before)
			time.AfterFunc(startDelay/2, func() { put(row.later) })
			began, res := time.Now(), httptest.NewRecorder()
			proxy := New(Deps{Instances: world, Log: kubetest.NoLog()})
			proxy.ServeHTTP(res, httptest.NewRequestWithContext(t.Context(), http.MethodGet, strings.TrimSuffix(base, "/"), nil))
			if took := time.Since(began); res.Code != row.code || took != row.took {
				t.Errorf("%s: got %d after %s, want %d after %s", row.name, res.Code, took, row.code, row.took)
			}
			time.Sleep(startDelay) // until the timer has fired
		})
	}
}

func TestKeepsPathAndQuery(t *testing.T) {
	var uri string
	note := func(_ http.ResponseWriter, r *http.Request) { uri = r.RequestURI }
	for strip, prefix := range map[bool]string{false: strings.TrimSuffix(base, "/"), true: ""} {
		p := startProxy(t, application(t, note, func(inst *instance.Instance) { inst.StripPrefix = strip }))
		for _, rest := range []string{
			"/", "/tree", "/tree/", "/files/a%2Fb%20c.txt", "/files/%41", "/files/caf%C3%A9", "/files/x;v=1,2:@&=+$!*'()", "/%2F",
			"//twice", "/a/../b/./c", // the application resolves them
			"/api?x=1&y=%2F&x=2&z", "/api?", "/?a=b%20c+d",
			"/api?b=1;c=2&a=%zz&%&=", // the application decides what a malformed query means
			base + "again",           // only the first prefix is the proxy's
		} {
			uri = "nothing"
			p.get(t, strings.TrimSuffix(base, "/")+rest)
			if want := prefix + rest; uri != want {
				t.Errorf("strip-prefix %t: %s reached the application as %s, want %s", strip, rest, uri, want)
			}
		}
	}
}

func TestPassesMethodBodyAndAnswer(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 1<<16) // a MiB, more than any buffer
	p := startProxy(t, application(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("X-Method", r.Method)
		w.Header()["Set-Cookie"] = []string{"a=1", "b=2"}
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write(body)
	}))
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"} {
		res, body := p.do(t, method, base+"echo", strings.NewReader(large))
		if res.StatusCode != http.StatusTeapot || res.Header.Get("X-Method") != method || len(res.Header["Set-Cookie"]) != 2 {
			t.Errorf("%s: got %d %v", method, res.StatusCode, res.Header)
		}
		if body != large {
			t.Errorf("%s: %d bytes came back changed, of %d", method, len(body), len(large))
		}
	}
}

func TestApplicationDoesNotAnswer(t *testing.T) {
	closed := application(t, nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Address = listener.Addr().String()
	listener.Close() // nobody listens there any more
	for _, row := range []struct {
		does    string
		inst    instance.Instance
		touches int
	}{
		{"refuses the connection", closed, 0},
		{"breaks the connection", application(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), 0},
		{"upgrades without being asked", application(t, func(w http.ResponseWriter, _ *http.Request) { hijack(t, w, "websocket") }), 0},
	} {
		p := startProxy(t, row.inst)
		res, body := p.get(t, base+"?token=secret", "Authorization", "token "+testAPIKey)
		if res.StatusCode != http.StatusBadGateway || !strings.Contains(body, "did not answer") {
			t.Errorf("%s: got %d %q, want 502", row.does, res.StatusCode, body)
		}
		if strings.Contains(body, row.inst.Address) {
			t.Errorf("%s: the visitor is told the address: %q", row.does, body)
		}
		if got := p.touched(1); got != row.touches {
			t.Errorf("%s: touched %d times, want %d: only an answer counts", row.does, got, row.touches)
		}
		log := p.log.String()
		if !strings.Contains(log, "level=WARN") || !strings.Contains(log, instance.PodName(row.inst.ID)) || strings.Contains(log, row.inst.ID) || !strings.Contains(log, row.inst.Template) {
			t.Errorf("%s: the log does not tell of the instance: %s", row.does, log)
		}
		if strings.Contains(log, "secret") || strings.Contains(log, testAPIKey) {
			t.Errorf("%s: a secret is in the log: %s", row.does, log)
		}
	}
}
