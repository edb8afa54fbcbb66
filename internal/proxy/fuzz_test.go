package proxy

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// FuzzTarget sends request targets to a proxy with two instances, of which the second has
// strip-prefix. Each application gets only what is below its own base URL, in the bytes
// that were sent, and a redirect stays there.
func FuzzTarget(f *testing.F) {
	other := instance.BaseURL(kubetest.ID(2))
	for _, seed := range []string{
		"/", base, base[:len(base)-1], base[:len(base)-1] + "?a=b", base + "..%2f", base + "../" + kubetest.ID(2) + "/", other + "/evil.example//x", other + "%2Fevil.example",
		other + `\evil.example`, "//evil.example" + base, "http://evil.example" + base + "x?y", "x:y://z" + base, "*", base + "\x7f\xff|%zz?%zz", base + "?binder-restarts=1&a",
		"/user/%30" + base[7:], base + ";/../x", "/user//" + base, other + "?http://x/",
	} {
		f.Add(seed)
	}
	asked := make(chan string, 1)
	serve := func(c wire) {
		for head := c.readHead(); head != ""; head = c.readHead() {
			asked <- head
			_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		}
	}
	restarted := func(inst *instance.Instance) { inst.Restarts = 1 }
	second := func(inst *instance.Instance) { inst.ID, inst.StripPrefix = kubetest.ID(2), true }
	p := startProxy(f, rawApplication(f, serve, restarted), rawApplication(f, serve, second))
	f.Fuzz(func(t *testing.T, target string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: hub.example\r\nCookie: binder-restarts-" + kubetest.ID(1) + "=9\r\nAccept: text/html\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n\r\n")))
		if err != nil {
			return // net/http answers
		}
		r.RemoteAddr = "192.0.2.1:1"
		answer := httptest.NewRecorder()
		p.handler.ServeHTTP(answer, r)
		sent := target
		if _, after, absolute := strings.Cut(target, "://"); absolute && !strings.HasPrefix(target, "/") {
			sent = after[max(strings.IndexAny(after, "/?"), 0):]
		}
		id := strings.TrimPrefix(sent, instance.UserPrefix)
		id = id[:min(len(id), len(kubetest.ID(1)))]
		own := instance.BaseURL(id)
		if to := answer.Header().Get("Location"); to != "" {
			// Browsers send no dot segments, but a redirect of ours must not depend on that.
			if host, path := kubetest.Browse("hub.example", "/", strings.NewReplacer("..", "", "%2e", "", "%2E", "").Replace(to)); host != "hub.example" || !strings.HasPrefix(path, own) {
				t.Errorf("%q is redirected to %q: %s%s", target, to, host, path)
			}
		}
		select {
		case head := <-asked:
			line, _, _ := strings.Cut(head, "\r\n")
			parts := strings.Split(line, " ")
			if len(parts) != 3 || !strings.HasPrefix(sent, own) || id != kubetest.ID(1) && id != kubetest.ID(2) {
				t.Fatalf("%q asks for %q", target, line)
			}
			got, want := parts[1], sent
			if id == kubetest.ID(2) {
				got = strings.TrimSuffix(own, "/") + got
			}
			got, gotQuery, _ := strings.Cut(got, "?")
			want, wantQuery, _ := strings.Cut(want, "?")
			if unescapeOnce(got) != unescapeOnce(want) {
				t.Errorf("%q asks for the path %q", target, got)
			}
			if gotQuery != wantQuery && !strings.Contains(wantQuery, "binder-restarts=") {
				t.Errorf("%q asks for the query %q", target, gotQuery)
			}
		default:
		}
	})
}

// unescapeOnce decodes the valid escapes of a path.
func unescapeOnce(path string) string {
	var b strings.Builder
	for len(path) > 0 {
		if len(path) >= 3 && path[0] == '%' {
			if c, err := url.PathUnescape(path[:3]); err == nil {
				b.WriteString(c)
				path = path[3:]
				continue
			}
		}
		b.WriteByte(path[0])
		path = path[1:]
	}
	return b.String()
}

