package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/registry"

	"github.com/binder-project/binder-deploy-kubernetes/internal/proxy"
)

func TestJupyterIdlePaths(t *testing.T) {
	expression, err := instance.CompileIdlePaths(registry.JupyterIdlePaths)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"api/kernels": true, "api/kernels/3fa85f64-5717": true, "api/sessions": true, "api/terminals": true, "api/terminals/1": true,
		"api/kernelspecs": true, "api/me": true, "api/status": true, "api/metrics/v1": true, "metrics": true, "api/events/subscribe": true,
		"lab/api/workspaces": true, "lab/api/workspaces/": true,
		"api/contents": true, "api/contents/": true, "api/contents/data": true, "api/contents/a.b/My data": true,
		"api/contents/work/index.ipynb/checkpoints": true, "api/contents/v1.0": true, "api/contents/index.ipynb": true,
		// What somebody does.
		"": false, "tree": false, "lab": false, "api/contentsx": false, "api/metrics/v1/kernel_usage/get_usage/3fa85f64": false,
		"files/data": false, "api/kernels/3fa85f64/channels": false, "terminals/websocket/1": false, "api/events": false, "api": false, "xmetrics": false, "metricsx": false,
		"api/kernelspecs/python3": false, "lab/api/workspaces/default": false, "notebooks/index.ipynb": false, "/api/kernels": false,
	} {
		if got := expression.MatchString(path); got != want {
			t.Errorf("%q: idle is %t, want %t", path, got, want)
		}
	}
}

// The example template has the same as templates from a registry.
func TestExampleTemplateIsIdleAsJupyterIs(t *testing.T) {
	manifest, err := os.ReadFile("manifests/base/instances/template-jupyter.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{instance.IdlePathsAnnotation: `"` + registry.JupyterIdlePaths + `"`, instance.ActivityProbeAnnotation: registry.JupyterActivityProbe} {
		if line := "    " + name + ": " + value + "\n"; !strings.Contains(string(manifest), line) {
			t.Errorf("it does not have %s", line)
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
		strings.Repeat("a", instance.MaxIdlePathsLength+1): "at most 1024",
		"(" + strings.Repeat("abcd", 200) + "){1000}":      "too large",
		strings.Repeat("x{1000}", 100):                     "too large",
		strings.Repeat("(", 1001):                          "missing closing )",
	} {
		if _, err := instance.CompileIdlePaths(expression); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%.40q: got error %v, want %q", expression, err, why)
		}
	}
}

// Whoever writes on a pod can at worst have a little time of a request.
func TestIdlePathsOfAHostilePod(t *testing.T) {
	var expressions proxy.IdleExpressions
	path := instance.BaseURL(kubetest.ID(1)) + strings.Repeat("a", proxy.MaxIdlePath)
	began := time.Now()
	for _, expression := range []string{
		"(a*)*b", "(a|aa)+b", strings.Repeat("(a?){30}", 30), strings.Repeat("a?", 400) + "b", strings.Repeat("(.{1000}){1000}", 60),
		"(" + strings.Repeat("abcd", 200) + "){1000}", strings.Repeat("(", 500), strings.Repeat(`\pL{900}`, 100), strings.Repeat("a", 200<<10),
	} {
		inst := instance.Instance{ID: kubetest.ID(1), IdlePaths: expression}
		r := &http.Request{Method: http.MethodGet, URL: mustURL(t, path)}
		if expressions.IsIdle(inst, r) {
			t.Errorf("%.40q matches", expression)
		}
	}
	if took := time.Since(began); took > kubetest.Patience {
		t.Errorf("it took %s", took)
	}
}

func TestIdleExpressionsAreBounded(t *testing.T) {
	var expressions proxy.IdleExpressions
	for n := range 10 * proxy.MaxIdleExpressions {
		expression := fmt.Sprintf("a%d", n)
		if first, again := expressions.Get(expression), expressions.Get(expression); first == nil || first != again {
			t.Fatalf("%s: got %v, then %v, want the same twice", expression, first, again)
		}
	}
	if got := len(expressions.Compiled); got > proxy.MaxIdleExpressions {
		t.Errorf("%d are kept, want at most %d", got, proxy.MaxIdleExpressions)
	}
	if expressions.Get(strings.Repeat("a", instance.MaxIdlePathsLength+1)) != nil || expressions.Get("(") != nil {
		t.Error("one that is not valid was compiled")
	}
}

