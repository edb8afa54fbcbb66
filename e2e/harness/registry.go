package harness

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// RegistryAddress is the address of the tests' registry, as in the Deployment's
// flags. It is the node's address on the pod bridge.
const RegistryAddress = "10.244.0.1:18082"

// Templates of the registry. All but the first make it fail in some way.
const (
	RegistryTemplate  = "from-the-registry"
	RegistryBroken    = "registry-broken"    // status 500
	RegistryNonsense  = "registry-nonsense"  // not JSON
	RegistryErrorBody = "registry-error"     // JSON that is not a template
	RegistryCut       = "registry-cut"       // the response ends early
	RegistrySlow      = "registry-slow"      // no response
	RegistryBadLimit  = "registry-bad-limit" // a template with an invalid limit
)

// newRegistry returns a Binder registry that requires the key.
func newRegistry(key string) http.Handler {
	mux := http.NewServeMux()
	respond := func(name string, code int, body string) {
		mux.HandleFunc("GET /templates/"+name, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
		})
	}
	respond(RegistryTemplate, http.StatusOK, `{"name": "`+RegistryTemplate+`", "image-name": "binder-echo",
		"image-source": "localhost/binder-echo:dev", "port": 8888, "command": ["/echo"],
		"limits": {"memory": "64Mi", "cpu": "1"}, "services": [{"name": "spark"}],
		"time-created": "2016-03-01T12:00:00.000Z", "time-modified": "2016-03-01T12:00:00.000Z"}`)
	respond(RegistryBroken, http.StatusInternalServerError, `{"name": "`+RegistryBroken+`", "image-source": "localhost/binder-echo:dev"}`)
	respond(RegistryNonsense, http.StatusOK, `<html>`)
	respond(RegistryErrorBody, http.StatusOK, `{"type": "badDatabase", "error": "the database is away"}`)
	respond(RegistryBadLimit, http.StatusOK, `{"name": "`+RegistryBadLimit+`", "image-source": "localhost/binder-echo:dev", "limits": {"memory": "512MB"}}`)
	mux.HandleFunc("GET /templates/"+RegistryCut, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(`{"name": `))
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("GET /templates/"+RegistrySlow, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != key {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (s *Suite) startRegistry(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", RegistryAddress)
	if err != nil {
		return fmt.Errorf("listen on the registry's address: %w", err)
	}
	s.registry = &http.Server{Handler: newRegistry(s.API.key), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.registry.Serve(listener) }() // stopRegistry ends it
	return nil
}

func (s *Suite) stopRegistry() {
	if s.registry != nil {
		_ = s.registry.Close() // the tests are over
	}
}
