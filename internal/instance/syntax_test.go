package instance_test

import (
	"strings"
	"testing"

	. "github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

func TestCompileIdlePathsMatchesWholePaths(t *testing.T) {
	expression, err := CompileIdlePaths("api/(kernels|sessions)(/[^/]+)?|metrics")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"api/kernels": true, "api/sessions/1": true, "metrics": true,
		"": false, "api": false, "/api/kernels": false, "api/kernels/1/channels": false, "xmetrics": false, "metricsx": false, "metrics\n": false,
	} {
		if got := expression.MatchString(path); got != want {
			t.Errorf("%q: got %t, want %t", path, got, want)
		}
	}
}

func TestCompileIdlePathsRefuses(t *testing.T) {
	for expression, why := range map[string]string{
		"api/(kernels": "missing closing )",
		"a)|(.*":       "unexpected )",
		"(?<name":      "invalid named capture",
		`(a)\1`:        "invalid escape sequence",
		"[z-a]":        "invalid character class range",
		"a{1001}":      "invalid repeat count",
		strings.Repeat("a", MaxIdlePathsLength+1):     "at most 1024",
		"(" + strings.Repeat("abcd", 200) + "){1000}": "too large",
		strings.Repeat("x{1000}", 100):                "too large",
		`\pL{900}`:                                    `too large`,
		strings.Repeat("(", 1001):                     "missing closing )",
	} {
		if _, err := CompileIdlePaths(expression); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%.40q: got error %v, want %q", expression, err, why)
		}
	}
}

func TestParseProbePath(t *testing.T) {
	for _, value := range []string{"api/kernels", "api/kernels/", "status", "a%20b", "api/sessions?x=1", strings.Repeat("a", MaxProbePath)} {
		if _, err := ParseProbePath(value); err != nil {
			t.Errorf("%.40q: got error %v", value, err)
		}
	}
	for _, value := range []string{
		"", "/", "/api/kernels", "//10.0.0.1/x", "http://10.0.0.1/x", "http:x", "..", "../x", "a/../../x", "%2e%2e/x", "a//b", "a/./b",
		"?x=1", "a#b", "%zz", "a\nb", strings.Repeat("a", MaxProbePath+1),
	} {
		if u, err := ParseProbePath(value); err == nil {
			t.Errorf("%.40q: got %v, want an error", value, u)
		}
	}
}
