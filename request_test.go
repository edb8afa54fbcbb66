package main

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// testMaxTimeout is the longest cull timeout that requests may ask for.
const testMaxTimeout = 24 * time.Hour

func TestParseDeployRequest(t *testing.T) {
	for _, row := range []struct {
		name, body string
		want       protocol.DeployRequest
	}{
		{"nothing", "", protocol.DeployRequest{}},
		{"white space", " \r\n\t", protocol.DeployRequest{}},
		{"an empty object", "{}", protocol.DeployRequest{}},
		{"what binder-client sends", `{"template-name": "jupyter", "cull-timeout": 60000}`, protocol.DeployRequest{"jupyter", time.Minute}},
		{"camelCase", `{"templateName": "jupyter", "cullTimeout": 60000}`, protocol.DeployRequest{"jupyter", time.Minute}},
		{"snake_case", `{"template_name": "jupyter", "cull_timeout": 60000}`, protocol.DeployRequest{"jupyter", time.Minute}},
		{"PascalCase", `{"TemplateName": "jupyter", "CullTimeout": 60000}`, protocol.DeployRequest{"jupyter", time.Minute}},
		{"words", `{"template name": "jupyter", "cull timeout": 60000}`, protocol.DeployRequest{"jupyter", time.Minute}},
		{"no timeout", `{"template-name": "jupyter"}`, protocol.DeployRequest{TemplateName: "jupyter"}},
		{"null for both", `{"template-name": null, "cull-timeout": null}`, protocol.DeployRequest{}},
		{"more than is asked for", `{"template-name": "jupyter", "api-key": "x", "host": {"port": [1]}}`, protocol.DeployRequest{TemplateName: "jupyter"}},
		{"a name beyond ASCII", `{"template-name": "caf\u00e9/\"1\""}`, protocol.DeployRequest{TemplateName: `café/"1"`}},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := protocol.ParseDeployRequest([]byte(row.body), testMaxTimeout)
			if err != nil || got != row.want {
				t.Errorf("got %+v, %v, want %+v", got, err, row.want)
			}
		})
	}
}

func TestParseDeployRequestRefuses(t *testing.T) {
	for _, row := range []struct{ name, body, says string }{
		{"no JSON", `template-name=jupyter`, "not a JSON object"},
		{"half an object", `{"template-name": "jupyter"`, "not a JSON object"},
		{"two objects", `{} {}`, "not a JSON object"},
		{"an array", `[{"template-name": "jupyter"}]`, "not a JSON object"},
		{"a string", `"jupyter"`, "not a JSON object"},
		{"null", `null`, "not a JSON object"},
		{"a name that is a number", `{"template-name": 7}`, "template-name must be a string"},
		{"a name that is an object", `{"templateName": {"name": "jupyter"}}`, "template-name must be a string"},
		{"a name in two spellings", `{"template-name": "a", "templateName": "b"}`, `template-name is given twice, as "template-name" and as "templateName"`},
		{"the same name in two spellings", `{"template_name": "a", "templateName": "a"}`, `given twice, as "templateName" and as "template_name"`},
		{"a timeout in two spellings", `{"cullTimeout": 1, "cull-timeout": null}`, "cull-timeout is given twice"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := protocol.ParseDeployRequest([]byte(row.body), testMaxTimeout)
			wantMalformed(t, err, row.says)
			if got != (protocol.DeployRequest{}) {
				t.Errorf("got %+v beside the error", got)
			}
		})
	}
}

func TestParseCullTimeout(t *testing.T) {
	for value, want := range map[string]time.Duration{
		`1`:           time.Millisecond,
		`60000`:       time.Minute,
		`"60000"`:     time.Minute, // the client's command line sends strings
		`" 60000\n"`:  time.Minute,
		`1500.5`:      1500*time.Millisecond + 500*time.Microsecond,
		`6e4`:         time.Minute,
		`"6E+4"`:      time.Minute,
		`0.001`:       time.Millisecond, // more than nothing is at least the unit
		`5e-324`:      time.Millisecond,
		`86400000`:    24 * time.Hour, // the maximum itself
		`"86400000"`:  24 * time.Hour,
		`86400000.00`: 24 * time.Hour,
		`null`:        0, // as good as absent
	} {
		got, err := protocol.ParseCullTimeout([]byte(value), testMaxTimeout)
		if err != nil || got != want {
			t.Errorf("parseCullTimeout(%s) = %v, %v, want %v", value, got, err, want)
		}
	}
}