// browserCookie is a cookie as a browser keeps it.
type browserCookie struct {
	pair    string // what it sends back
	domains int    // attributes that name a domain
	paths   []string
}

// readSetCookie reads a Set-Cookie field as RFC 6265, section 5.2, and Chromium do. liberal
// trims more of attributes than they do, and quotes, as some clients do.
func readSetCookie(field string, liberal bool) browserCookie {
	trim := func(s string) string {
		if liberal {
			return strings.TrimFunc(s, func(c rune) bool { return c == '"' || unicode.IsSpace(c) })
		}
		return strings.Trim(s, " \t")
	}
	if end := strings.IndexAny(field, "\x00\r\n"); end >= 0 && !liberal {
		field = field[:end]
	}
	pair, attributes, _ := strings.Cut(field, ";")
	name, value, found := strings.Cut(pair, "=")
	cookie := browserCookie{pair: strings.Trim(name, " \t") + "=" + strings.Trim(value, " \t")}
	if !found {
		name, value = "", name
	}
	if strings.Trim(name, " \t") == "" { // a cookie without a name
		cookie.pair = strings.Trim(value, " \t")
	}
	for attribute := range strings.SplitSeq(attributes, ";") {
		name, value, _ := strings.Cut(attribute, "=")
		switch strings.ToLower(trim(name)) {
		case "domain":
			cookie.domains++
		case "path":
			cookie.paths = append(cookie.paths, trim(value))
		}
	}
	return cookie
}

// FuzzConfineCookie checks what browsers make of the cookies that pass: none has a domain,
// none has a path beyond the instance, and none is a hidden one.
func FuzzConfineCookie(f *testing.F) {
	for _, seed := range []string{
		"a=b", "a=b; Path=/", "a=b;\tpATH\t=\t/x; Domain=.example", "a=b; Path=\"/\"", "a=b; Path=BASEx", "=_login=x", "_login", " _login =x", "= = _login=x",
		"a=b; Path=/; Path=", "a=b; Domain; Path", "a=b; Path=\u00a0/", "a=\x00; Path=/", "_oauth2_1=\"x", "a=b; Path=BASE/../", "=", ";Path=/;", "a=b; Path==/; Domain==x",
	} {
		f.Add(strings.ReplaceAll(seed, "BASE", base[:len(base)-1]), false)
		f.Add(seed, true)
	}
	p := &Proxy{deps: Deps{HideCookies: []string{"_login", "_oauth2*"}}}
	f.Fuzz(func(t *testing.T, value string, strip bool) {
		m := newMapping(&http.Request{Host: "hub.example"}, instance.Instance{ID: kubetest.ID(1), StripPrefix: strip})
		confined := p.confineCookie(m, value)
		if confined == "" {
			return
		}
		for _, liberal := range []bool{false, true} {
			cookie := readSetCookie(confined, liberal)
			if cookie.domains > 0 {
				t.Errorf("%q becomes %q, which has a domain", value, confined)
			}
			for _, path := range cookie.paths {
				if strings.HasPrefix(path, "/") && path+"/" != base && !strings.HasPrefix(path, base) {
					t.Errorf("%q becomes %q, which has the path %q", value, confined, path)
				}
			}
			if name, _, _ := strings.Cut(cookie.pair, "="); strings.TrimSpace(name) == "_login" || strings.HasPrefix(strings.TrimSpace(name), "_oauth2") {
				t.Errorf("%q becomes %q, which browsers send back as %q", value, confined, cookie.pair)
			}
		}
		if again := p.confineCookie(m, confined); again != confined {
			t.Errorf("%q becomes %q, and that %q", value, confined, again)
		}
	})
}

