package harness

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// RegistryAddress is where the service's pods find the registry of the tests, by
// the Deployment's flag: the node's address on the bridge of the pods.
const RegistryAddress = "10.244.0.1:18082"

// Templates that only the registry knows, and those by which it fails.
const (
	RegistryTemplate  = "from-the-registry"
	RegistryBroken    = "registry-broken"    // 500
	RegistryNonsense  = "registry-nonsense"  // no JSON
	RegistryErrorBody = "registry-error"     // a JSON object that is no template
	RegistryCut       = "registry-cut"       // half an answer
	RegistrySlow      = "registry-slow"      // no answer
	RegistryBadLimit  = "registry-bad-limit" // a template that no pod can be made of
)

// newRegistry is a Binder registry that shows what it knows to who has the key.
func newRegistry(key string) http.Handler {
	mux := http.NewServeMux()
	say := func(name string, code int, body string) {
		mux.HandleFunc("GET /templates/"+name, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
		})
	}
	say(RegistryTemplate, http.StatusOK, `{"name": "`+RegistryTemplate+`", "image-name": "binder-echo",
		"image-source": "localhost/binder-echo:dev", "port": 8888, "command": ["/echo"],
		"limits": {"memory": "64Mi", "cpu": "1"}, "services": [{"name": "spark"}],
		"time-created": "2016-03-01T12:00:00.000Z", "time-modified": "2016-03-01T12:00:00.000Z"}`)
	say(RegistryBroken, http.StatusInternalServerError, `{"name": "`+RegistryBroken+`", "image-source": "localhost/binder-echo:dev"}`)
	say(RegistryNonsense, http.StatusOK, `<html>`)
	say(RegistryErrorBody, http.StatusOK, `{"type": "badDatabase", "error": "the database is away"}`)
	say(RegistryBadLimit, http.StatusOK, `{"name": "`+RegistryBadLimit+`", "image-source": "localhost/binder-echo:dev", "limits": {"memory": "512MB"}}`)
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
		return fmt.Errorf("listen where the pods find a registry: %w", err)
	}
	s.registry = &http.Server{Handler: newRegistry(s.API.key), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.registry.Serve(listener) }() // until it is closed
	return nil
}

func (s *Suite) stopRegistry() {
	if s.registry != nil {
		_ = s.registry.Close() // nothing of it is of interest any more
	}
}
