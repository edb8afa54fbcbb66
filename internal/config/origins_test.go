package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestCORSAllowOrigins(t *testing.T) {
	for given, want := range map[string]string{
		"*":                       "*",
		"https://example.com":     "https://example.com",
		"HTTPS://Example.COM":     "https://example.com",
		"https://example.com:443": "https://example.com",
		"http://example.com:80":   "http://example.com",
		"http://example.com:443":  "http://example.com:443",
		"http://localhost:8888":   "http://localhost:8888",
		"http://[::1]:8888":       "http://[::1]:8888",
		"http://[::1]:80":         "http://[::1]",
		"chrome-extension://abc":  "chrome-extension://abc",
		"http://a, http://B":      "http://a http://b",
	} {
		if c := mustParse(t, testHost(), "--cors-allow-origin="+given); strings.Join(c.CORSAllowOrigins, " ") != want {
			t.Errorf("%q: got %q, want %q", given, c.CORSAllowOrigins, want)
		}
	}
	c := mustParse(t, testHost("BINDER_CORS_ALLOW_ORIGIN=http://c"), "--cors-allow-origin=http://a", "--cors-allow-origin=http://b")
	if got := strings.Join(c.CORSAllowOrigins, " "); got != "http://a http://b" {
		t.Errorf("got %q, want both flags and not the variable", got)
	}
	for _, bad := range []string{
		"", "null", "example.com", "example.com:80", "//example.com", "https://", "https://example.com/", "https://example.com/a",
		"https://example.com?a", "https://example.com#a", "https://user@example.com", "https://*.example.com", "https://example.com:",
		"https://example.com:port", "https://example.com:655360", "https://a b", "https://a%41", "https:example.com", "**",
		"https://a;script-src", "https://a'b", "https://ünï.example", "https://a(b", "https://[::1]x", "https://[::1%25eth0]",
	} {
		wantMistakes(t, testHost(), []string{"--cors-allow-origin=" + bad}, 1, fmt.Sprintf("--cors-allow-origin: %q", bad), "scheme://host")
	}
}

func TestHideCookies(t *testing.T) {
	c := mustParse(t, testHost(), "--hide-cookie=_oauth2_proxy*, session", "--hide-cookie=__Host-login")
	if got := strings.Join(c.HideCookies, " "); got != "_oauth2_proxy* session __Host-login" {
		t.Errorf("got %q", got)
	}
	for _, bad := range []string{"", "*", "a*b", "a=b", "a b", "a;b", "a**"} {
		wantMistakes(t, testHost(), []string{"--hide-cookie=" + bad}, 1, fmt.Sprintf("--hide-cookie: %q", bad), "name of a cookie")
	}
}

func TestFrameAncestors(t *testing.T) {
	c := mustParse(t, testHost("BINDER_FRAME_ANCESTORS=https://A.example:443, http://b_c.example:8080,*"))
	if got := strings.Join(c.FrameAncestors, " "); got != "https://a.example http://b_c.example:8080 *" {
		t.Errorf("got %q", got)
	}
	for bad, says := range map[string]string{
		"":                            "scheme://host",
		"'self'":                      "scheme://host",
		"https://a; script-src *":     "scheme://host",
		"https://a;script-src":        "scheme://host",
		"https://a.example/path":      "scheme://host",
		"https://*.example.com":       "scheme://host",
		"http://[::1]:8888":           "IPv6",
		"https://a.example b.example": "scheme://host",
	} {
		wantMistakes(t, testHost(), []string{"--frame-ancestors=" + bad}, 1, fmt.Sprintf("--frame-ancestors: %q", bad), says)
	}
	wantMistakes(t, testHost(), []string{"--frame-ancestors=x,y", "--cors-allow-origin=z"}, 3, `--frame-ancestors: "x"`, `--cors-allow-origin: "z"`)
}
