package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// headersSeen are the headers and the Host by which an application sees a
// request through the proxy; headers are given as name, value, name, value.
func headersSeen(t testing.TB, headers ...string) (http.Header, string) {
	t.Helper()
	type seen struct {
		header http.Header
		host   string
	}
	requests := make(chan seen, 1)
	inst := newBackend(t, func(_ http.ResponseWriter, r *http.Request) { requests <- seen{r.Header, r.Host} })
	p := startProxy(t, inst)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.URL+"/user/"+inst.ID+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "hub.example:8000"
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	if res, body := p.do(t, r); res.StatusCode != http.StatusOK {
		t.Fatalf("got %d %q, want 200", res.StatusCode, body)
	}
	request := <-requests
	return request.header, request.host
}

func TestProxyTellsWhoAsked(t *testing.T) {
	header, host := headersSeen(t)
	if host != "hub.example:8000" {
		t.Errorf("Host is %q, want the browser's", host)
	}
	for name, want := range map[string]string{
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "hub.example:8000", "X-Forwarded-Proto": "http",
	} {
		if got := header.Values(name); !slices.Equal(got, []string{want}) {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestProxyKeepsWhatAnIngressSaid(t *testing.T) {
	header, _ := headersSeen(t,
		"X-Forwarded-For", "203.0.113.9", "X-Forwarded-For", "198.51.100.2, 10.0.0.1",
		"X-Forwarded-Host", "notebooks.example", "X-Forwarded-Proto", "https")
	for name, want := range map[string]string{
		"X-Forwarded-For":   "203.0.113.9, 198.51.100.2, 10.0.0.1, 127.0.0.1",
		"X-Forwarded-Host":  "notebooks.example",
		"X-Forwarded-Proto": "https",
	} {
		if got := header.Values(name); !slices.Equal(got, []string{want}) {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestProxyDropsHeadersOfOneConnection(t *testing.T) {
	header, _ := headersSeen(t,
		"Connection", "X-For-The-Proxy, keep-alive", "X-For-The-Proxy", "1", "Keep-Alive", "timeout=5",
		"Proxy-Authorization", "Basic x", "Proxy-Connection", "keep-alive", "X-For-The-Application", "2")
	for _, name := range []string{"Connection", "X-For-The-Proxy", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection"} {
		if got := header.Values(name); len(got) > 0 {
			t.Errorf("%s is passed on: %q", name, got)
		}
	}
	if got := header.Get("X-For-The-Application"); got != "2" {
		t.Errorf("X-For-The-Application is %q, want 2", got)
	}
}

func TestProxyDropsHeadersOfTheApplicationsConnection(t *testing.T) {
	inst := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "X-For-The-Proxy")
		w.Header().Set("X-For-The-Proxy", "1")
		w.Header().Set("Keep-Alive", "timeout=5")
		w.Header().Set("X-For-The-Browser", "2")
	})
	res, _ := startProxy(t, inst).get(t, "/user/"+inst.ID+"/")
	for _, name := range []string{"Connection", "X-For-The-Proxy", "Keep-Alive"} {
		if got := res.Header.Values(name); len(got) > 0 {
			t.Errorf("%s is passed on: %q", name, got)
		}
	}
	if got := res.Header.Get("X-For-The-Browser"); got != "2" {
		t.Errorf("X-For-The-Browser is %q, want 2", got)
	}
}

func TestProxyAsksForNothingTheBrowserDidNot(t *testing.T) {
	header, _ := headersSeen(t, "User-Agent", "") // the empty value keeps net/http's client from sending its own
	for _, name := range []string{"Accept-Encoding", "User-Agent"} {
		if got := header.Values(name); len(got) > 0 {
			t.Errorf("%s is %q, and there was none", name, got)
		}
	}
}

func TestProxyNeverPassesTheAPIKeyOn(t *testing.T) {
	for _, own := range []string{
		testAPIKey, "token " + testAPIKey, "Bearer " + testAPIKey, "bearer  " + testAPIKey + " ", "TOKEN " + testAPIKey,
	} {
		header, _ := headersSeen(t, "Authorization", own, "Cookie", "session=1")
		if got := header.Values("Authorization"); len(got) > 0 {
			t.Errorf("%q is passed on as %q", own, got)
		}
		for name, values := range header {
			if strings.Contains(strings.Join(values, " "), testAPIKey) {
				t.Errorf("the key is passed on in %s: %q", name, values)
			}
		}
		if got := header.Get("Cookie"); got != "session=1" {
			t.Errorf("Cookie is %q, want it kept", got)
		}
	}
}

func TestProxyNeverPassesTheAPIKeyOnAmongOthers(t *testing.T) {
	for _, several := range [][]string{{"token 0badcafe", testAPIKey}, {"", "Bearer " + testAPIKey}, {testAPIKey, "token 0badcafe"}} {
		header, _ := headersSeen(t, "Authorization", several[0], "Authorization", several[1])
		for _, got := range header.Values("Authorization") {
			if strings.Contains(got, testAPIKey) {
				t.Errorf("of %q, %q is passed on", several, got)
			}
		}
	}
}

func TestProxyKeepsAnApplicationsOwnToken(t *testing.T) {
	for _, theirs := range []string{"token 0badcafe", "Bearer eyJhbGciOi", "Basic dXNlcjpwYXNz", "0badcafe", "token"} {
		header, _ := headersSeen(t, "Authorization", theirs)
		if got := header.Get("Authorization"); got != theirs {
			t.Errorf("%q reached the application as %q", theirs, got)
		}
	}
}

// All instances have one origin: none may register a service worker for more of
// it than its own path.
func TestProxyKeepsServiceWorkersToTheirInstance(t *testing.T) {
	own := "/user/" + kubetest.ID(1) + "/"
	for _, scopes := range [][]string{
		{own}, {own + "lab/"}, {"/"}, {"/user/"}, {"/user/" + kubetest.ID(2) + "/"}, {"https://hub.example/"},
		{"../"}, {own + "../"}, {own + "%2e%2e/"}, {own + `..\`}, {own, "/"}, {"", "/"}, {""},
	} {
		inst := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Service-Worker-Allowed"] = scopes
			w.Header().Set("Content-Type", "text/javascript")
		})
		res, _ := startProxy(t, inst).get(t, own+"sw.js")
		if got := res.Header.Values("Service-Worker-Allowed"); !slices.Equal(got, []string{own}) {
			t.Errorf("Service-Worker-Allowed: %q reached the browser as %q, want its own path", scopes, got)
		}
		if got := res.Header.Get("Content-Type"); got != "text/javascript" {
			t.Errorf("Content-Type is %q", got)
		}
	}
	inst := newBackend(t, func(http.ResponseWriter, *http.Request) {})
	res, _ := startProxy(t, inst).get(t, own)
	if got, ok := res.Header["Service-Worker-Allowed"]; ok {
		t.Errorf("Service-Worker-Allowed is %q, and there was none", got)
	}
}
