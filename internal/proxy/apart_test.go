package proxy

import (
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/origin"
)

// layout has a host for each instance.
func layout() origin.Layout {
	return origin.Layout{Public: []string{"hub.example"}, Domain: "users.example:8443"}
}

// startApart starts a proxy with a host for each instance.
func startApart(t testing.TB, instances ...instance.Instance) *testProxy {
	t.Helper()
	p := startProxy(t, instances...)
	p.handler.deps.Layout = layout()
	p.handler.deps.LaunchPage = true
	return p
}

// send sends a request to a host.
func (p *testProxy) send(t testing.TB, method, host, target string, headers ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, p.URL+target, strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	res, err := p.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res
}

// An instance's host has that instance and nothing else, and only its host has it.
func TestHostOfAnInstance(t *testing.T) {
	p := startApart(t, application(t, func(http.ResponseWriter, *http.Request) {}))
	id, other := kubetest.ID(1), kubetest.ID(2)
	const domain = ".users.example:8443"
	for _, row := range []struct {
		host, target string
		code         int
		location     string
	}{
		{id + domain, base, 200, ""},
		{id + domain, base + "a//b?x=/", 200, ""},
		{id + ".users.example", base, 200, ""},
		{id + ".USERS.example:1", base, 200, ""},
		{id + domain, "/", 307, base},
		{id + domain, "/?token=a%2Fb&c", 307, base + "?token=a%2Fb&c"},
		{id + domain, strings.TrimSuffix(base, "/") + "?a", 307, base + "?a"},
		{id + domain, instance.BaseURL(other), 404, ""},
		{id + domain, "//", 404, ""},
		{id + domain, "/launch/jupyter", 404, ""},
		{id + domain, "/progress/" + id, 404, ""},
		{id + domain, "/favicon.ico", 404, ""},
		{id + domain, "/user/", 404, ""},
		{other + domain, base, 404, ""},
		{other + domain, instance.BaseURL(other), 404, ""}, // there is no such instance
		{id + ".users.example.", base, 404, ""},
		{strings.Repeat("A", 32) + domain, "/", 404, ""},
		{strings.Repeat("A", 32) + domain, "/user/" + strings.Repeat("A", 32) + "/", 404, ""},
		{"a." + id + domain, base, 404, ""},
		{"a." + id + domain, "/", 404, ""},
		{"www" + domain, base, 404, ""},
		{"users.example:8443", base, 404, ""},
		{"users.example:8443", "/", 404, ""},

		{"hub.example", base, 307, "//" + id + domain + base},
		{"hub.example", base + "a%2F/../b?x=//evil.example&", 307, "//" + id + domain + base + "a%2F/../b?x=//evil.example&"},
		{"hub.example", strings.TrimSuffix(base, "/"), 307, "//" + id + domain + strings.TrimSuffix(base, "/")},
		{"hub.example", strings.TrimSuffix(base, "/") + "//evil.example", 307, "//" + id + domain + base + "/evil.example"},
		{"hub.example", base + "\\evil.example", 307, "//" + id + domain + base + "%5Cevil.example"},
		{"hub.example", instance.BaseURL(other), 307, "//" + other + domain + instance.BaseURL(other)},
		{"10.0.0.7:8000", base, 307, "//" + id + domain + base},
		{"evil.example", base, 307, "//" + id + domain + base},
		{"hub.example", "/user/" + id + "@evil.example/", 404, ""},
		{"hub.example", "/user/" + id + ".evil.example/", 404, ""},
		{"hub.example", "/user/" + id + "%2F..%2Fx/", 404, ""},
		{"hub.example", "/", 404, ""},
		{id + "users.example", "/", 404, ""}, // not in the domain
	} {
		for _, method := range []string{"GET", "POST", "OPTIONS"} {
			res := p.send(t, method, row.host, row.target, "Accept", "text/html")
			if got := res.Header.Get("Location"); res.StatusCode != row.code || got != row.location {
				t.Errorf("%s %s%s: got %d %q, want %d %q", method, row.host, row.target, res.StatusCode, got, row.code, row.location)
			}
			if page := strings.HasPrefix(res.Header.Get("Content-Type"), "text/html"); res.StatusCode == 404 && method == "GET" && !page {
				t.Errorf("%s%s: the answer is no page", row.host, row.target)
			}
		}
	}
	if touched := p.touched(1); touched == 0 {
		t.Error("the visits do not count")
	}
}

