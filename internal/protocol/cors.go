package protocol

import (
	"net/http"
	"slices"

	"github.com/binder-project/binder-deploy-kubernetes/internal/config"
)

const (
	corsMethods = "GET, POST, DELETE"
	corsHeaders = "Authorization, Content-Type, Prefer, Idempotency-Key, Accept"
	corsExposed = "Preference-Applied, Retry-After"
	// corsMaxAge is how long, in seconds, a browser need not ask again.
	corsMaxAge = "600"
)

// AllowOrigins lets pages of some origins call the API from a browser. They
// never do so with a cookie: there is none, and the key is in a header.
func AllowOrigins(origins []string, next http.Handler) http.Handler {
	if len(origins) == 0 {
		return next
	}
	all := slices.Contains(origins, config.AnyOrigin)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header, origin := w.Header(), r.Header.Get("Origin")
		if !all {
			header.Add("Vary", "Origin") // also where the answer is no: a cache must not give it to others
		}
		if origin == "" || !all && !slices.Contains(origins, origin) {
			next.ServeHTTP(w, r)
			return
		}
		if all {
			origin = config.AnyOrigin
		}
		header.Set("Access-Control-Allow-Origin", origin)
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			header.Set("Access-Control-Allow-Methods", corsMethods)
			header.Set("Access-Control-Allow-Headers", corsHeaders)
			header.Set("Access-Control-Max-Age", corsMaxAge)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		header.Set("Access-Control-Expose-Headers", corsExposed)
		next.ServeHTTP(w, r)
	})
}
