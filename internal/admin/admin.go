// Package admin is what operators see of the service at /admin/state: what runs, by template,
// the pools, the preloads, and the limits with how near they are. The page that shows it is
// in package pages.
//
// It must never know the cluster: the read model makes the state.
package admin

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
	"github.com/binder-project/binder-deploy-kubernetes/internal/waiters"
)

// Deps are what an Admin needs.
type Deps struct {
	// State returns the state as it is now, from memory.
	State func(context.Context) State
	// Opens reports whether an Authorization header has the API key. A stream ends when its
	// key is no longer one.
	Opens    func(authorization string) bool
	Draining context.Context // done when streams must end
}

// Admin answers with the state, once or as a stream.
type Admin struct {
	deps    Deps
	watches waiters.Set
}

// New returns an Admin.
func New(deps Deps) *Admin { return &Admin{deps: deps} }

// watch is the name that all streams wait under.
const watch = ""

// Changed tells the streams that the state may have changed. It never blocks.
func (a *Admin) Changed() { a.watches.Wake(watch) }

// ServeState answers with the state as JSON; or, if the client accepts events, with the state
// and each later one until the client goes. The request must have the API key. The error is nil.
func (a *Admin) ServeState(w http.ResponseWriter, r *http.Request) error {
	if !protocol.AcceptsEvents(r) {
		protocol.WriteJSON(w, http.StatusOK, a.deps.State(r.Context()))
		return nil
	}
	changed, stop := a.watches.Add(watch)
	defer stop()
	protocol.StreamState(w, r, a.deps.Draining, changed, func(ctx context.Context) (data []byte, ok bool) {
		if !a.deps.Opens(r.Header.Get("Authorization")) {
			return nil, false
		}
		data, err := json.Marshal(a.deps.State(ctx))
		return data, err == nil // there is always a form in JSON
	})
	return nil
}
