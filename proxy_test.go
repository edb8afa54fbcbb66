package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"

	"github.com/binder-project/binder-deploy-kubernetes/internal/proxy"
)

// touchCounter counts how often instances were said to be in use.
type touchCounter struct {
	mu    sync.Mutex
	count map[string]int
}

func (c *touchCounter) touch(id string, _ instance.Source) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count == nil {
		c.count = map[string]int{}
	}
	c.count[id]++
}

func (c *touchCounter) of(id string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count[id]
}

// testProxy is a proxy that serves, instrumented as in the service.
type testProxy struct {
	*httptest.Server
	metrics *metrics.Metrics
	touches *touchCounter
	log     *kubetest.LogBuffer
}

func startProxy(t testing.TB, instances ...instance.Instance) *testProxy {
	t.Helper()
	log, out := kubetest.RecordLog()
	p := &testProxy{metrics: metrics.New("test", metricValues()), touches: &touchCounter{}, log: out}
	proxy := proxy.New(fakeReader(instances), p.touches.touch, protocol.NewAPIKey(testAPIKey).Opens, log)
	p.Server = httptest.NewServer(p.metrics.InstrumentProxy(instance.UserPrefix, proxy))
	t.Cleanup(p.Close)
	client := p.Client()
	client.Timeout = kubetest.Patience
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client.Transport.(*http.Transport).DisableCompression = true // what is not asked for is not sent
	return p
}

// get sends a GET with headers given as name, value, name, value, and follows no
// redirect. The body has been read when it returns.
func (p *testProxy) get(t testing.TB, target string, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.URL+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return p.do(t, r)
}

func (p *testProxy) do(t testing.TB, r *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := p.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// newBackend is an application, and the instance that it is.
func newBackend(t testing.TB, h http.HandlerFunc, changes ...func(*instance.Instance)) instance.Instance {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	inst := instance.Instance{
		ID: kubetest.ID(1), Template: "jupyter", Status: instance.StatusDeployed,
		Address: strings.TrimPrefix(server.URL, "http://"),
	}
	for _, change := range changes {
		change(&inst)
	}
	return inst
}

func TestProxyRefuses(t *testing.T) {
	id := kubetest.ID(1)
	for _, row := range []struct {
		name, path string
		inst       instance.Instance
		code       int
		retryAfter string
		says       string
	}{
		{"the root", "/", instance.Instance{}, 404, "", "nothing at this address"},
		{"no id", "/user/", instance.Instance{}, 404, "", "nothing at this address"},
		{"no valid id", "/user/me/tree", instance.Instance{ID: "me", Status: instance.StatusDeployed}, 404, "", "nothing at this address"},
		{"an id that is escaped", "/user/%30" + id[1:] + "/", instance.Instance{ID: id, Status: instance.StatusDeployed}, 404, "", "nothing at this address"},
		{"a prefix that is escaped", "/%75ser/" + id + "/", instance.Instance{ID: id, Status: instance.StatusDeployed}, 404, "", "nothing at this address"},
		{"another prefix", "/User/" + id + "/", instance.Instance{ID: id, Status: instance.StatusDeployed}, 404, "", "nothing at this address"},
		{"an unknown id", "/user/" + id + "/tree", instance.Instance{}, 404, "", "no such instance"},
		{"pending", "/user/" + id + "/", instance.Instance{ID: id, Status: instance.StatusPending}, 503, "1", "is starting"},
		{"deploying", "/user/" + id, instance.Instance{ID: id, Status: instance.StatusDeploying}, 503, "1", "is starting"},
		{"failed", "/user/" + id + "/", instance.Instance{ID: id, Status: instance.StatusFailed, Message: "image x: not found"}, 502, "", "failed: image x: not found"},
		{"deleted", "/user/" + id + "/", instance.Instance{ID: id, Status: instance.StatusDeleted, Message: "idle for 1h0m0s"}, 410, "", "over: idle for 1h0m0s"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := startProxy(t, row.inst)
			res, body := p.get(t, row.path)
			if res.StatusCode != row.code || !strings.Contains(body, row.says) {
				t.Errorf("got %d %q, want %d and %q", res.StatusCode, body, row.code, row.says)
			}
			for header, want := range map[string]string{
				"Retry-After": row.retryAfter, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
				"Content-Type": "text/plain; charset=utf-8", // what a message holds is no page
			} {
				if got := res.Header.Get(header); got != want {
					t.Errorf("%s is %q, want %q", header, got, want)
				}
			}
			if got := p.touches.of(row.inst.ID); got != 0 {
				t.Errorf("touched %d times, want never: it was not used", got)
			}
		})
	}
}

