package protocol

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// secretDetail stands for what the text of an error may tell about the cluster.
const secretDetail = "node-17.internal.example"

func TestWriteError(t *testing.T) {
	secret := errors.New(secretDetail)
	for _, row := range []struct {
		name       string
		err        error
		code       int
		kind, says string
		retryAfter string
	}{
		{"an answer", &Error{Code: 418, Type: "teapot", Message: "short and stout"}, 418, "teapot", "short and stout", ""},
		{"an answer with a time", &Error{Code: 418, Type: "teapot", Message: "hot", RetryAfter: 90 * time.Second}, 418, "teapot", "hot", "90"},
		{"a wrapped answer", fmt.Errorf("%w: %w", secret, Malformed("not %q", "x")), 422, "malformedRequest", `not "x"`, ""},
		{"unknown template", fmt.Errorf("%w: %q", podtemplate.ErrUnknown, "jupyter"), 404, "registryError", `unknown template: "jupyter"`, ""},
		{"no answer from the registry", fmt.Errorf("%w: %w", podtemplate.ErrUnavailable, secret), 503, "registryError", "try again shortly", "5"},
		{"no record", launch.ErrNoRecord, 404, "noRecord", "no record", ""},
		{"no capacity", fmt.Errorf("%w: %w", launch.ErrCapacity, secret), 503, "badKubeRequest", "all places are taken", "60"},
		{"over a limit", fmt.Errorf("launch: %w", &admission.Refusal{Limit: admission.LaunchRate, Max: 20, RetryAfter: 721 * time.Second}), 429, "limitReached", `at most 20 launches an hour are allowed from one address; try again in 12m1s","limit":"launch-rate"}`, "721"},
		{"too many launches", launch.ErrBusy, 503, "badKubeRequest", "try again shortly", "5"},
		{"bad template", fmt.Errorf("launch: %w", &podtemplate.Error{Template: "jupyter", Err: secret}), 500, "badKubeRequest", `template "jupyter" cannot be launched`, ""},
		{"the API server refuses", apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, secretDetail, errors.New("not allowed")), 503, "badKubeRequest", "try again shortly", "5"},
		{"the API server is away", fmt.Errorf("create pod: dial tcp %w: connection refused", secret), 503, "badKubeRequest", "try again shortly", "5"},
		{"the API server is slow", fmt.Errorf("create pod on %w: %w", secret, context.DeadlineExceeded), 503, "badKubeRequest", "try again shortly", "5"},
	} {
		t.Run(row.name, func(t *testing.T) {
			log, out := kubetest.RecordLog()
			res := httptest.NewRecorder()
			WriteError(res, httptest.NewRequest(http.MethodPost, "/applications/jupyter?token=in-the-query", nil), log, row.err)

			if res.Code != row.code || !strings.HasPrefix(res.Body.String(), `{"type":"`+row.kind+`","error":"`) || !strings.Contains(res.Body.String(), row.says) && !strings.Contains(res.Body.String(), quoted(row.says)) {
				t.Errorf("answered %d %s; want %d, the type %s and %q", res.Code, res.Body, row.code, row.kind, row.says)
			}
			for header, want := range map[string]string{
				"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Retry-After": row.retryAfter,
			} {
				if got := res.Header().Get(header); got != want {
					t.Errorf("%s is %q, want %q", header, got, want)
				}
			}
			if strings.Contains(res.Body.String(), secretDetail) {
				t.Errorf("the client is told about the cluster: %s", res.Body)
			}
			// A limit works as it should, and anybody can reach it.
			if row.code < 500 || errors.Is(row.err, launch.ErrCapacity) || errors.Is(row.err, launch.ErrBusy) {
				if out.String() != "" {
					t.Errorf("a client's fault is logged: %q", out)
				}
				return
			}
			for _, want := range []string{"ERROR", "POST", "/applications/jupyter", fmt.Sprint(row.code), secretDetail} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("logged %q, want %q in it", out, want)
				}
			}
			if strings.Contains(out.String(), "in-the-query") {
				t.Errorf("the query is logged: %q", out)
			}
		})
	}
}

// quoted is a text as it appears in JSON.
func quoted(text string) string { return strings.ReplaceAll(text, `"`, `\"`) }

func TestErrorsOfClientsThatHaveGoneAreNotLogged(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/applications/jupyter", nil)
	cancel()
	for err, logged := range map[error]bool{
		fmt.Errorf("create pod: %w", context.Canceled):   false,
		errors.New("the API server has another problem"): true,
	} {
		log, out := kubetest.RecordLog()
		WriteError(httptest.NewRecorder(), r, log, err)
		if got := out.String() != ""; got != logged {
			t.Errorf("%v: logged is %v, want %v", err, got, logged)
		}
	}
}