// FuzzConfineCookies checks what is passed on of the cookies of a request: bytes of the
// fields in their order, at most maxCookies, and no hidden cookie.
func FuzzConfineCookies(f *testing.F) {
	f.Add("a=b; _login=x;c", 0)
	f.Add("_login=x\na=\"; _login=y\"\n\n=_login=z", 0)
	f.Add("a=b; _oauth2=;;; _login", 9000)
	f.Add("a", 7998)
	f.Add(strings.Repeat("\n", 3000), 0)
	p := &Proxy{deps: Deps{HideCookies: []string{"_login", "_oauth2*"}}}
	f.Fuzz(func(t *testing.T, fields string, padding int) {
		fields = strings.Replace(fields, "a", "a"+strings.Repeat("x", max(padding, 0)%(2*maxCookies)), 1)
		h := http.Header{"Cookie": strings.Split(fields, "\n")}
		p.confineCookies(h)
		size, rest := 0, fields
		for _, line := range h["Cookie"] {
			size += len("Cookie: ") + len(line)
			for pair := range strings.SplitSeq(line, ";") {
				name, _, _ := strings.Cut(pair, "=")
				if name = strings.TrimSpace(name); name == "_login" || strings.HasPrefix(name, "_oauth2") {
					t.Errorf("%q passes in %q", pair, h["Cookie"])
				}
				_, after, found := strings.Cut(rest, strings.TrimSpace(pair))
				if !found {
					t.Errorf("%q is not in what was sent", pair)
				}
				rest = after
			}
		}
		if size > maxCookies {
			t.Errorf("%d bytes pass", size)
		}
	})
}

// FuzzMapping checks where browsers go by the addresses in an answer. An address of the
// visitor's own host or of the application's stays on the visitor's host, and with
// strip-prefix below the base URL. All others stay as they are, and so does what is mapped.
func FuzzMapping(f *testing.F) {
	for _, seed := range []string{
		"/login", "/../x", "/%2E./x", `/..\x`, "//evil.example", "http://localhost:8888/x", "http://localhost:8888//evil.example", `http://localhost:8888/\evil.example`,
		"//hub.example/../x", "http://hub.example:80//x", "http://hub.example", "http://10.0.0.7:8888BASE/../x", "BASE/../../x", "BASE?a", "../x", "?a=/../", "/x?..", "/./", "/a/..", "BASE/..",
		"5; url=/x", `</a>; title="<"`, "http://hub.example?/..", "/x/..;/../y",
	} {
		f.Add(strings.ReplaceAll(seed, "BASE", base[:len(base)-1]), true)
		f.Add(strings.ReplaceAll(seed, "BASE", base[:len(base)-1]), false)
	}
	f.Fuzz(func(t *testing.T, value string, strip bool) {
		m := newMapping(&http.Request{Host: "hub.example"}, instance.Instance{ID: kubetest.ID(1), Address: "10.0.0.7:8888", StripPrefix: strip})
		for _, name := range []string{"Location", "Refresh", "Link"} {
			h := http.Header{name: {value}}
			m.header(h)
			once := h[name][0]
			m.header(h)
			if h[name][0] != once {
				t.Errorf("%s: %q becomes %q, and then %q", name, value, once, h[name][0])
			}
		}
		address, err := url.Parse(value)
		if err != nil || address.User != nil || address.Scheme != "" && address.Host == "" {
			return // the URL standard reads more into it than RFC 3986
		}
		mapped := m.reference(value)
		was, _ := kubetest.Browse("hub.example", base+"a/b", value)
		host, path := kubetest.Browse("hub.example", base+"a/b", mapped)
		own := m.isOwn(address.Host) && (address.Scheme == "" || address.Scheme == "http" || address.Scheme == "https")
		switch {
		case was != "hub.example" && !own:
			if mapped != value {
				t.Errorf("%q becomes %q, which is another host's", value, mapped)
			}
		case host != "hub.example":
			t.Errorf("%q becomes %q, which leads to %s", value, mapped, host)
		case strip && (address.Host != "" || strings.HasPrefix(value, "/")) && path+"/" != base && !strings.HasPrefix(path, base):
			t.Errorf("%q becomes %q, which leads to %s", value, mapped, path)
		}
	})
}
