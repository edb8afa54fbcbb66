package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestProbes(t *testing.T) {
	for _, row := range []struct {
		name             string
		synced, stopping bool
		path             string
		code             int
		body             string
	}{
		{name: "alive", synced: true, path: "/healthz", code: 200, body: "ok"},
		{name: "alive before the first read", path: "/healthz", code: 200, body: "ok"},
		{name: "alive on the way out", synced: true, stopping: true, path: "/healthz", code: 200, body: "ok"},
		{name: "ready", synced: true, path: "/readyz", code: 200, body: "ok"},
		{name: "not ready before the first read", path: "/readyz", code: 503, body: "first read"},
		{name: "not ready on the way out", synced: true, stopping: true, path: "/readyz", code: 503, body: "shutting down"},
		{name: "neither", stopping: true, path: "/readyz", code: 503, body: "shutting down"},
		{name: "nothing else", synced: true, path: "/applications", code: 404},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := &health{synced: func() bool { return row.synced }}
			h.stopping.Store(row.stopping)
			res := httptest.NewRecorder()
			h.routes(http.NotFoundHandler()).ServeHTTP(res, httptest.NewRequest(http.MethodGet, row.path, nil))
			if res.Code != row.code || !strings.Contains(res.Body.String(), row.body) {
				t.Errorf("GET %s: got %d %q, want %d with %q", row.path, res.Code, res.Body, row.code, row.body)
			}
		})
	}
}

func TestOperatorsRoutes(t *testing.T) {
	h := &health{synced: func() bool { return true }}
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	for _, row := range []struct {
		method, path string
		code         int
	}{
		{http.MethodGet, "/metrics", http.StatusTeapot},
		{http.MethodHead, "/readyz", http.StatusOK},
		{http.MethodPost, "/metrics", http.StatusMethodNotAllowed},
		{http.MethodPost, "/readyz", http.StatusMethodNotAllowed},
		{http.MethodDelete, "/healthz", http.StatusMethodNotAllowed},
	} {
		res := httptest.NewRecorder()
		h.routes(metrics).ServeHTTP(res, httptest.NewRequest(row.method, row.path, nil))
		if res.Code != row.code {
			t.Errorf("%s %s: got %d, want %d", row.method, row.path, res.Code, row.code)
		}
	}
}
