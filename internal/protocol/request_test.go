package protocol

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

const (
	testMinTimeout = time.Minute
	testMaxTimeout = 24 * time.Hour
)

func readDeploy(body io.Reader) (DeployRequest, error) {
	return readBody(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/applications", body), testMinTimeout, testMaxTimeout)
}

func TestWhichTemplate(t *testing.T) {
	for _, test := range []struct{ path, body, want, says string }{
		{"jupyter", "", "jupyter", ""}, {"jupyter", `{"template-name": "jupyter"}`, "jupyter", ""}, {"", `{"template-name": "jupyter"}`, "jupyter", ""},
		{"", "", "", "template-name is missing"}, {"a", `{"template-name": "b"}`, "", `template-name is "a" in the path and "b" in the body`}, {"a", "[", "", "not a JSON object"},
	} {
		got, err := ReadDeployRequest(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", strings.NewReader(test.body)), test.path, testMinTimeout, testMaxTimeout)
		if got.TemplateName != test.want || (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%q, %s: got %+v, %v", test.path, test.body, got, err)
		}
	}
	timeout, err := ReadKeepAlive(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"cull-timeout": 60000}`)), testMinTimeout, testMaxTimeout)
	if err != nil || timeout != time.Minute {
		t.Errorf("to keep alive: got %s, %v", timeout, err)
	}
}

func TestReadDeployRequest(t *testing.T) {
	jupyter := DeployRequest{"jupyter", time.Minute}
	for body, want := range map[string]DeployRequest{
		"":         {},
		" \r\n\t":  {},
		"{}":       {},
		`{"x": 1}`: {},
		`{"template-name": "jupyter", "cull-timeout": 60000}`:                          jupyter, // as binder-client sends it
		`{"templateName": "jupyter", "cullTimeout": 60000}`:                            jupyter,
		`{"template_name": "jupyter", "cull_timeout": 60000}`:                          jupyter,
		`{"TemplateName": "jupyter", "CullTimeout": 60000}`:                            jupyter,
		`{"template name": "jupyter", "cull timeout": 60000}`:                          jupyter,
		`{"template-name": "jupyter"}`:                                                 {TemplateName: "jupyter"},
		`{"template-name": null, "cull-timeout": null}`:                                {},
		`{"template-name": "a", "x": 1, "x": 2, "y": {"template-name": 1}}`:            {TemplateName: "a"}, // not our fields
		`{"template-name": "a", "api-key": "x", "b": {"c": [1]}}`:                      {TemplateName: "a"},
		`{"template-name": "caf\u00e9/\"1\""}`:                                         {TemplateName: `café/"1"`},
		`{"template-name": "a", "padding": "` + strings.Repeat("x", MaxBody-37) + `"}`: {TemplateName: "a"},
	} {
		if got, err := readDeploy(strings.NewReader(body)); err != nil || got != want {
			t.Errorf("%.80s: got %+v, %v, want %+v", body, got, err, want)
		}
	}
}

func TestReadDeployRequestRefuses(t *testing.T) {
	for body, says := range map[string]string{
		`template-name=jupyter`:                 "not a JSON object",
		`{"template-name": "jupyter"`:           "not a JSON object",
		`{} {}`:                                 "not a JSON object",
		`[{"template-name": "jupyter"}]`:        "not a JSON object",
		`"jupyter"`:                             "not a JSON object",
		`null`:                                  "not a JSON object",
		`{"template-name": 7}`:                  "template-name must be a string",
		`{"templateName": {"name": "jupyter"}}`: "template-name must be a string",
		`{"template-name": "a", "templateName": "b"}`:                                  `template-name is given twice, as "template-name" and as "templateName"`,
		`{"template_name": "a", "templateName": "a"}`:                                  `given twice, as "template_name" and as "templateName"`,
		`{"template-name": "a", "template-name": "b"}`:                                 "template-name is given twice",
		`{"template-name": "a", "template-name": "a"}`:                                 "template-name is given twice",
		`{"templateName": "a", "x": 1, "templateName": ""}`:                            "template-name is given twice",
		`{"template-name": "a", "Template-Name": "b"}`:                                 `template-name is given twice, as "template-name" and as "Template-Name"`,
		`{"template-name": "a", "template\u002dname": "b"}`:                            "template-name is given twice",
		`{"cull-timeout": 60000, "cull-timeout": 60000}`:                               "cull-timeout is given twice",
		`{"cull-timeout": null, "cull-timeout": 60000}`:                                "cull-timeout is given twice",
		`{"template-name": "a", "template` + strings.Repeat("_", 1000) + `name": "b"}`: `and as "template` + strings.Repeat("_", 32) + `"`,
		`{"template-name": "a",}`:                                                      "not a JSON object",
		`{"template-name" "a"}`:                                                        "not a JSON object",
		`{"cullTimeout": 60000, "cull-timeout": null}`:                                 "cull-timeout is given twice",
		`{"cullTimeout": true, "template-name": "jupyter"}`:                            "cull-timeout must be a positive number",
	} {
		got, err := readDeploy(strings.NewReader(body))
		wantMalformed(t, err, says)
		if got != (DeployRequest{}) {
			t.Errorf("%s: got %+v with the error", body, got)
		}
	}
	_, err := readDeploy(iotest.ErrReader(io.ErrUnexpectedEOF))
	wantMalformed(t, err, "could not be read")
	_, err = readDeploy(strings.NewReader(strings.Repeat(" ", MaxBody+1)))
	if answer := AnswerFor(err); answer.Code != http.StatusRequestEntityTooLarge || answer.Type != TypeMalformedRequest {
		t.Errorf("a body that is one byte too long: got %#v, want 413 malformedRequest", err)
	}
}

func TestParseCullTimeout(t *testing.T) {
	for value, want := range map[string]time.Duration{
		`60000`:       time.Minute,
		`"60000"`:     time.Minute, // binder-client's command line sends strings
		`" 60000\n"`:  time.Minute,
		`60000.5`:     time.Minute + 500*time.Microsecond,
		`6e4`:         time.Minute,
		`"6E+4"`:      time.Minute,
		`86400000`:    24 * time.Hour, // the maximum
		`"86400000"`:  24 * time.Hour,
		`86400000.00`: 24 * time.Hour,
		`null`:        0, // the same as absent
	} {
		if got, err := parseCullTimeout([]byte(value), testMinTimeout, testMaxTimeout); err != nil || got != want {
			t.Errorf("parseCullTimeout(%s) = %v, %v, want %v", value, got, err, want)
		}
	}
}

func TestParseCullTimeoutRefuses(t *testing.T) {
	for says, values := range map[string][]string{
		"cull-timeout must be a positive number of milliseconds, from 60000 (1m0s) to 86400000 (24h0m0s)": {
			`0`, `-0`, `"0"`, `-1`, `"-1"`, `-1e300`,
			`""`, `" "`, `"null"`, `"NaN"`, `"Infinity"`, `"-Infinity"`, `"inf"`,
			`"0x10"`, `"1_000"`, `"010"`, `"+5"`, `".5"`, `"5."`, `"1h"`, `"60000 ms"`, `"1,000"`, `"\"5\""`,
			`"[5]"`, `"٥"`, `true`, `false`, `"true"`, `[]`, `[60000]`, `{}`, `{"ms": 5}`,
			`1e400`, `"1e400"`, // too large for a float64
		},
		"cull-timeout must be at most 86400000 milliseconds (24h0m0s)": {
			`86400001`, `"86400001"`, `86400000.001`, `9007199254740993`, `9223372036854775807`, `9223372036854775808`, `1e308`,
		},
		"cull-timeout must be at least 60000 milliseconds (1m0s)": {`1`, `60`, `"60"`, `3600`, `59999`, `59999.999999`, `0.001`, `5e-324`},
	} {
		for _, value := range values {
			got, err := parseCullTimeout([]byte(value), testMinTimeout, testMaxTimeout)
			if got != 0 {
				t.Errorf("parseCullTimeout(%s) = %v with the error", value, got)
			}
			wantMalformed(t, err, says)
		}
	}
}

func TestKebabCase(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "__": "", "templatename": "templatename", "überName": "über-name",
		"template-name": "template-name", "templateName": "template-name", "TemplateName": "template-name",
		"template_name": "template-name", "template name": "template-name", "template__name": "template-name",
		"Template-Name": "template-name", "template_Name": "template-name", "-template-name-": "template-name",
	} {
		if got := kebabCase(in); got != want {
			t.Errorf("kebabCase(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestReadIdempotencyKey(t *testing.T) {
	read := func(values ...string) (string, error) {
		return ReadIdempotencyKey(&http.Request{Header: http.Header{"Idempotency-Key": values}})
	}
	if key, err := read(); key != "" || err != nil {
		t.Errorf("without the header: got %q, %v", key, err)
	}
	for _, key := range []string{"8e03978e-40d5-43e8-bc93-6894a57f9324", strings.Repeat("!", 16), strings.Repeat("~", 255)} {
		if got, err := read(key); got != key || err != nil {
			t.Errorf("%q: got %q, %v", key, got, err)
		}
	}
	const long = "0123456789abcdef"
	for _, values := range [][]string{
		{strings.Repeat("x", 256)}, {""}, {"1"}, {strings.Repeat("x", 15)}, {long + " "}, {long + "\t" + long}, {long + "\x00"}, {long + "é"}, {long, long},
	} {
		_, err := read(values...)
		wantMalformed(t, err, "Idempotency-Key")
	}
}

// wantMalformed checks that err is answered with 422 and says what is wrong.
func wantMalformed(t testing.TB, err error, says string) {
	t.Helper()
	var answer *Error
	if !errors.As(err, &answer) || answer.Code != http.StatusUnprocessableEntity || answer.Type != TypeMalformedRequest || !strings.Contains(answer.Message, says) {
		t.Errorf("got error %#v, want 422 malformedRequest with %q in its message", err, says)
	}
}

func TestIsPlainPath(t *testing.T) {
	for _, first := range []string{"", "/", "a", "."} {
		for _, second := range []string{"", "/", "//", "/.", "/..", "/.b", "/b", "/b.", "/b..", "b", "/%2e", "/b/.c"} {
			for _, third := range []string{"", "/", "/.", "/..", "/c", "//c", "."} {
				escaped := first + second + third
				if got, want := IsPlainPath(escaped), escaped == path.Clean(escaped); got != want {
					t.Errorf("%q: got %t", escaped, got)
				}
			}
		}
	}
}
