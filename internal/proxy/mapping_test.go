package proxy

import (
	"net/http"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// An application without a base URL answers with addresses of its own. The visitor
// gets those that lead into the instance. BASE stands for the path of the instance.
func TestMapsAddresses(t *testing.T) {
	prefix := strings.TrimSuffix(base, "/")
	inst := instance.Instance{ID: kubetest.ID(1), Address: "10.0.0.7:8888", StripPrefix: true}
	r := &http.Request{Host: "hub.example:8000", Header: http.Header{"X-Forwarded-Host": {"notebooks.example, inner.example"}}}
	for _, row := range []struct{ name, value, want, unprefixed string }{
		// want is what an application with strip-prefix needs; unprefixed is what one
		// with a base URL does, if the value changes.
		{"Location", "/login?next=%2F", "BASE/login?next=%2F", ""},
		{"Location", "/tree?", "BASE/tree?", ""},
		{"Location", "/", "BASE/", ""},
		{"Location", "http://localhost:8888/x", "BASE/x", "/x"},
		{"Location", "http://127.0.0.1:8888", "BASE/", "/"},
		{"Location", "HTTP://LocalHost:8888?a=b", "BASE/?a=b", "/?a=b"},
		{"Location", "http://[::1]:8888/x", "BASE/x", "/x"},
		{"Location", "http://0.0.0.0:8888BASE/x", "BASE/x", "BASE/x"},
		{"Location", "http://10.0.0.7:8888/x#f", "BASE/x#f", "/x#f"},
		{"Location", "http://" + instance.PodName(inst.ID) + ":8888/x", "BASE/x", "/x"},
		{"Location", "//localhost:8888/x", "BASE/x", "/x"},
		{"Location", "http://hub.example:8888/dir/", "BASE/dir/", "/dir/"}, // nginx
		{"Location", "http://Notebooks.example:8888BASE/dir/", "BASE/dir/", "BASE/dir/"},
		{"Location", "http://hub.example:8000/login", "http://hub.example:8000BASE/login", ""},
		{"Location", "https://notebooks.example/login", "https://notebooks.exampleBASE/login", ""},
		{"Location", "https://notebooks.example:443/login", "https://notebooks.example:443BASE/login", ""},
		{"Location", "http://notebooks.example:80/login", "http://notebooks.example:80BASE/login", ""},
		{"Location", "//hub.example:8000/x", "//hub.example:8000BASE/x", ""},
		{"Location", "/login?next=http://localhost:8888/x", "BASE/login?next=http://localhost:8888/x", ""},
		{"Location", "/userx", "BASE/userx", ""},
		{"Location", "BASEx/y", "BASEBASEx/y", ""},
		{"Location", "/user/" + kubetest.ID(2) + "/", "BASE/user/" + kubetest.ID(2) + "/", ""},
		// Dot segments lead nowhere at the application's root, and must not below the base URL.
		{"Location", "/../launch/x", "BASE/launch/x", ""},
		{"Location", "/a/%2E%2e/../x?../y", "BASE/x?../y", ""},
		{"Location", `/..\..\x`, "BASE/x", ""},
		{"Location", "BASE/../../x/..", "BASE/", ""},
		{"Location", "http://hub.example:8000/../x", "http://hub.example:8000BASE/x", ""},
		{"Location", "/.\t./x", "BASE/x", "/../x"},
		// A path with two slashes is not a host.
		{"Location", "http://localhost:8888//evil.example", "BASE//evil.example", "/.//evil.example"},
		{"Location", `http://localhost:8888/\evil.example`, `BASE/\evil.example`, `/./\evil.example`},
		{"Location", "http://localhost:8888/\t/evil.example", "BASE//evil.example", "/.//evil.example"},
		// These stay.
		{"Location", "", "", ""},
		{"Location", "login", "login", ""},
		{"Location", "../x", "../x", ""},
		{"Location", "?a=/b", "?a=/b", ""},
		{"Location", "#f", "#f", ""},
		{"Location", "BASE", "BASE", ""},
		{"Location", "BASE/tree", "BASE/tree", ""},
		{"Location", "BASE?x", "BASE?x", ""},
		{"Location", "http://hub.example:8000BASE/x", "http://hub.example:8000BASE/x", ""},
		{"Location", "https://login.example/x", "https://login.example/x", ""},
		{"Location", "//\xf9/\xff", "//\xf9/\xff", ""}, // not UTF-8
		{"Location", "//cdn.example/x", "//cdn.example/x", ""},
		{"Location", "http://localhost:9999/callback", "http://localhost:9999/callback", ""},
		{"Location", "http://hub.example:9999/x", "http://hub.example:9999/x", ""},
		{"Location", "http://hub.example/x", "http://hub.example/x", ""},
		{"Location", "http://login.example:8888/x", "http://login.example:8888/x", ""},
		{"Location", "http://:8888/x", "http://:8888/x", ""},
		{"Location", "http://me@localhost:8888/x", "http://me@localhost:8888/x", ""},
		{"Location", "ftp://localhost:8888/x", "ftp://localhost:8888/x", ""},
		{"Location", "mailto:a@b.example", "mailto:a@b.example", ""},
		{"Location", "data:text/plain,//localhost:8888/", "data:text/plain,//localhost:8888/", ""},
		{"Content-Location", "/doc.en.html", "BASE/doc.en.html", ""},
		{"Content-Location", "doc.en.html", "doc.en.html", ""},
		{"Refresh", "5", "5", ""},
		{"Refresh", "5; url=/next", "5; url=BASE/next", ""},
		{"Refresh", "0;URL='/next?a=b'", "0;URL='BASE/next?a=b'", ""},
		{"Refresh", "1.5, /next", "1.5, BASE/next", ""},
		{"Refresh", "5; url=http://localhost:8888/x", "5; url=BASE/x", "5; url=/x"},
		{"Refresh", "5; url=next", "5; url=next", ""},
		{"Refresh", "soon; url=/x", "soon; url=/x", ""},
		{"Link", "</style.css>; rel=preload; as=style", "<BASE/style.css>; rel=preload; as=style", ""},
		{"Link", `</a>; title="x, <no>; y", <b>; rel=next, </c>`, `<BASE/a>; title="x, <no>; y", <b>; rel=next, <BASE/c>`, ""},
		{"Link", `</a>; title="q\", <no>", </b>`, `<BASE/a>; title="q\", <no>", <BASE/b>`, ""},
		{"Link", "</unclosed", "</unclosed", ""},
		{"X-Custom", "/login", "/login", ""},
	} {
		fill := func(s string) string { return strings.ReplaceAll(s, "BASE", prefix) }
		for _, strip := range []bool{true, false} {
			inst.StripPrefix = strip
			want := row.want
			if !strip {
				want = row.unprefixed
				if want == "" {
					want = row.value
				}
			}
			h := http.Header{row.name: {fill(row.value), fill(row.value)}}
			newMapping(r, inst).header(h)
			if got := h[row.name]; got[0] != fill(want) || got[1] != fill(want) {
				t.Errorf("strip-prefix %t: %s: %s\n got %q\nwant %q", strip, row.name, row.value, got, fill(want))
			}
		}
	}
}

// An application on port 80 leaves it out of its addresses.
func TestMapsAddressesOfPort80(t *testing.T) {
	inst := instance.Instance{ID: kubetest.ID(1), Address: "[fd00::7]:80", StripPrefix: true}
	r := &http.Request{Host: "hub.example:8000"}
	for value, want := range map[string]string{
		"http://hub.example/dir/":      base + "dir/",
		"http://hub.example:80/dir/":   base + "dir/",
		"http://localhost/dir/":        base + "dir/",
		"http://[FD00::7]/dir/":        base + "dir/",
		"http://hub.example:8000/dir/": "http://hub.example:8000" + base + "dir/",
		"http://hub.example:8888/dir/": "http://hub.example:8888/dir/",
		"http://login.example/":        "http://login.example/",
	} {
		if got := newMapping(r, inst).reference(value); got != want {
			t.Errorf("%s: got %s, want %s", value, got, want)
		}
	}
}

// An application that redirects to the path it was asked for, with a slash added, does not
// lead its visitor to another host, whatever is in that path.
func TestMapsPathsThatLookLikeHosts(t *testing.T) {
	for _, row := range []struct{ asked, location, want string }{
		{"//evil.example", "//evil.example/", base[:len(base)-1] + "//evil.example/"},
		{"///evil.example", "///evil.example/", base[:len(base)-1] + "///evil.example/"},
		{"/%2Fevil.example", "//evil.example/", base[:len(base)-1] + "//evil.example/"},
		{"/%252Fevil.example", "//evil.example/", base[:len(base)-1] + "//evil.example/"},
		{"/%5Cevil.example", "//evil.example/", base[:len(base)-1] + "//evil.example/"},
		{`/\evil.example`, `/\evil.example/`, base[:len(base)-1] + `/\evil.example/`},
		{"/%09/evil.example", "/\t/evil.example/", base[:len(base)-1] + "//evil.example/"},
		{"/evil.example", "//evil.example/", "//evil.example/"}, // it was not asked for that
	} {
		p := startProxy(t, application(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Location"] = []string{row.location}
			w.WriteHeader(http.StatusMovedPermanently)
		}, stripPrefix))
		c := p.dial(t)
		c.request(t, "GET", base[:len(base)-1]+row.asked)
		if got := c.wantAnswer(t, http.StatusMovedPermanently, "").Header.Get("Location"); got != row.want {
			t.Errorf("%s is redirected to %s: got %s, want %s", row.asked, row.location, got, row.want)
		}
	}
}

