package main

import (
	"fmt"
	"net/http"
	"sync/atomic"
)

// health answers the kubelet's probes.
type health struct {
	synced   func() bool
	stopping atomic.Bool
}

// Routes are the endpoints for operators: metrics and probes.
func (h *health) Routes(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /healthz", h.healthz)
	mux.HandleFunc("GET /readyz", h.readyz)
	return mux
}

// healthz says that the process answers. It does not depend on the API server:
// a restart would not bring that back, and would lose the cache that answers
// while it is away.
func (h *health) healthz(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }

// readyz says that requests are welcome: the cluster has been read, and the
// process is not on its way out.
func (h *health) readyz(w http.ResponseWriter, _ *http.Request) {
	switch {
	case h.stopping.Load():
		http.Error(w, "shutting down", http.StatusServiceUnavailable)
	case !h.synced():
		http.Error(w, "waiting for the first read of the cluster", http.StatusServiceUnavailable)
	default:
		fmt.Fprintln(w, "ok")
	}
}
