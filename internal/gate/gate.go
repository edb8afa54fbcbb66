// Package gate bounds what strangers can hold at the public port: connections in all and of
// each client, requests under way at each instance, and the memory of the heads of requests.
//
// It counts, and refuses what is too much. It must never know what an instance is, where a
// request leads, or what a refusal looks like to a person.
package gate

import (
	"container/list"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
)

// The values of the label limit of refusals.
const (
	limitAll         = "max_connections"
	limitPerClient   = "max_connections_per_client"
	limitPerInstance = "max_connections_per_instance"
	limitHeads       = "request_heads"
)

// Refusals lists the limits that Metrics.Refused is called with.
func Refusals() []string { return []string{limitAll, limitPerClient, limitPerInstance, limitHeads} }

// Metrics is what a Gate reports.
type Metrics interface {
	// ConnectionsOpen is told how many visitors' connections are open.
	ConnectionsOpen(n int)
	// ConnectionRefused counts a connection or a request that a limit has refused.
	ConnectionRefused(limit string)
}

// Deps are what a Gate needs.
type Deps struct {
	Limits Limits
	// Client returns who sent a request, by the address of its peer and the values of
	// X-Forwarded-For. An invalid one is not counted.
	Client func(remote string, forwarded []string) netip.Prefix
	// Trusts reports whether a peer is a proxy whose connections carry many clients' requests.
	Trusts  func(remote string) bool
	Metrics Metrics
}

// Gate counts what is open and under way. Its methods may be called at the same time.
type Gate struct {
	deps  Deps
	heads atomic.Int64 // bytes of memory that heads of requests take

	mu        sync.Mutex
	open      int
	clients   map[netip.Prefix]int // connections, and requests by way of trusted proxies
	instances map[string]int       // requests
	idle      list.List            // of *conn, the longest idle first
	lingering int                  // refused connections that are still open
}

// New returns a Gate that has let nobody in yet.
func New(d Deps) *Gate {
	return &Gate{deps: d, clients: map[netip.Prefix]int{}, instances: map[string]int{}}
}

// Enter begins a request or a WebSocket to an instance, which leave ends. ok is false if
// there are too many at the instance.
func (g *Gate) Enter(id string) (leave func(), ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.instances[id] >= g.deps.Limits.PerInstance {
		g.deps.Metrics.ConnectionRefused(limitPerInstance)
		return nil, false
	}
	g.instances[id]++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		uncount(g.instances, id)
	}, true
}

// uncount takes one off a count.
func uncount[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] <= 0 {
		delete(counts, key)
	}
}

// Handler lets requests pass to next. One that comes by way of a trusted proxy counts for
// its client, as a connection does that comes from the client itself. refuse answers if that
// is one too many.
func (g *Gate) Handler(next, refuse http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c := connOf(r); c != nil {
			if c.beginRequest(r) {
				w.Header().Set("Connection", "close")
			}
			defer c.endRequest()
		}
		if g.deps.Trusts(r.RemoteAddr) {
			client := g.deps.Client(r.RemoteAddr, r.Header["X-Forwarded-For"])
			if !g.enterClient(client) {
				refuse.ServeHTTP(w, r)
				return
			}
			defer g.leaveClient(client)
		}
		next.ServeHTTP(w, r)
	})
}

func (g *Gate) enterClient(client netip.Prefix) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.clients[client] >= g.deps.Limits.PerClient {
		g.deps.Metrics.ConnectionRefused(limitPerClient)
		return false
	}
	g.clients[client]++
	return true
}

func (g *Gate) leaveClient(client netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	uncount(g.clients, client)
}
