//go:build integration

package main

import (
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// apiCall is a request to the API server; code is 0 without an answer.
type apiCall struct {
	method, path string
	code         int
}

func (c apiCall) String() string { return c.method + " " + c.path }

// methodOf returns the method of a request, and marks dry runs.
func methodOf(r *http.Request) string {
	if r.Method == http.MethodDelete && r.GetBody != nil {
		if body, err := r.GetBody(); err == nil {
			defer body.Close()
			if options, err := io.ReadAll(body); err == nil && strings.Contains(string(options), metav1.DryRunAll) {
				return r.Method + " (dry run)"
			}
		}
	}
	return r.Method
}

// traffic records the requests of a client.
type traffic struct {
	mu    sync.Mutex
	calls []apiCall
}

func (f *traffic) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		f.mu.Lock()
		n := len(f.calls)
		f.calls = append(f.calls, apiCall{method: methodOf(r), path: r.URL.Path})
		f.mu.Unlock()
		res, err := next.RoundTrip(r)
		if err == nil {
			f.mu.Lock()
			f.calls[n].code = res.StatusCode
			f.mu.Unlock()
		}
		return res, err
	})
}

// all returns the requests so far, in the order in which they were sent.
func (f *traffic) all() []apiCall {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// count returns the number of requests so far with a method, a part of the path, and the
// code of the answer; 0 is any code.
func (f *traffic) count(method, inPath string, code int) int {
	n := 0
	for _, c := range f.all() {
		if c.method == method && strings.Contains(c.path, inPath) && (code == 0 || c.code == code) {
			n++
		}
	}
	return n
}

// barrier holds back requests with a method and a part of the path until it is opened.
type barrier struct {
	method, inPath string
	opened         chan struct{}
	waiting        chan struct{} // one value for each request held back
}

func newBarrier(method, inPath string) *barrier {
	return &barrier{method: method, inPath: inPath, opened: make(chan struct{}), waiting: make(chan struct{}, 1000)}
}

func (g *barrier) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if methodOf(r) == g.method && strings.Contains(r.URL.Path, g.inPath) {
			g.waiting <- struct{}{}
			select {
			case <-g.opened:
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		}
		return next.RoundTrip(r)
	})
}

// awaitHeld waits until a number of requests is held back.
func (g *barrier) awaitHeld(t testing.TB, requests int) {
	t.Helper()
	for range requests {
		receive(t, g.waiting)
	}
}

func (g *barrier) open() { close(g.opened) }

// forwarder is a TCP proxy to the API server that a test can interrupt.
type forwarder struct {
	addr, target string

	mu          sync.Mutex
	listener    net.Listener // nil while cut
	connections map[net.Conn]struct{}
	stalled     bool
	running     sync.WaitGroup
}

// forward starts a forwarder. The returned configuration goes through it.
func forward(t testing.TB, config *rest.Config) (*forwarder, *rest.Config) {
	t.Helper()
	through := rest.CopyConfig(config)
	address, _, err := rest.DefaultServerUrlFor(config)
	noError(t, err)
	f := &forwarder{addr: "127.0.0.1:0", target: address.Host, connections: map[net.Conn]struct{}{}}
	f.restore(t)
	t.Cleanup(func() {
		f.cut()
		f.running.Wait()
	})
	// The certificate is for the address of the API server.
	if through.TLSClientConfig.ServerName == "" {
		through.TLSClientConfig.ServerName = address.Hostname()
	}
	address.Host = f.addr
	through.Host = address.String()
	return f, through
}

// cut ends all connections and refuses new ones.
func (f *forwarder) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listener != nil {
		f.listener.Close()
		f.listener = nil
	}
	f.dropLocked()
}

// drop ends all connections.
func (f *forwarder) drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dropLocked()
}

func (f *forwarder) dropLocked() {
	for c := range f.connections {
		c.Close()
	}
	clear(f.connections)
}

// stall keeps all connections open and drops all data.
func (f *forwarder) stall() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stalled = true
}

// restore undoes cut.
func (f *forwarder) restore(t testing.TB) {
	t.Helper()
	listener, err := net.Listen("tcp", f.addr)
	noError(t, err)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addr = listener.Addr().String()
	f.listener = listener
	f.running.Go(func() { f.accept(listener) })
}

func (f *forwarder) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", f.target)
		if err != nil {
			client.Close()
			continue
		}
		if !f.keep(listener, client, server) {
			client.Close()
			server.Close()
			return
		}
		f.running.Go(func() { f.copy(server, client) })
		f.running.Go(func() { f.copy(client, server) })
	}
}

// keep records a connection, unless the listener has been closed since.
func (f *forwarder) keep(listener net.Listener, both ...net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listener != listener {
		return false
	}
	for _, c := range both {
		f.connections[c] = struct{}{}
	}
	return true
}

func (f *forwarder) copy(to, from net.Conn) {
	defer to.Close()
	_, _ = io.Copy(forwarding{f, to}, from)
}

// forwarding is a connection that drops data while the forwarder is stalled.
type forwarding struct {
	forwarder *forwarder
	net.Conn
}

func (w forwarding) Write(p []byte) (int, error) {
	w.forwarder.mu.Lock()
	stalled := w.forwarder.stalled
	w.forwarder.mu.Unlock()
	if stalled {
		return len(p), nil
	}
	return w.Conn.Write(p)
}
