package protocol

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// FuzzReadDeployRequest checks what an accepted body asks for, by a plain reading of it, and
// that every error is the client's and short.
func FuzzReadDeployRequest(f *testing.F) {
	for _, seed := range []string{
		`{"template-name": "jupyter", "cull-timeout": 60000}`, `{"cullTimeout": "1e-9"}`, `{"cull_timeout": 8.64e7}`, `{"cull-timeout": 86400000.0000001}`, `{"cull-timeout": "59999.99999999999999999"}`,
		`{"cull-timeout": null, "template-name": null}`, `{"": 1, "-": 2, "_": 3}`, `null`, `[]`, ``, `{"templateName": "a", "template-name": "a"}`, `{"cull-timeout": 1, "cull-timeout": 60000}`,
		`{"template-name": "\ud800", "x": [[[[]]]]}`, `{"cull-timeout": "\u0031e5"}`, `{"template-name": "a"} {}`, `{"cull-timeout": -0}`, `{"cull-timeout": 1e309}`, `{"": 1e700}`, "\xef\xbb\xbf{}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		got, err := readDeploy(strings.NewReader(body))
		if len(body) > MaxBody {
			if err == nil {
				t.Errorf("a body of %d bytes is accepted", len(body))
			}
			return
		}
		if err != nil {
			wantMalformed(t, err, "")
			if got != (DeployRequest{}) || len(err.Error()) > 1024 {
				t.Errorf("%q: got %+v, with an error of %d bytes", body, got, len(err.Error()))
			}
			return
		}
		if d := got.CullTimeout; d != 0 && (d < testMinTimeout || d > testMaxTimeout) {
			t.Errorf("%q asks for a cull timeout of %s", body, d)
		}
		var plain map[string]json.RawMessage
		if strings.TrimSpace(body) != "" && json.Unmarshal([]byte(body), &plain) != nil {
			t.Errorf("%q is accepted", body)
		}
		var name string
		if json.Unmarshal(plain["template-name"], &name) == nil && name != got.TemplateName {
			t.Errorf("%q names the template %q, got %q", body, name, got.TemplateName)
		}
		var millis float64
		if json.Unmarshal(plain["cull-timeout"], &millis) == nil {
			if want := time.Duration(millis * float64(time.Millisecond)); got.CullTimeout != want {
				t.Errorf("%q asks for %s, got %s", body, want, got.CullTimeout)
			}
		}
	})
}

// FuzzPreferredWait checks that a wait is bounded, and is one that the header has in digits.
// What else is in the header makes no difference.
func FuzzPreferredWait(f *testing.F) {
	for _, seed := range []string{"wait=10", `a="wait=5", wait=7;x`, `wait="1\0"`, `x="\",wait=9`, "wait", "wait=-1", "wait=99999999999999999999", ";wait=1", "wait = 5 ", "respond-async, wait=20, wait=30", `"`, "wait=٣"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		wait, given := PreferredWait([]string{header})
		if wait < 0 || wait > longestWait || wait%time.Second != 0 || !given && wait != 0 {
			t.Errorf("%q waits for %s, given: %t", header, wait, given)
		}
		if given && (!strings.ContainsAny(header, "0123456789") || !strings.Contains(strings.ToLower(header), "wait")) {
			t.Errorf("%q waits for %s", header, wait)
		}
		if later, ok := PreferredWait([]string{header, "wait=3"}); given && later != wait || !given && ok && later != 3*time.Second {
			t.Errorf("%q waits for %s, and before another field for %s", header, wait, later)
		}
		if first, _ := PreferredWait([]string{"wait=3," + header}); first != 3*time.Second {
			t.Errorf("%q waits for %s after a wait of 3 s", header, first)
		}
	})
}

// FuzzAccepts checks that only a client that names the media type gets it, and that what
// other clients send before it makes no difference.
func FuzzAccepts(f *testing.F) {
	for _, seed := range []string{"text/event-stream", "TEXT/Event-Stream;q=0.5, */*", "text/event-stream;q=0", "*/*", "text/*", "application/json, text/event-stream; q=0.000", "xtext/event-stream", "text/event-stream2", `a;b=",text/event-stream"`, `a;b="`, "text/event-stream;x=1;Q=0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, accept string) {
		r := &http.Request{Method: http.MethodGet, Header: http.Header{"Accept": {accept}}}
		if AcceptsEvents(r) && !strings.Contains(strings.ToLower(accept), "text/event-stream") {
			t.Errorf("%q gets a stream", accept)
		}
		r.Header.Add("Accept", "text/event-stream")
		if !AcceptsEvents(r) {
			t.Errorf("%q gets no stream, although a second field asks for one", accept)
		}
		if r.Method = http.MethodPost; AcceptsEvents(r) {
			t.Error("a POST gets a stream")
		}
	})
}

func TestAccepts(t *testing.T) {
	for accept, want := range map[string]bool{
		"text/html": true, "text/html,application/xhtml+xml,*/*;q=0.8": true, "*/*, Text/HTML;q=0.001": true, "text/html ; q=1.000": true, `a;b="x,y", text/html`: true,
		"": false, "*/*": false, "text/*": false, "text/html5": false, "xtext/html": false, "text/html;q=0": false, "text/html; level=1; q=0.000": false, `a;b=",text/html"`: false,
	} {
		if got := Accepts(&http.Request{Header: http.Header{"Accept": {accept}}}, "text/html"); got != want {
			t.Errorf("%q: got %t", accept, got)
		}
	}
}

// FuzzIdempotencyKey checks that a key has the documented length and characters.
func FuzzIdempotencyKey(f *testing.F) {
	for _, seed := range []string{"8e03978e-40d5-43e8-bc93-6894a57f9324", "0123456789abcdef", "0123456789abcde", "", "0123456789abcde\x00", strings.Repeat("x", 256), "0123456789abcdeé"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		key, err := ReadIdempotencyKey(&http.Request{Header: http.Header{"Idempotency-Key": {header}}})
		valid := len(header) >= 16 && len(header) <= 255
		for i := range len(header) {
			valid = valid && header[i] > ' ' && header[i] < 0x7f
		}
		if (err == nil) != valid || valid && key != header || !valid && key != "" {
			t.Errorf("%q: got %q, %v", header, key, err)
		}
	})
}

// FuzzLocation checks that a client that puts text of its own into Host gets a location that
// is a host and the instance's path, whatever follows or precedes it.
func FuzzLocation(f *testing.F) {
	for _, seed := range []string{"hub.example:80", "[::1]:8000", "::1", "a/b", "evil.example#", "me@evil.example", "a b", "[fe80::1%25x]", "[[::1]]", "a:b", ":80", "a\\b", "a:80:80", "%41", "-", "…"} {
		f.Add(seed, "8000")
	}
	f.Fuzz(func(t *testing.T, host, port string) {
		if _, err := (&url.URL{Scheme: "http", Host: "h:" + port}).Parse("/"); err != nil || strings.Trim(port, "0123456789") != "" || port == "" {
			return
		}
		l := &Locator{ProxyPort: port, Services: services{}}
		location := l.Locations(host)("id")
		u, err := url.Parse("http://" + location)
		if err != nil || u.Path != "/user/id" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Hostname() == "" || location != u.Host+u.Path {
			t.Errorf("%q gives %q: %+v, %v", host, location, u, err)
		}
	})
}
