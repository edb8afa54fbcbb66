package proxy

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

const exampleTemplate = "../../manifests/base/instances/template-jupyter.yaml"

// jupyterIdlePaths is the idle-paths annotation of the example template.
func jupyterIdlePaths(t testing.TB) string {
	t.Helper()
	manifest, err := os.ReadFile(exampleTemplate)
	if err != nil {
		t.Fatal(err)
	}
	value := regexp.MustCompile(`(?m)^    ` + instance.IdlePathsAnnotation + `: "?([^"\n]+)"?$`).FindSubmatch(manifest)
	if value == nil {
		t.Fatal("the example template has no idle paths")
	}
	return string(value[1])
}

// idle reports whether a GET of a path below the base URL is idle.
func idle(x *idleExpressions, expression, rest string) bool {
	return x.match(instance.Instance{ID: kubetest.ID(1), IdlePaths: expression}, &http.Request{Method: http.MethodGet, URL: &url.URL{Path: base + rest}})
}

func TestJupyterIdlePaths(t *testing.T) {
	var x idleExpressions
	for path, want := range map[string]bool{
		"api/kernels": true, "api/kernels/3fa85f64-5717": true, "api/sessions": true, "api/terminals": true, "api/terminals/1": true,
		"api/kernelspecs": true, "api/me": true, "api/status": true, "api/metrics/v1": true, "metrics": true, "api/events/subscribe": true,
		"lab/api/workspaces": true, "lab/api/workspaces/": true,
		"api/contents": true, "api/contents/": true, "api/contents/data": true, "api/contents/a.b/My data": true,
		"api/contents/work/index.ipynb/checkpoints": true, "api/contents/v1.0": true, "api/contents/index.ipynb": true,
		// What a person does.
		"": false, "tree": false, "lab": false, "api/contentsx": false, "api/metrics/v1/kernel_usage/get_usage/3fa85f64": false,
		"files/data": false, "api/kernels/3fa85f64/channels": false, "terminals/websocket/1": false, "api/events": false, "api": false,
		"xmetrics": false, "metricsx": false, "api/kernelspecs/python3": false, "lab/api/workspaces/default": false,
		"notebooks/index.ipynb": false, "/api/kernels": false,
	} {
		if got := idle(&x, jupyterIdlePaths(t), path); got != want {
			t.Errorf("%q: idle is %t, want %t", path, got, want)
		}
	}
}

// Whoever can write annotations to a pod can cost each request only a little time.
func TestIdlePathsOfAHostilePod(t *testing.T) {
	var x idleExpressions
	began := time.Now()
	for _, expression := range []string{
		"(a*)*b", "(a|aa)+b", strings.Repeat("(a?){30}", 30), strings.Repeat("a?", 400) + "b", strings.Repeat("(.{1000}){1000}", 60),
		"(" + strings.Repeat("abcd", 200) + "){1000}", strings.Repeat("(", 500), strings.Repeat(`\pL{900}`, 100), strings.Repeat("a", 200<<10),
	} {
		if idle(&x, expression, strings.Repeat("a", maxIdlePath)) {
			t.Errorf("%.40q matches", expression)
		}
	}
	if took := time.Since(began); took > kubetest.Patience {
		t.Errorf("it took %s", took)
	}
}

func TestIdleExpressionsAreBounded(t *testing.T) {
	var x idleExpressions
	for n := range 10 * maxIdleExpressions {
		expression := fmt.Sprintf("a%d", n)
		if first, again := x.get(expression), x.get(expression); first == nil || first != again {
			t.Fatalf("%s: got %v, then %v, want the same twice", expression, first, again)
		}
		if got := len(x.compiled); got > maxIdleExpressions {
			t.Fatalf("%d are kept, want at most %d", got, maxIdleExpressions)
		}
	}
	long := strings.Repeat("a", instance.MaxIdlePathsLength+1)
	compiled := x.get(long)
	if _, kept := x.compiled[long]; compiled != nil || kept {
		t.Error("an expression that is too long is kept")
	}
}