// A long path costs no more than three rounds. With a round for each escape, this would take
// minutes.
func TestMapsLongPaths(t *testing.T) {
	long := "/%" + strings.Repeat("25", 1<<19)
	m := newMapping(&http.Request{RequestURI: base[:len(base)-1] + long}, instance.Instance{ID: kubetest.ID(1), StripPrefix: true})
	if m.doubleSlash {
		t.Error("the path is taken for a host")
	}
	dots := strings.Repeat("/..", 1<<18)
	if got, want := m.reference(dots+"/x"), m.base+"/x"; got != want {
		t.Errorf("got %.99s, want %s", got, want)
	}
}

// Destination is an address that the visitor's program sends.
func TestMapsDestination(t *testing.T) {
	inst := instance.Instance{ID: kubetest.ID(1), Address: "10.0.0.7:8888", StripPrefix: true}
	r := &http.Request{Host: "hub.example"}
	for value, want := range map[string]string{
		"http://hub.example" + base + "dav/b.txt": "http://hub.example/dav/b.txt",
		base + "dav/b.txt":                        "/dav/b.txt",
		strings.TrimSuffix(base, "/"):             "/",
		"http://other.example" + base + "b":       "http://other.example" + base + "b",
		"/elsewhere":                              "/elsewhere",
		base + "/evil.example/x":                  "/.//evil.example/x",
	} {
		if got := newMapping(r, inst).destination(value); got != want {
			t.Errorf("%s: got %s, want %s", value, got, want)
		}
	}
}
