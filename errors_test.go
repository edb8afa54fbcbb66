package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"

	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// secretDetail stands for what an error's text may tell of the cluster.
const secretDetail = "node-17.internal.example"

func TestErrorsAsAnswers(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	for _, row := range []struct {
		name       string
		err        error
		code       int
		kind       string
		says       string
		retryAfter string
		logged     bool
	}{
		{
			name: "an answer already", err: &protocol.Error{Code: 418, Type: "teapot", Message: "short and stout"},
			code: 418, kind: "teapot", says: "short and stout",
		},
		{
			name: "an answer, wrapped", err: fmt.Errorf("%s: %w", secretDetail, protocol.Malformed("not %q", "x")),
			code: 422, kind: "malformedRequest", says: `not "x"`,
		},
		{
			name: "an unknown template", err: fmt.Errorf("%w: %q", podtemplate.ErrUnknown, "jupyter"),
			code: 404, kind: "registryError", says: `unknown template: "jupyter"`,
		},
		{name: "no record", err: launch.ErrNoRecord, code: 404, kind: "noRecord", says: "no record"},
		{
			name: "no capacity", err: fmt.Errorf("%w: %w", launch.ErrCapacity, errors.New(secretDetail)),
			code: 503, kind: "badKubeRequest", says: "all places are taken", retryAfter: "60", logged: true,
		},
		{
			name: "a template that cannot be launched", err: fmt.Errorf("launch: %w", &podtemplate.Error{Template: "jupyter", Err: errors.New(secretDetail)}),
			code: 500, kind: "badKubeRequest", says: `template "jupyter" cannot be launched`, logged: true,
		},
		{
			name: "the API server refuses", err: apierrors.NewForbidden(pods, secretDetail, errors.New("not allowed")),
			code: 503, kind: "badKubeRequest", says: "try again shortly", retryAfter: "5", logged: true,
		},
		{
			name: "the API server is away", err: fmt.Errorf("create pod: dial tcp %s:6443: connection refused", secretDetail),
			code: 503, kind: "badKubeRequest", says: "try again shortly", retryAfter: "5", logged: true,
		},
		{
			name: "the API server is slow", err: fmt.Errorf("create pod on %s: %w", secretDetail, context.DeadlineExceeded),
			code: 503, kind: "badKubeRequest", says: "try again shortly", retryAfter: "5", logged: true,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			log, out := kubetest.RecordLog()
			res := httptest.NewRecorder()
			protocol.WriteError(res, httptest.NewRequest(http.MethodPost, "/applications/jupyter", nil), log, row.err)

			if got := wantError(t, res, row.code, row.kind); !strings.Contains(got, row.says) {
				t.Errorf("the client is told %q, want %q in it", got, row.says)
			}
			if got := res.Header().Get("Retry-After"); got != row.retryAfter {
				t.Errorf("Retry-After is %q, want %q", got, row.retryAfter)
			}
			if strings.Contains(res.Body.String(), secretDetail) {
				t.Errorf("the client is told how the cluster is made: %s", res.Body)
			}
			if logged := strings.Contains(out.String(), "request failed"); logged != row.logged {
				t.Errorf("logged is %v, want %v: %q", logged, row.logged, out)
			}
			if row.logged && !strings.Contains(out.String(), row.err.Error()) && !strings.Contains(out.String(), secretDetail) {
				t.Errorf("the log does not say what was wrong: %q", out)
			}
		})
	}
}

func TestErrorOfAVisitorWhoHasGoneIsNotLogged(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := httptest.NewRequest(http.MethodPost, "/applications/jupyter", nil).WithContext(ctx)
	cancel()
	for _, row := range []struct {
		err    error
		logged bool
	}{
		{fmt.Errorf("create pod: %w", context.Canceled), false},
		{errors.New("the API server has a fault of its own"), true},
	} {
		log, out := kubetest.RecordLog()
		protocol.WriteError(httptest.NewRecorder(), r, log, row.err)
		if logged := out.String() != ""; logged != row.logged {
			t.Errorf("%v: logged is %v, want %v", row.err, logged, row.logged)
		}
	}
}

func TestErrorLogNamesTheRequest(t *testing.T) {
	log, out := kubetest.RecordLog()
	r := httptest.NewRequest(http.MethodPost, "/applications/jupyter?token=in-the-query", nil)
	protocol.WriteError(httptest.NewRecorder(), r, log, launch.ErrCapacity)
	for _, want := range []string{"level=ERROR", "method=POST", "path=/applications/jupyter", "code=503"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("logged %q, want %q in it", out, want)
		}
	}
	if strings.Contains(out.String(), "in-the-query") {
		t.Errorf("the query is logged: %q", out)
	}
}

func TestRetryAfterIsInSeconds(t *testing.T) {
	res := httptest.NewRecorder()
	err := &protocol.Error{Code: 503, Type: protocol.TypeBadKubeRequest, Message: "busy", RetryAfter: 90 * time.Second}
	protocol.WriteError(res, httptest.NewRequest(http.MethodGet, "/", nil), kubetest.NoLog(), err)
	if got := res.Header().Get("Retry-After"); got != "90" {
		t.Errorf("Retry-After is %q, want 90", got)
	}
}

// wantError checks that an answer is an error as binder-client can read it, and
// returns its message.
func wantError(t testing.TB, res *httptest.ResponseRecorder, code int, kind string) string {
	t.Helper()
	if res.Code != code {
		t.Errorf("got code %d, want %d: %s", res.Code, code, res.Body)
	}
	for header, want := range map[string]string{
		"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
	} {
		if got := res.Header().Get(header); got != want {
			t.Errorf("%s is %q, want %q", header, got, want)
		}
	}
	var body map[string]string
	if err := json.Unmarshal(res.Body.Bytes(), &body); err != nil {
		t.Errorf("the body is no JSON object of strings: %v: %q", err, res.Body)
		return ""
	}
	if len(body) != 2 || body["type"] != kind || body["error"] == "" {
		t.Errorf("got body %v, want the type %s, an error, and no more", body, kind)
	}
	return body["error"]
}