// Another port of an instance has a host of its own, if the template opens it. All of its paths are
// the application's, as they are.
func TestPortsOfAnInstance(t *testing.T) {
	inst := application(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Path", "the other application's") })
	second := application(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Path", r.RequestURI)
		w.Header().Set("X-Host", r.Host+" "+r.Header.Get("X-Forwarded-Prefix"))
		w.Header().Set("Location", "/next")
		w.Header().Set("Set-Cookie", "a=b; Path=/x; Domain=example")
	})
	_, port, err := net.SplitHostPort(second.Address)
	if err != nil {
		t.Fatal(err)
	}
	inst.Ports, inst.StripPrefix, inst.IdlePaths, inst.Restarts = "1, "+port, true, ".*", 1
	p := startApart(t, inst)
	id := kubetest.ID(1)
	const domain = ".users.example:8443"
	for target, want := range map[string]string{"/": "/", "/a//b%2F?x=/": "/a//b%2F?x=/", base + "x": base + "x", "/launch/jupyter": "/launch/jupyter", "/?binder-restarts=1": "/?binder-restarts=1"} {
		host := port + "-" + id + domain
		res := p.send(t, "GET", host, target, "Accept", "text/html", "Upgrade-Insecure-Requests", "1")
		if got := res.Header.Get("X-Path"); res.StatusCode != 200 || got != want || res.Header.Get("X-Host") != host {
			t.Errorf("%s: got %d, and the application %q at %q", target, res.StatusCode, got, res.Header.Get("X-Host"))
		}
		if res.Header.Get("Location") != "/next" || res.Header.Get("Set-Cookie") != "a=b; Path=/x" {
			t.Errorf("%s: the header is %v", target, res.Header)
		}
	}
	if p.touched(1) == 0 {
		t.Error("the visits do not count")
	}
	for _, other := range []string{"2-" + id, port + "-" + kubetest.ID(2)} {
		if res := p.send(t, "GET", other+domain, "/", "Accept", "text/html"); res.StatusCode != 404 || res.Header.Get("X-Path") != "" {
			t.Errorf("%s: got %d %v", other, res.StatusCode, res.Header)
		}
	}
	if res := p.send(t, "GET", "1-"+id+domain, "/", "Accept", "text/html"); res.StatusCode != 502 { // nothing listens
		t.Errorf("a port at which nothing listens: got %d", res.StatusCode)
	}
	if res := p.send(t, "GET", port+"-"+id+".hub.example", "/"); res.Header.Get("X-Path") != "" {
		t.Errorf("outside the domain: got %d %v", res.StatusCode, res.Header)
	}
}

// A WebSocket handshake to another host is told where the instance is. Browsers do not
// follow; programs may.
func TestWebSocketAtAnotherHost(t *testing.T) {
	p := startApart(t, application(t, func(http.ResponseWriter, *http.Request) { t.Error("it came through") }))
	c := p.dial(t)
	c.request(t, "GET", base+"ws?x", "Host: hub.example", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
	if head := c.readHead(); !strings.HasPrefix(head, "HTTP/1.1 307 ") || !strings.Contains(head, "Location: //"+kubetest.ID(1)+".users.example:8443"+base+"ws?x\r\n") {
		t.Errorf("got %q", head)
	}
}

// What names another instance does not reach an application, nor does the browser tell
// other sites where the page of an instance is.
func TestOtherInstancesAreNotNamed(t *testing.T) {
	var seen http.Header
	policy := ""
	p := startApart(t, application(t, func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Clone()
		if policy != "" {
			w.Header().Set("Referrer-Policy", policy)
		}
	}))
	const domain = ".users.example:8443"
	own, other := "https://"+kubetest.ID(1)+domain, "https://"+kubetest.ID(2)+domain
	for _, row := range []struct{ name, value, want string }{
		{"Referer", own + base + "lab?a", own + base + "lab?a"},
		{"Referer", own + "/", own + "/"},
		{"Referer", other + "/", ""},
		{"Referer", other + instance.BaseURL(kubetest.ID(2)) + "lab", ""},
		{"Referer", other + base, ""},
		{"Referer", "https://" + strings.ToUpper(kubetest.ID(2)) + ".Users.example./", ""},
		{"Referer", "https://me@" + kubetest.ID(2) + domain + "/", ""},
		{"Referer", "https://hub.example/launch/x", "https://hub.example/"},
		{"Ping-From", other + "/", ""},
		{"Ping-To", own + base + "x", own + base + "x"},
		{"Origin", own, own},
		{"Origin", other, "null"},
		{"Origin", "https://hub.example", "https://hub.example"},
		{"Origin", "null", "null"},
	} {
		p.send(t, "GET", kubetest.ID(1)+domain, base, row.name, row.value)
		if got := seen.Get(row.name); got != row.want {
			t.Errorf("%s: %s: got %q, want %q", row.name, row.value, got, row.want)
		}
	}
	for _, policy = range []string{"", "unsafe-url"} {
		want := policy
		if want == "" {
			want = "same-origin"
		}
		if got := p.send(t, "GET", kubetest.ID(1)+domain, base).Header.Values("Referrer-Policy"); strings.Join(got, ",") != want {
			t.Errorf("with %q: got %q", policy, got)
		}
	}
}

// With strip-prefix, an application can be made to believe that its path begins with two
// slashes. Its redirect to itself must not lead to another host.
func TestDoubleSlashLeadsNowhere(t *testing.T) {
	for _, row := range []struct{ path, location, want string }{
		{"//evil.example/dir", "//evil.example/dir/", "BASE//evil.example/dir/"},
		{"///evil.example", "///evil.example/", "BASE///evil.example/"},
		{"/%2Fevil.example/dir", "//evil.example/dir/", "BASE//evil.example/dir/"},
		{"/%252fevil.example/dir", "//evil.example/dir/", "BASE//evil.example/dir/"},
		{"//evil.example", "/evil.example/", "BASE/evil.example/"},
		{"//evil.example", "https://login.example/", "https://login.example/"},
		{"/\\evil.example", "/\\evil.example/", "BASE/\\evil.example/"},
		{"/login", "//login.example/", "//login.example/"}, // the application's own wish
	} {
		prefix := strings.TrimSuffix(base, "/")
		r := &http.Request{Host: "hub.example", RequestURI: prefix + row.path}
		m := newMapping(r, instance.Instance{ID: kubetest.ID(1), Address: "10.0.0.7:8888", StripPrefix: true})
		if got, want := m.reference(row.location), strings.ReplaceAll(row.want, "BASE", prefix); got != want {
			t.Errorf("%s: %s becomes %s, want %s", row.path, row.location, got, want)
		}
	}
}