func TestProxyAddsTheSlash(t *testing.T) {
	inst := newBackend(t, func(http.ResponseWriter, *http.Request) { t.Error("the request was forwarded") })
	p := startProxy(t, inst)
	for query, want := range map[string]string{
		"":                    "/user/" + inst.ID + "/",
		"?token=a%2Fb&x=1":    "/user/" + inst.ID + "/?token=a%2Fb&x=1",
		"?//evil.example/..;": "/user/" + inst.ID + "/?//evil.example/..;",
	} {
		res, _ := p.get(t, "/user/"+inst.ID+query)
		if got := res.Header.Get("Location"); res.StatusCode != http.StatusTemporaryRedirect || got != want {
			t.Errorf("%q: got %d to %q, want 307 to %q", query, res.StatusCode, got, want)
		}
	}
	if got := p.touches.of(inst.ID); got != 0 {
		t.Errorf("touched %d times, want never: nothing was forwarded", got)
	}
}

// What another replica has just told a client may be news to this one's watch,
// and what is starting may be there in a moment.
func TestProxyWaitsAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, time.Now)
		proxy := proxy.New(c.Cluster, func(string, instance.Source) {}, protocol.NewAPIKey(testAPIKey).Opens, kubetest.NoLog())
		for _, row := range []struct {
			name   string
			before func()
			during func()
			code   int
			waits  bool
		}{
			{name: "unknown", code: 404, waits: true},
			{name: "starting", before: func() { c.put(t, kubetest.Pod(kubetest.ID(1), time.Now(), kubetest.Starting)) }, code: 503, waits: true},
			{name: "becomes ready", during: func() { c.put(t, kubetest.Pod(kubetest.ID(1), time.Now())) }, code: 307},
			{name: "is ready", code: 307},
			{name: "is over", before: func() { c.put(t, kubetest.Pod(kubetest.ID(1), time.Now(), kubetest.Deleting)) }, code: 410},
			{name: "has failed", before: func() { c.put(t, kubetest.Pod(kubetest.ID(1), time.Now(), kubetest.Broken)) }, code: 502},
		} {
			if row.before != nil {
				row.before()
			}
			var meanwhile sync.WaitGroup
			if row.during != nil {
				meanwhile.Go(func() {
					time.Sleep(instance.WatchDelay / 2)
					row.during()
				})
			}
			began := time.Now()
			res := ask(t, proxy, "GET", "/user/"+kubetest.ID(1), "", "")
			took := time.Since(began)
			meanwhile.Wait()
			if waited := took == instance.WatchDelay; res.Code != row.code || waited != row.waits || took > instance.WatchDelay {
				t.Errorf("%s: got %d after %s, want %d, and the whole wait: %v", row.name, res.Code, took, row.code, row.waits)
			}
		}
	})
}

func TestProxyKeepsPathAndQuery(t *testing.T) {
	base := "/user/" + kubetest.ID(1)
	for _, row := range []struct {
		rest, stripped string
	}{
		{"/", "/"},
		{"/tree", "/tree"},
		{"/tree/", "/tree/"},
		{"/files/a%2Fb%20c.txt", "/files/a%2Fb%20c.txt"},
		{"/files/%41", "/files/%41"},
		{"/files/caf%C3%A9", "/files/caf%C3%A9"},
		{"/files/x;v=1,2:@&=+$!*'()", "/files/x;v=1,2:@&=+$!*'()"},
		{"//twice", "//twice"},
		{"/a/../b/./c", "/a/../b/./c"}, // for the application to read
		{"/api?x=1&y=%2F&x=2&z", "/api?x=1&y=%2F&x=2&z"},
		{"/api?", "/api?"},
		{"/api?b=1;c=2&a=%zz&%&=", "/api?b=1;c=2&a=%zz&%&="}, // that it is malformed is the application's business
		{"/?a=b%20c+d", "/?a=b%20c+d"},
		{"/user/" + kubetest.ID(1) + "/again", "/user/" + kubetest.ID(1) + "/again"}, // only the first is ours
		{"/%2F", "/%2F"},
	} {
		for strip, want := range map[bool]string{false: base + row.rest, true: row.stripped} {
			seen := make(chan string, 1)
			inst := newBackend(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r.RequestURI },
				func(inst *instance.Instance) { inst.StripPrefix = strip })
			res, _ := startProxy(t, inst).get(t, base+row.rest)
			if res.StatusCode != http.StatusOK {
				t.Errorf("%s: got %d, want 200", row.rest, res.StatusCode)
				continue
			}
			if got := <-seen; got != want {
				t.Errorf("strip %v: %s reached the application as %s, want %s", strip, base+row.rest, got, want)
			}
		}
	}
}

