package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"k8s.io/client-go/rest"
)

// gateway passes requests on to the API server and counts them.
type gateway struct {
	kubeconfig string // leads through the gateway
	server     *http.Server
	mu         sync.Mutex
	requests   map[string]int // by method and resource
}

// startGateway starts a gateway, with the rights of a config.
func startGateway(config *rest.Config, dir string) (*gateway, error) {
	target, err := url.Parse(config.Host)
	if err != nil {
		return nil, fmt.Errorf("read the API server's address: %w", err)
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	g := &gateway{kubeconfig: filepath.Join(dir, "gateway.kubeconfig"), requests: map[string]int{}}
	settings, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "bench",
		"clusters": []any{map[string]any{"name": "bench", "cluster": map[string]any{"server": "http://" + listener.Addr().String()}}},
		"contexts": []any{map[string]any{"name": "bench", "context": map[string]any{"cluster": "bench"}}},
	})
	if err != nil {
		return nil, fmt.Errorf("write a kubeconfig: %w", err)
	}
	if err := os.WriteFile(g.kubeconfig, settings, 0o600); err != nil {
		return nil, fmt.Errorf("write a kubeconfig: %w", err)
	}
	proxy := &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1, // watches
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
	}
	g.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.count(r)
		proxy.ServeHTTP(w, r)
	})}
	go func() { _ = g.server.Serve(listener) }() // until Close
	return g, nil
}

// Close ends all requests under way.
func (g *gateway) Close() { _ = g.server.Close() }

// count counts a request, unless it is one of the election, which goes on all the time.
func (g *gateway) count(r *http.Request) {
	resource := resourceOf(r.URL.Path)
	if resource == "leases" {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.requests[r.Method+" "+resource]++
}

// resourceOf returns the resource that the path of a request to the API server names, as in
// /api/v1/namespaces/<namespace>/pods/<name>.
func resourceOf(path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	for i, part := range parts {
		if part == "namespaces" && i+2 < len(parts) {
			return parts[i+2]
		}
	}
	return parts[len(parts)-1]
}

func (g *gateway) reset() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.requests)
}

func (g *gateway) counts() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.requests)
}

func (g *gateway) total() int {
	total := 0
	for _, count := range g.counts() {
		total += count
	}
	return total
}
