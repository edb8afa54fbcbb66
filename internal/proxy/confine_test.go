package proxy

import (
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// A cookie that an application sets stays with its instance. BASE stands for the path of
// the instance.
func TestConfineCookie(t *testing.T) {
	other := strings.TrimSuffix(instance.BaseURL(kubetest.ID(2)), "/")
	for _, row := range []struct{ value, want, stripped string }{ // stripped is with strip-prefix, if it differs
		{"a=b", "a=b", ""},
		{"a=b; HttpOnly; Max-Age=1", "a=b; HttpOnly; Max-Age=1", ""},
		{"a=b; Path=/", "a=b; Path=BASE/", ""},
		{"a=b;path=/", "a=b;path=BASE/", ""},
		{"a=b; PATH = / ", "a=b; PATH =BASE/", ""},
		{"a=b; Path=/app; Secure", "a=b; Path=BASE/; Secure", "a=b; Path=BASE/app; Secure"},
		{"a=b; Path=BASE", "a=b; Path=BASE", ""},
		{"a=/x; Path=BASE/lab", "a=/x; Path=BASE/lab", ""},
		{"a=b; Path=BASEx", "a=b; Path=BASE/", "a=b; Path=BASEBASEx"},
		{"a=b; Path=" + other + "/", "a=b; Path=BASE/", "a=b; Path=BASE" + other + "/"},
		{"a=b; Path=/launch/", "a=b; Path=BASE/", "a=b; Path=BASE/launch/"},
		{"a=b; Path; Path=x; Path=/y", "a=b; Path; Path=x; Path=BASE/", "a=b; Path; Path=x; Path=BASE/y"},
		{"a=b; Path=BASE/; Path=/", "a=b; Path=BASE/; Path=BASE/", ""},
		{"a=b; Domain=hub.example; Path=/", "a=b; Path=BASE/", ""},
		{"a=b; domain=.example", "a=b", ""},
		{"a=b; Domain", "a=b", ""},
		{"path=/x; Max-Age=1", "path=/x; Max-Age=1", ""},
		{"_login=x; Path=/", "", ""},
		{" _login =x", "", ""},
		{"_oauth2_1=x", "", ""},
		{"_logins=x", "_logins=x", ""},
		{"=_login=x", "", ""},
		{" = = _login", "", ""},
		{"_login\x00=x", "", ""},
		{"a=b\x00; Path=/", "", ""},
		{`a=b; Path="/"`, `a=b; Path=BASE/`, ""},
		{"a=\tb", "a=\tb", ""},
	} {
		for _, strip := range []bool{false, true} {
			p := &Proxy{deps: Deps{HideCookies: []string{"_login", "_oauth2*"}}}
			m := newMapping(&http.Request{Host: "hub.example"}, instance.Instance{ID: kubetest.ID(1), StripPrefix: strip})
			fill := strings.NewReplacer("BASE", m.base).Replace
			want := row.want
			if strip && row.stripped != "" {
				want = row.stripped
			}
			if got := p.confineCookie(m, fill(row.value)); got != fill(want) {
				t.Errorf("%q, strip-prefix %t: got %q, want %q", row.value, strip, got, fill(want))
			}
		}
	}
}

// A cookie for one host stays one, where the host is the instance's own. Others are
// confined as well.
func TestConfineCookieAtAnOwnHost(t *testing.T) {
	p := &Proxy{}
	m := newMapping(&http.Request{Host: "x"}, instance.Instance{ID: kubetest.ID(1)}).within(layout())
	for value, want := range map[string]string{
		"__Host-a=b; Path=/; Secure":                   "__Host-a=b; Path=/; Secure",
		"__hOsT-a=b; Path=/; Domain=users.example":     "__hOsT-a=b; Path=/",
		"a=__Host-; Path=/":                            "a=__Host-; Path=" + base,
		"a=b; Path=/; Domain=users.example":            "a=b; Path=" + base,
		"__Secure-a=b; Path=/; domain=.users.example;": "__Secure-a=b; Path=" + base + ";",
	} {
		if got := p.confineCookie(m, value); got != want {
			t.Errorf("%q: got %q, want %q", value, got, want)
		}
	}
}

// An application gets the first cookies, which are its own, and none that is hidden.
func TestConfineCookies(t *testing.T) {
	bomb := func(n int) string {
		var pairs []string
		for i := range n {
			pairs = append(pairs, fmt.Sprintf("c%d=%s", i, strings.Repeat("x", 4000)))
		}
		return strings.Join(pairs, "; ")
	}
	for _, row := range []struct {
		name      string
		sent, got []string
	}{
		{"none", nil, nil},
		{"one", []string{"a=b"}, []string{"a=b"}},
		{"several, byte for byte", []string{`a="x y";b=,; c`, "d"}, []string{`a="x y";b=,; c`, "d"}},
		{"hidden", []string{"a=b; _login=secret; c=d"}, []string{"a=b; c=d"}},
		{"only hidden", []string{"_oauth2_0=secret; _oauth2_1=secret"}, nil},
		{"hidden in a field of its own", []string{"_login=secret", "a=b"}, []string{"a=b"}},
		{"too many", []string{"own=1; " + bomb(170)}, []string{"own=1; " + bomb(1)}},
		{"too many fields", []string{"own=1", bomb(170), "last=1"}, []string{"own=1", bomb(1)}},
		{"one that is too large", []string{"own=1; big=" + strings.Repeat("x", 9000)}, []string{"own=1"}},
	} {
		var seen []string
		p := startProxy(t, application(t, func(_ http.ResponseWriter, r *http.Request) { seen = r.Header["Cookie"] }))
		p.handler.deps.HideCookies = []string{"_login", "_oauth2*"}
		var header []string
		for _, line := range row.sent {
			header = append(header, "Cookie: "+line)
		}
		c := p.dial(t)
		c.request(t, "GET", base, header...)
		c.wantAnswer(t, 200, "")
		if fmt.Sprint(seen) != fmt.Sprint(row.got) {
			t.Errorf("%s: got %.100q, want %.100q", row.name, seen, row.got)
		}
	}
}

func TestConfineReferer(t *testing.T) {
	m := newMapping(&http.Request{Host: "hub.example", Header: http.Header{"X-Forwarded-Host": {"notebooks.example"}}}, instance.Instance{ID: kubetest.ID(1)})
	other := instance.BaseURL(kubetest.ID(2))
	for value, want := range map[string]string{
		"https://hub.example" + m.base + "/lab?a=b":    "https://hub.example" + m.base + "/lab?a=b",
		"https://notebooks.example:443" + m.base:       "https://notebooks.example:443" + m.base,
		"http://hub.example" + other + "lab":           "http://hub.example/",
		"http://hub.example" + m.base + "0/":           "http://hub.example/",
		"http://hub.example/launch/jupyter?path=x":     "http://hub.example/",
		"http://hub.example":                           "http://hub.example/",
		"https://course.example/week/1?token=secret":   "https://course.example/",
		"https://course.example" + m.base + "/":        "https://course.example/",
		"https://me:secret@course.example:8443/?a#b":   "https://course.example:8443/",
		"//hub.example" + other:                        "//hub.example/",
		"about:blank":                                  "",
		other:                                          "",
		"android-app://com.example.app/" + other + "x": "",
		"": "",
	} {
		h := http.Header{"Referer": {value}}
		confineReferer(h, m)
		if got := h.Get("Referer"); got != want {
			t.Errorf("%s: got %q, want %q", value, got, want)
		}
	}
}

// What acts on more than the answer is removed from interim answers and from that of an
// upgrade, too.
func TestFarReachingFieldsOfOtherAnswers(t *testing.T) {
	const fields = "NEL: {}\r\nX-Accel-Redirect: /etc/passwd\r\nX-Other: 1\r\n"
	p := startProxy(t, rawApplication(t, func(c wire) {
		head := c.readHead()
		_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n"+fields+"\r\n")
		if strings.Contains(head, "Upgrade: x") {
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n"+fields+"\r\n")
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"+fields+"\r\n")
	}))
	for _, header := range [][]string{nil, {"Connection: Upgrade", "Upgrade: x"}} {
		c := p.dial(t)
		c.request(t, "GET", base, header...)
		for range 2 {
			if head := c.readHead(); strings.Contains(strings.ToLower(head), "nel:") || strings.Contains(head, "X-Accel") || !strings.Contains(head, "X-Other: 1") {
				t.Errorf("got %q", head)
			}
		}
	}
}

// Fields in the trailer of an answer are confined as those of its header.
func TestFarReachingFieldsOfTrailers(t *testing.T) {
	p := startProxy(t, answering(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: NEL, X-Other, Set-Cookie\r\n\r\n2\r\nok\r\n0\r\n"+
		"NEL: {}\r\nX-Other: 1\r\nSet-Cookie: a=b; Path=/\r\nX-Accel-Redirect: /etc/passwd\r\nClear-Site-Data: \"*\"\r\n\r\n"))
	c := p.dial(t)
	c.request(t, "GET", base, "TE: trailers")
	res := c.wantAnswer(t, 200, "ok")
	want := http.Header{"X-Other": {"1"}, "Set-Cookie": {"a=b; Path=" + base}}
	if !reflect.DeepEqual(res.Trailer, want) {
		t.Errorf("got the trailer %v, want %v", res.Trailer, want)
	}
}

// An answer cannot command a server in front of this service.
func TestCommandsToServers(t *testing.T) {
	for name, want := range map[string]bool{
		"X-Accel-Redirect": true, "X-Accel-Limit-Rate": true, "X-Accel-Buffering": false, "X-Sendfile": true, "X-Sendfile2": true, "X-Lighttpd-Send-Tempfile": true,
		"X-Litespeed-Location": true, "X-Litespeed-Purge": true, "X-Reproxy-Url": true, "X-Envoy-Immediate-Health-Check-Fail": true, "X-Envoy-Degraded": true,
		"X-Accelerator": false, "X-Environment": false, "Link": false,
	} {
		if got := commandsServer(name); got != want {
			t.Errorf("%s: got %t", name, got)
		}
	}
}