func TestProxyPassesMethodBodyAndAnswer(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 1<<16) // a MiB, more than any buffer
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"} {
		inst := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			w.Header().Set("X-Method", r.Method)
			w.Header().Add("Set-Cookie", "a=1")
			w.Header().Add("Set-Cookie", "b=2")
			w.WriteHeader(http.StatusTeapot)
			_, _ = w.Write(body)
		})
		p := startProxy(t, inst)
		r, err := http.NewRequestWithContext(t.Context(), method, p.URL+"/user/"+inst.ID+"/echo", strings.NewReader(large))
		if err != nil {
			t.Fatal(err)
		}
		res, body := p.do(t, r)
		if res.StatusCode != http.StatusTeapot || res.Header.Get("X-Method") != method || len(res.Header["Set-Cookie"]) != 2 {
			t.Errorf("%s: got %d %v", method, res.StatusCode, res.Header)
		}
		if body != large {
			t.Errorf("%s: %d bytes came back changed, of %d", method, len(body), len(large))
		}
	}
}

func TestProxyWhenTheApplicationDoesNotAnswer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close() // and nobody listens there any more
	inst := instance.Instance{ID: kubetest.ID(1), Template: "jupyter", Status: instance.StatusDeployed, Address: listener.Addr().String()}
	p := startProxy(t, inst)
	res, body := p.get(t, "/user/"+inst.ID+"/?token=secret", "Authorization", "token "+testAPIKey)
	if res.StatusCode != http.StatusBadGateway || !strings.Contains(body, "did not answer") {
		t.Errorf("got %d %q, want 502", res.StatusCode, body)
	}
	if got := p.touches.of(inst.ID); got != 0 {
		t.Errorf("touched %d times, want never: the proxy answered by itself", got)
	}
	if strings.Contains(body, inst.Address) {
		t.Errorf("the visitor is told the address: %q", body)
	}
	for _, want := range []string{"level=WARN", "id=" + inst.ID, "template=jupyter", "refused"} {
		if !strings.Contains(p.log.String(), want) {
			t.Errorf("logged %q, want %q in it", p.log, want)
		}
	}
	for _, secret := range []string{testAPIKey, "secret"} {
		if strings.Contains(p.log.String(), secret) {
			t.Errorf("%q is in the log: %s", secret, p.log)
		}
	}
}

// Nor where it takes the connection, and breaks it.
func TestProxyWhenTheApplicationBreaksOff(t *testing.T) {
	inst := newBackend(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	p := startProxy(t, inst)
	if res, body := p.get(t, "/user/"+inst.ID+"/tree"); res.StatusCode != http.StatusBadGateway {
		t.Errorf("got %d %q, want 502", res.StatusCode, body)
	}
	if got := p.touches.of(inst.ID); got != 0 {
		t.Errorf("touched %d times, want never: the proxy answered by itself", got)
	}
}

func TestProxyWhenTheVisitorGoes(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	arrived, ended := make(chan struct{}), make(chan struct{})
	inst := newBackend(t, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done() // the application learns of it
		close(ended)
	})
	log, out := kubetest.RecordLog()
	proxy := proxy.New(fakeReader{inst}, func(string, instance.Source) {}, protocol.NewAPIKey(testAPIKey).Opens, log)
	go func() {
		<-arrived
		cancel()
	}()
	proxy.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/user/"+inst.ID+"/", nil))
	select {
	case <-ended:
	case <-time.After(kubetest.Patience):
		t.Error("the application's request goes on")
	}
	if out.String() != "" {
		t.Errorf("logged %q, want nothing: nobody is at fault", out)
	}
}

func TestBufferPoolLendsBuffersAgain(t *testing.T) {
	pool := &proxy.BufferPool{}
	buffer := pool.Get()
	if len(buffer) != proxy.CopyBuffer {
		t.Errorf("a buffer of %d bytes, want %d", len(buffer), proxy.CopyBuffer)
	}
	// sync.Pool may drop what it is given, at random with the race detector.
	for range 100 {
		copy(buffer, "used")
		pool.Put(buffer)
		buffer = pool.Get()
		if bytes.HasPrefix(buffer, []byte("used")) {
			return
		}
	}
	t.Error("no buffer came back in 100 times")
}