func TestParseCullTimeoutRefuses(t *testing.T) {
	for _, value := range []string{
		`0`, `-0`, `"0"`, `-1`, `"-1"`, `-1e300`,
		`""`, `" "`, `"null"`, `"NaN"`, `"Infinity"`, `"-Infinity"`, `"inf"`,
		`"0x10"`, `"1_000"`, `"010"`, `"+5"`, `".5"`, `"5."`, `"1h"`, `"60000 ms"`, `"1,000"`, `"\"5\""`,
		`"[5]"`, `"٥"`, `true`, `false`, `"true"`, `[]`, `[60000]`, `{}`, `{"ms": 5}`,
		`1e400`, `"1e400"`, // no float64 holds it
	} {
		got, err := protocol.ParseCullTimeout([]byte(value), testMaxTimeout)
		if got != 0 {
			t.Errorf("parseCullTimeout(%s) = %v beside the error", value, got)
		}
		wantMalformed(t, err, "cull-timeout must be a positive number of milliseconds, at most 86400000 (24h0m0s)")
	}
	for _, value := range []string{
		`86400001`, `"86400001"`, `86400000.001`, `9007199254740993`, `9223372036854775807`, `9223372036854775808`, `1e308`,
	} {
		got, err := protocol.ParseCullTimeout([]byte(value), testMaxTimeout)
		if got != 0 {
			t.Errorf("parseCullTimeout(%s) = %v beside the error", value, got)
		}
		wantMalformed(t, err, "cull-timeout must be at most 86400000 milliseconds (24h0m0s)")
	}
}

func TestKebabCase(t *testing.T) {
	for in, want := range map[string]string{
		"":                "",
		"template-name":   "template-name",
		"templateName":    "template-name",
		"TemplateName":    "template-name",
		"template_name":   "template-name",
		"template name":   "template-name",
		"template__name":  "template-name",
		"Template-Name":   "template-name",
		"template_Name":   "template-name",
		"-template-name-": "template-name",
		"templatename":    "templatename",
		"überName":        "über-name",
		"__":              "",
	} {
		if got := protocol.KebabCase(in); got != want {
			t.Errorf("kebabCase(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestReadDeployRequestLimit(t *testing.T) {
	body := func(size int) io.Reader {
		const open, shut = `{"template-name": "jupyter", "padding": "`, `"}`
		return strings.NewReader(open + strings.Repeat("x", size-len(open)-len(shut)) + shut)
	}
	read := func(size int) (protocol.DeployRequest, error) {
		r := httptest.NewRequest(http.MethodPost, "/applications", body(size))
		return protocol.ReadDeployRequest(httptest.NewRecorder(), r, testMaxTimeout)
	}
	if got, err := read(64 << 10); err != nil || got.TemplateName != "jupyter" {
		t.Errorf("a body of exactly 64 KiB: got %+v, %v, want the name", got, err)
	}
	_, err := read(64<<10 + 1)
	var answer *protocol.Error
	if !errors.As(err, &answer) || answer.Code != http.StatusRequestEntityTooLarge || answer.Type != protocol.TypeMalformedRequest {
		t.Errorf("a body of one byte more: got %#v, want 413 malformedRequest", err)
	}
}

func TestReadDeployRequestOfABrokenBody(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/applications", iotest.ErrReader(io.ErrUnexpectedEOF))
	_, err := protocol.ReadDeployRequest(httptest.NewRecorder(), r, testMaxTimeout)
	wantMalformed(t, err, "could not be read")
}

// FuzzParseDeployRequest holds what the launcher relies on, whatever is sent.
func FuzzParseDeployRequest(f *testing.F) {
	for _, seed := range []string{
		`{"template-name": "jupyter", "cull-timeout": 60000}`, `{"cullTimeout": "1e-9"}`, `{"cull_timeout": 8.64e7}`,
		`{"cull-timeout": null, "template-name": null}`, `{"": 1, "-": 2, "_": 3}`, `null`, `[]`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := protocol.ParseDeployRequest(body, testMaxTimeout)
		if err != nil {
			wantMalformed(t, err, "")
			return
		}
		if d := got.CullTimeout; d != 0 && (d < time.Millisecond || d > testMaxTimeout) {
			t.Errorf("%q asks for a cull timeout of %s", body, d)
		}
	})
}

// wantMalformed checks that err is answered as 422 and says what is wrong.
func wantMalformed(t testing.TB, err error, says string) {
	t.Helper()
	var answer *protocol.Error
	if !errors.As(err, &answer) || answer.Code != http.StatusUnprocessableEntity || answer.Type != protocol.TypeMalformedRequest {
		t.Errorf("got error %#v, want 422 malformedRequest", err)
		return
	}
	if !strings.Contains(answer.Message, says) {
		t.Errorf("the error says %q, want %q in it", answer.Message, says)
	}
}
