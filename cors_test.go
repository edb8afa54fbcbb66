package main

import (
	"net/http"
	"strings"
	"testing"

	"k8s.io/client-go/kubernetes/fake"
)

func TestAllowOrigins(t *testing.T) {
	const a, b, c = "https://a.example", "https://b.example", "https://c.example"
	for _, row := range []struct {
		name    string
		allowed []string
		method  string
		header  []string
		code    int
		want    map[string]string // "" for none
	}{
		{"nobody is allowed", nil, http.MethodGet, []string{"Origin", a}, 404, map[string]string{
			"Access-Control-Allow-Origin": "", "Vary": ""}},
		{"nobody may ask", nil, http.MethodOptions, []string{"Origin", a, "Access-Control-Request-Method", "POST"}, 405, map[string]string{
			"Access-Control-Allow-Origin": "", "Access-Control-Allow-Methods": ""}},
		{"one that is allowed", []string{a, b}, http.MethodGet, []string{"Origin", b}, 404, map[string]string{
			"Access-Control-Allow-Origin": b, "Vary": "Origin", "Access-Control-Expose-Headers": "Preference-Applied, Retry-After"}},
		{"one that is not", []string{a, b}, http.MethodGet, []string{"Origin", c}, 404, map[string]string{
			"Access-Control-Allow-Origin": "", "Vary": "Origin"}},
		{"no browser", []string{a, b}, http.MethodGet, nil, 404, map[string]string{
			"Access-Control-Allow-Origin": "", "Vary": "Origin"}},
		{"all", []string{a, "*"}, http.MethodGet, []string{"Origin", c}, 404, map[string]string{
			"Access-Control-Allow-Origin": "*", "Vary": ""}},
		{"a preflight", []string{a}, http.MethodOptions, []string{"Origin", a, "Access-Control-Request-Method", "POST"}, 204, map[string]string{
			"Access-Control-Allow-Origin": a, "Vary": "Origin", "Access-Control-Max-Age": "600",
			"Access-Control-Allow-Methods": "GET, POST, DELETE",
			"Access-Control-Allow-Headers": "Authorization, Content-Type, Prefer, Idempotency-Key, Accept"}},
		{"a preflight of another", []string{a}, http.MethodOptions, []string{"Origin", b, "Access-Control-Request-Method", "POST"}, 405, map[string]string{
			"Access-Control-Allow-Origin": "", "Access-Control-Allow-Methods": "", "Vary": "Origin"}},
		{"OPTIONS that is no preflight", []string{a}, http.MethodOptions, []string{"Origin", a}, 405, map[string]string{
			"Access-Control-Allow-Origin": a, "Access-Control-Allow-Methods": ""}},
	} {
		t.Run(row.name, func(t *testing.T) {
			api, _ := waitAPI(t, startWaitCluster(t, fake.NewClientset()))
			api.AllowOrigins = row.allowed
			res := waitAsk(api, row.method, "/applications/echo/1", row.header...)
			if res.Code != row.code {
				t.Errorf("answered %d, want %d", res.Code, row.code)
			}
			for name, want := range row.want {
				if got := strings.Join(res.Header().Values(name), ", "); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if got := res.Header().Get("Access-Control-Allow-Credentials"); got != "" {
				t.Errorf("credentials are allowed: %q", got)
			}
			if row.code == http.StatusNoContent && res.Body.Len() > 0 {
				t.Errorf("a preflight has the body %q", res.Body)
			}
		})
	}
}
