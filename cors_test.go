package main

import (
	"crypto/rand"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"k8s.io/client-go/kubernetes/fake"
)

func TestParseOrigin(t *testing.T) {
	for origin, want := range map[string]string{
		"*":                          "*",
		"https://example.com":        "https://example.com",
		"HTTPS://Example.COM":        "https://example.com",
		"https://example.com:443":    "https://example.com",
		"http://example.com:80":      "http://example.com",
		"http://example.com:443":     "http://example.com:443",
		"http://localhost:8888":      "http://localhost:8888",
		"http://[::1]:8888":          "http://[::1]:8888",
		"http://[::1]:80":            "http://[::1]",
		"chrome-extension://abcdefg": "chrome-extension://abcdefg",
	} {
		if got, err := parseOrigin(origin); err != nil || got != want {
			t.Errorf("%q is read as %q, %v; want %q", origin, got, err, want)
		}
	}
	for _, origin := range []string{
		"", "null", "example.com", "example.com:80", "//example.com", "https://", "https://example.com/", "https://example.com/a",
		"https://example.com?a", "https://example.com#a", "https://user@example.com", "https://*.example.com", "https://example.com:",
		"https://example.com:port", "https://example.com:655360", "https://a b", "https://a%41", "https:example.com", "**",
	} {
		if got, err := parseOrigin(origin); err == nil {
			t.Errorf("%q is read as %q", origin, got)
		}
	}
}

// corsHost is a host with nothing but an environment.
func corsHost(env map[string]string) host {
	return host{
		env:      func(name string) (string, bool) { value, ok := env[name]; return value, ok },
		readFile: func(string) ([]byte, error) { return nil, os.ErrNotExist },
		hostname: func() (string, error) { return "host", nil },
		random:   rand.Reader,
	}
}

func TestCORSFlag(t *testing.T) {
	for _, row := range []struct {
		args []string
		env  string
		want []string
	}{
		{nil, "", nil},
		{[]string{"--cors-allow-origin=https://a.example"}, "", []string{"https://a.example"}},
		{[]string{"--cors-allow-origin=https://a.example, http://B.example:80", "--cors-allow-origin=*"}, "https://c.example", []string{"https://a.example", "http://b.example", "*"}},
		{nil, "https://a.example,https://b.example", []string{"https://a.example", "https://b.example"}},
	} {
		config, err := parseConfig(row.args, corsHost(map[string]string{"BINDER_CORS_ALLOW_ORIGIN": row.env}), io.Discard)
		if err != nil || !slices.Equal(config.CORSAllowOrigins, row.want) {
			t.Errorf("%q and %q are read as %q, %v; want %q", row.args, row.env, config.CORSAllowOrigins, err, row.want)
		}
	}
	_, err := parseConfig([]string{"--cors-allow-origin=https://a.example/,null", "--cull-interval=0s"}, corsHost(nil), io.Discard)
	if err == nil {
		t.Fatal("what is no origin is taken for one")
	}
	for _, part := range []string{`--cors-allow-origin: "https://a.example/" is no origin`, `--cors-allow-origin: "null"`, "--cull-interval"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error is %q, and %q is not in it", err, part)
		}
	}
}

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