// Requests of idle paths reach the application and count as no use of it, and
// neither do the bytes of their answers.
func TestIdlePathsAreNoUse(t *testing.T) {
	for _, row := range []struct {
		name, method, rest, upgrade, paths string
		counts                             bool
	}{
		{"a poll", "GET", "api/kernels", "", registry.JupyterIdlePaths, false},
		{"a poll with a query", "GET", "api/sessions?_=1700000000000", "", registry.JupyterIdlePaths, false},
		{"a poll of the header", "HEAD", "api/status", "", registry.JupyterIdlePaths, false},
		{"an escaped poll", "GET", "api/contents/My%20data", "", registry.JupyterIdlePaths, false},
		{"a POST", "POST", "api/kernels", "", registry.JupyterIdlePaths, true},
		{"a DELETE", "DELETE", "api/kernels/1", "", registry.JupyterIdlePaths, true},
		{"another path", "GET", "tree", "", registry.JupyterIdlePaths, true},
		{"a part of an idle path", "GET", "api/status/x", "", registry.JupyterIdlePaths, true},
		{"another protocol that is not taken up", "GET", "tree", "h2c", registry.JupyterIdlePaths, true},
		{"a WebSocket that is refused", "GET", "api/kernels/1/channels", "websocket", registry.JupyterIdlePaths, false},
		{"a path that is too long to be matched", "GET", strings.Repeat("a", proxy.MaxIdlePath+1), "", "a+", true},
		{"the base URL", "GET", "", "", registry.JupyterIdlePaths, true},
		{"the base URL, if so wanted", "GET", "", "", "|poll", false},
		{"no expression", "GET", "api/kernels", "", "", true},
		{"one that is not valid", "GET", "api/kernels", "", "(", true},
	} {
		for _, strip := range []bool{false, true} {
			seen := make(chan string, 1)
			inst := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
				seen <- r.Method
				_, _ = io.WriteString(w, strings.Repeat("[]", 1<<16))
			}, func(inst *instance.Instance) { inst.StripPrefix, inst.IdlePaths = strip, row.paths })
			p := startProxy(t, inst)
			r, err := http.NewRequestWithContext(t.Context(), row.method, p.URL+instance.BaseURL(inst.ID)+row.rest, nil)
			if err != nil {
				t.Fatal(err)
			}
			if row.upgrade != "" {
				r.Header.Set("Connection", "Upgrade")
				r.Header.Set("Upgrade", row.upgrade)
			}
			if res, _ := p.do(t, r); res.StatusCode != http.StatusOK || receive(t, seen) != row.method {
				t.Errorf("%s: got %d", row.name, res.StatusCode)
			}
			if used := p.touches.of(inst.ID) > 0; used != row.counts {
				t.Errorf("%s, strip-prefix %t: counts is %t, want %t", row.name, strip, used, row.counts)
			}
		}
	}
}

// What an application asks of others is not its own use: another's, if that is
// an instance.
func TestOutgoingTrafficIsNoUse(t *testing.T) {
	other := newBackend(t, func(http.ResponseWriter, *http.Request) {}, func(inst *instance.Instance) { inst.ID = kubetest.ID(2) })
	ask := make(chan func(), 1)
	inst := newBackend(t, func(http.ResponseWriter, *http.Request) { (<-ask)() })
	p := startProxy(t, inst, other)
	ask <- func() { p.get(t, "/user/"+other.ID+"/") }
	p.get(t, "/user/"+inst.ID+"/")
	if own, others := p.touches.of(inst.ID), p.touches.of(other.ID); own != 1 || others != 1 {
		t.Errorf("touched %d and %d times, want once each: the one's visitor, and the one at the other", own, others)
	}
}
