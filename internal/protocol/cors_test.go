package protocol

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAllowOrigins(t *testing.T) {
	const a, b, c = "https://a.example", "https://b.example", "https://c.example"
	preflight := []string{"Access-Control-Request-Method", "POST"}
	type headers map[string]string // "" for a header that must be absent
	for _, row := range []struct {
		name    string
		allowed []string
		method  string
		header  []string
		code    int // 418 is the API's own answer
		want    headers
	}{
		{"no origin is allowed", nil, "GET", []string{"Origin", a}, 418, headers{
			"Access-Control-Allow-Origin": "", "Vary": ""}},
		{"preflight, no origin is allowed", nil, "OPTIONS", append(preflight, "Origin", a), 418, headers{
			"Access-Control-Allow-Origin": "", "Access-Control-Allow-Methods": ""}},
		{"allowed origin", []string{a, b}, "GET", []string{"Origin", b}, 418, headers{
			"Access-Control-Allow-Origin": b, "Vary": "Origin", "Access-Control-Expose-Headers": "Preference-Applied, Retry-After"}},
		{"other origin", []string{a, b}, "GET", []string{"Origin", c}, 418, headers{
			"Access-Control-Allow-Origin": "", "Vary": "Origin"}},
		{"no browser", []string{a, b}, "GET", nil, 418, headers{
			"Access-Control-Allow-Origin": "", "Vary": "Origin"}},
		{"any origin", []string{a, "*"}, "GET", []string{"Origin", c}, 418, headers{
			"Access-Control-Allow-Origin": "*", "Vary": ""}},
		{"preflight", []string{a}, "OPTIONS", append(preflight, "Origin", a), 204, headers{
			"Access-Control-Allow-Origin": a, "Vary": "Origin", "Access-Control-Max-Age": "600",
			"Access-Control-Allow-Methods": "GET, POST, DELETE",
			"Access-Control-Allow-Headers": "Authorization, Content-Type, Prefer, Idempotency-Key, Accept, Last-Event-ID, X-Xsrftoken"}},
		{"preflight of another origin", []string{a}, "OPTIONS", append(preflight, "Origin", b), 418, headers{
			"Access-Control-Allow-Origin": "", "Access-Control-Allow-Methods": "", "Vary": "Origin"}},
		{"OPTIONS without preflight", []string{a}, "OPTIONS", []string{"Origin", a}, 418, headers{
			"Access-Control-Allow-Origin": a, "Access-Control-Allow-Methods": ""}},
	} {
		t.Run(row.name, func(t *testing.T) {
			r, res := httptest.NewRequest(row.method, "/applications/echo", nil), httptest.NewRecorder()
			setHeader(r, row.header...)
			teapot := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
			AllowOrigins(row.allowed, teapot).ServeHTTP(res, r)
			if res.Code != row.code || res.Body.Len() > 0 {
				t.Errorf("answered %d %q, want %d without a body", res.Code, res.Body, row.code)
			}
			row.want["Access-Control-Allow-Credentials"] = ""
			for name, want := range row.want {
				if got := strings.Join(res.Header().Values(name), ", "); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

// setHeader adds headers to a request: names and values in turn.
func setHeader(r *http.Request, pairs ...string) {
	for i := 0; i < len(pairs); i += 2 {
		r.Header.Add(pairs[i], pairs[i+1])
	}
}

// A page of a name that somebody leads here is of the same origin, for a browser. It may
// launch only if the name is ours, or its origin is allowed.
func TestRefuseReboundNames(t *testing.T) {
	isOurs := func(host string) bool { return host == "hub.example" }
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	refuse := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	h := RefuseOtherSites([]string{"http://api.example"}, isOurs, refuse, next)
	for _, row := range []struct {
		method, host, origin, site string
		want                       int
	}{
		{"POST", "hub.example", "http://hub.example", "same-origin", 200},
		{"POST", "hub.example", "http://evil.example", "", 403},
		{"POST", "evil.example", "http://evil.example", "same-origin", 403},
		{"POST", "evil.example", "http://evil.example", "", 403},
		{"POST", "evil.example", "", "same-origin", 403},
		{"POST", "evil.example", "", "none", 403},
		{"DELETE", "evil.example", "http://evil.example", "", 403},
		{"GET", "evil.example", "http://evil.example", "", 200},
		{"POST", "api.example", "http://api.example", "same-origin", 200},
		{"POST", "10.0.0.7:8084", "", "", 200}, // not a browser
	} {
		r, w := httptest.NewRequest(row.method, "/applications/x", nil), httptest.NewRecorder()
		r.Host = row.host
		for name, value := range map[string]string{"Origin": row.origin, "Sec-Fetch-Site": row.site} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		if h.ServeHTTP(w, r); w.Code != row.want {
			t.Errorf("%s to %s from %q (%s): got %d, want %d", row.method, row.host, row.origin, row.site, w.Code, row.want)
		}
	}
}
