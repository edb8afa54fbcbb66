package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"

	"github.com/binder-project/binder-deploy-kubernetes/internal/preload"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// fakePreloader answers what it is told to, and remembers what it was asked.
type fakePreloader struct {
	preload preload.Progress
	known   bool
	err     error
	asked   []string
}

func (f *fakePreloader) Preload(_ context.Context, template string) (preload.Template, error) {
	f.asked = append(f.asked, "preload "+template)
	return preload.Template{Name: template, ImageSource: "app:1", Port: 8888, Images: []string{"app:1"}}, f.err
}

func (f *fakePreloader) Status(_ context.Context, template string) (preload.Progress, bool, error) {
	f.asked = append(f.asked, "status "+template)
	return f.preload, f.known, f.err
}

func TestPreloadAPI(t *testing.T) {
	loading := preload.Progress{Template: "x", Started: kubetest.Noon, Status: preload.Loading, Done: 1, ToDo: 2}
	failed := preload.Progress{Template: "x", Started: kubetest.Noon, Status: preload.Failed, ToDo: 1, Reason: "ImagePullBackOff", Message: "node a: no"}
	for _, test := range []struct {
		name, method, path, key string
		fake                    fakePreloader
		code                    int
		body, asked             string
	}{
		{"begin", "POST", "/preload/x", "key", fakePreloader{}, 200,
			`{"template":{"name":"x","image-source":"app:1","port":8888,"images":["app:1"]}}`, "preload x"},
		{"with a slash", "POST", "/preload/x/", "key", fakePreloader{}, 200,
			`{"template":{"name":"x","image-source":"app:1","port":8888,"images":["app:1"]}}`, "preload x"},
		{"begin without the key", "POST", "/preload/x", "", fakePreloader{}, 403,
			`{"type":"unauthorized","error":"the Authorization header must hold the API key"}`, ""},
		{"unknown template", "POST", "/preload/x", "key", fakePreloader{err: fmt.Errorf("%w: %q", podtemplate.ErrUnknown, "x")}, 404,
			`{"type":"registryError","error":"unknown template: \"x\""}`, "preload x"},
		{"refused", "POST", "/preload/x", "key", fakePreloader{err: &podtemplate.Error{Template: "x", Use: "preloaded", Err: errors.New("secret")}}, 500,
			`{"type":"badKubeRequest","error":"template \"x\" cannot be preloaded; the server's log says why"}`, "preload x"},
		{"loading", "GET", "/preload/x", "key", fakePreloader{preload: loading, known: true}, 200,
			`{"name":"x","start-time":"2026-01-02T12:00:00Z","status":"loading","nodes-done":1,"nodes-to-do":2}`, "status x"},
		{"failed", "GET", "/preload/x", "key", fakePreloader{preload: failed, known: true}, 200,
			`{"name":"x","start-time":"2026-01-02T12:00:00Z","status":"failed","nodes-done":0,"nodes-to-do":1,"reason":"ImagePullBackOff","message":"node a: no"}`, "status x"},
		{"never preloaded", "GET", "/preload/x", "key", fakePreloader{}, 200, `{}`, "status x"},
		{"status without the key", "GET", "/preload/x", "wrong", fakePreloader{}, 403,
			`{"type":"unauthorized","error":"the Authorization header must hold the API key"}`, ""},
		{"another method", "DELETE", "/preload/x", "key", fakePreloader{}, 405,
			`{"type":"malformedRequest","error":"the method must be one of GET, POST"}`, ""},
		{"no template", "POST", "/preload/", "key", fakePreloader{}, 404,
			`{"type":"malformedRequest","error":"there is no such endpoint: /preload"}`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			api := &API{
				Preloader: &test.fake, Key: protocol.NewAPIKey("key"), Draining: t.Context(),
				Metrics: newTestMetrics(), Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
			}
			request := httptest.NewRequest(test.method, test.path, http.NoBody)
			request.Header.Set("Authorization", test.key)
			answer := httptest.NewRecorder()
			api.Routes().ServeHTTP(answer, request)
			if body := strings.TrimSpace(answer.Body.String()); answer.Code != test.code || body != test.body {
				t.Errorf("answered %d %s\nwant     %d %s", answer.Code, body, test.code, test.body)
			}
			if asked := strings.Join(test.fake.asked, ", "); asked != test.asked {
				t.Errorf("the preloader was asked %q, want %q", asked, test.asked)
			}
		})
	}
}
