package proxy

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// wantHeaders checks the values of some headers; nil means that there is none.
func wantHeaders(t testing.TB, got http.Header, want map[string][]string) {
	t.Helper()
	for name, values := range want {
		if !slices.Equal(got.Values(name), values) {
			t.Errorf("%s is %q, want %q", name, got.Values(name), values)
		}
	}
}

func TestHeadersForTheApplication(t *testing.T) {
	for _, row := range []struct {
		name string
		sent []string // name, value, name, value
		want map[string][]string
	}{
		{"who asks", nil, map[string][]string{
			"Host": {"hub.example:8000"}, "X-Forwarded-Host": {"hub.example:8000"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-For": {"127.0.0.1"},
		}},
		{"what an ingress reported", []string{
			"X-Forwarded-For", "203.0.113.9", "X-Forwarded-For", "198.51.100.2, 10.0.0.1",
			"X-Forwarded-Host", "notebooks.example", "X-Forwarded-Proto", "https",
		}, map[string][]string{
			"X-Forwarded-For":  {"203.0.113.9, 198.51.100.2, 10.0.0.1, 127.0.0.1"},
			"X-Forwarded-Host": {"notebooks.example"}, "X-Forwarded-Proto": {"https"},
		}},
		{"headers of one connection", []string{
			"Connection", "X-For-The-Proxy, keep-alive", "X-For-The-Proxy", "1", "Keep-Alive", "timeout=5",
			"Proxy-Authorization", "Basic x", "Proxy-Connection", "keep-alive", "X-For-The-Application", "2",
		}, map[string][]string{
			"Connection": nil, "X-For-The-Proxy": nil, "Keep-Alive": nil, "Proxy-Authorization": nil, "Proxy-Connection": nil, "X-For-The-Application": {"2"},
		}},
		{"none that the browser did not send", []string{"User-Agent", ""}, // "" keeps net/http's client from sending its own
			map[string][]string{"Accept-Encoding": nil, "User-Agent": nil}},
		{"the API key", []string{"Authorization", "token " + testAPIKey, "Cookie", "session=1"},
			map[string][]string{"Authorization": nil, "Cookie": {"session=1"}}},
		{"the API key after a token", []string{"Authorization", "token 0badcafe", "Authorization", testAPIKey}, map[string][]string{"Authorization": nil}},
		{"the API key before a token", []string{"Authorization", testAPIKey, "Authorization", "token 0badcafe"}, map[string][]string{"Authorization": nil}},
		{"an application's own token", []string{"Authorization", "token 0badcafe"}, map[string][]string{"Authorization": {"token 0badcafe"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var seen http.Header
			p := startProxy(t, application(t, func(_ http.ResponseWriter, r *http.Request) {
				seen = r.Header.Clone()
				seen.Set("Host", r.Host)
			}))
			p.get(t, base, row.sent...)
			wantHeaders(t, seen, row.want)
		})
	}
}

func TestHeadersForTheBrowser(t *testing.T) {
	var answer http.Header
	p := startProxy(t, application(t, func(w http.ResponseWriter, _ *http.Request) { maps.Copy(w.Header(), answer) }))
	answer = http.Header{"Connection": {"X-For-The-Proxy"}, "X-For-The-Proxy": {"1"}, "Keep-Alive": {"timeout=5"}, "X-For-The-Browser": {"2"}}
	res, _ := p.get(t, base)
	wantHeaders(t, res.Header, map[string][]string{
		"Connection": nil, "X-For-The-Proxy": nil, "Keep-Alive": nil, "X-For-The-Browser": {"2"}, "Service-Worker-Allowed": nil,
	})
	// No application may register a service worker for more than its own path.
	for _, scopes := range [][]string{
		{base}, {base + "lab/"}, {"/"}, {"/user/"}, {instance.BaseURL(kubetest.ID(2))}, {"https://hub.example/"},
		{"../"}, {base + "../"}, {base + "%2e%2e/"}, {base + `..\`}, {base, "/"}, {"", "/"}, {""},
	} {
		answer = http.Header{"Service-Worker-Allowed": scopes, "Content-Type": {"text/javascript"}}
		res, _ := p.get(t, base+"sw.js")
		wantHeaders(t, res.Header, map[string][]string{"Service-Worker-Allowed": {base}, "Content-Type": {"text/javascript"}})
	}
}

// An answer that the application breaks off must not look complete to the browser.
func TestBrokenAnswerStaysBroken(t *testing.T) {
	p := startProxy(t, application(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half of ")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	res, err := p.Client().Get(p.URL + base)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("got %q as a whole answer, want an error", body)
	}
	kubetest.Eventually(t, "no request is in flight", func() bool { return p.inFlight.Load() == 0 })
}
