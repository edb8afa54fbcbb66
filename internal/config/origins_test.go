package config

import (
	"crypto/rand"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
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
		config, err := Parse(row.args, corsHost(map[string]string{"BINDER_CORS_ALLOW_ORIGIN": row.env}), io.Discard)
		if err != nil || !slices.Equal(config.CORSAllowOrigins, row.want) {
			t.Errorf("%q and %q are read as %q, %v; want %q", row.args, row.env, config.CORSAllowOrigins, err, row.want)
		}
	}
	_, err := Parse([]string{"--cors-allow-origin=https://a.example/,null", "--cull-interval=0s"}, corsHost(nil), io.Discard)
	if err == nil {
		t.Fatal("what is no origin is taken for one")
	}
	for _, part := range []string{`--cors-allow-origin: "https://a.example/" is no origin`, `--cors-allow-origin: "null"`, "--cull-interval"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error is %q, and %q is not in it", err, part)
		}
	}
}

// corsHost is a host with nothing but an environment.
func corsHost(env map[string]string) Environment {
	return Environment{
		Env:      func(name string) (string, bool) { value, ok := env[name]; return value, ok },
		ReadFile: func(string) ([]byte, error) { return nil, os.ErrNotExist },
		Hostname: func() (string, error) { return "host", nil },
		Random:   rand.Reader,
	}
}
