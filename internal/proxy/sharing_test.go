package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// Pages of an origin that may can use an application that knows nothing of CORS, and one that
// says something else. They bring the token themselves.
func TestSharing(t *testing.T) {
	const course, other = "https://course.example", "https://other.example"
	app := application(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://the-application.example")
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		w.Header().Set("Vary", "Accept")
		_, _ = fmt.Fprintf(w, "origin %s, authorization %s, cookie %s.", r.Header.Get("Origin"), r.Header.Get("Authorization"), r.Header.Get("Cookie"))
	})
	app.Token = instance.Token{Name: "Authorization", Value: "token secret"}
	over := instance.Instance{ID: kubetest.ID(2), Template: "jupyter", Status: instance.StatusDeleted}
	for _, row := range []struct {
		name, shared, origin, path string
		code                       int
		allowed, vary, says        string
	}{
		{"an origin that may", course, course, base, 200, course, "Accept, Origin", "origin own, authorization token mine, cookie ."},
		{"any origin", "*", other, base, 200, "*", "Accept", "origin own, authorization token mine, cookie ."},
		{"a page without an origin", "*", "null", base, 200, "*", "Accept", "origin null, authorization token mine, cookie login."},
		{"its own page", course + " *", "own", base, 200, "*", "Accept", "origin own, authorization token secret, cookie login."},
		{"another origin", course, other, base, 200, "https://the-application.example", "Accept, Origin", "origin " + other + ", authorization token mine"},
		{"no origin", course, "", base, 200, "https://the-application.example", "Accept, Origin", "origin , authorization token secret"},
		{"no list", "", course, base, 200, "https://the-application.example", "Accept", "origin " + course},
		{"an instance that is over", course, course, "/user/" + over.ID + "/api/kernels", 410, course, "Origin", ""},
		{"an id that nobody knows", course, course, "/user/" + kubetest.ID(9) + "/", 404, course, "Origin", ""},
	} {
		p := startProxyWith(t, func(d *Deps) { d.ShareWith = strings.Fields(row.shared) }, app, over)
		own := p.URL
		ask := func(method string, header ...string) *http.Response {
			r, err := http.NewRequestWithContext(t.Context(), method, p.URL+row.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if row.origin != "" {
				r.Header.Set("Origin", strings.ReplaceAll(row.origin, "own", own))
			}
			r.Header.Set("Cookie", "login")
			for i := 0; i < len(header); i += 2 {
				r.Header.Set(header[i], header[i+1])
			}
			res, err := p.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = res.Body.Close() })
			return res
		}
		res := ask(http.MethodGet, "Authorization", "token mine")
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		says := strings.ReplaceAll(row.says, "origin own", "origin "+own)
		if res.StatusCode != row.code || !strings.Contains(string(text), says) {
			t.Errorf("%s: got %d %q, want %d %q", row.name, res.StatusCode, text, row.code, says)
		}
		if got := res.Header.Get("Access-Control-Allow-Origin"); got != row.allowed {
			t.Errorf("%s: Access-Control-Allow-Origin is %q, want %q", row.name, got, row.allowed)
		}
		if got := strings.Join(res.Header.Values("Vary"), ", "); got != row.vary {
			t.Errorf("%s: Vary is %q, want %q", row.name, got, row.vary)
		}
		shares := row.allowed == row.origin || row.allowed == "*"
		if got := res.Header.Get("Access-Control-Allow-Credentials"); shares && got != "" {
			t.Errorf("%s: the visitor's cookies count", row.name)
		}
		preflight := ask(http.MethodOptions, "Access-Control-Request-Method", "PATCH", "Access-Control-Request-Headers", "authorization,x-any")
		if answered := preflight.StatusCode == 204 && preflight.Header.Get("Access-Control-Allow-Headers") == "*, Authorization"; answered != shares {
			t.Errorf("%s: a preflight got %d %v", row.name, preflight.StatusCode, preflight.Header)
		}
	}
}

// An application that compares the Origin of a WebSocket with its Host accepts it.
func TestSharedWebSocket(t *testing.T) {
	const course = "https://course.example"
	p := startProxyWith(t, func(d *Deps) { d.ShareWith = []string{course} }, application(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Origin") != "https://"+r.Host {
			http.Error(w, "Origin "+r.Header.Get("Origin"), http.StatusForbidden)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	c := p.dial(t)
	c.request(t, "GET", base, "Connection: Upgrade", "Upgrade: websocket", "Origin: "+course, "X-Forwarded-Proto: https")
	c.wantAnswer(t, http.StatusNoContent, "")
}
