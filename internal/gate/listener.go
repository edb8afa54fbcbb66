package gate

import (
	"container/list"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"
)

const (
	// refusalLinger is how long a refused client has to ask, and to read the answer: a
	// connection that is closed with unread bytes is reset, and the client can lose the answer
	// (RFC 9112, section 9.6).
	refusalLinger = time.Second
	// maxLingering is the most refused connections that linger. Others are closed at once.
	maxLingering = 256
)

// Listen returns a listener whose connections are counted. One that is too many is answered
// with 503, or 429 if its client has too many, and closed. Before that, the longest idle one
// is closed, if any is idle. The server needs ConnContext and ConnState, too.
func (g *Gate) Listen(inner net.Listener) net.Listener { return listener{inner, g} }

type listener struct {
	net.Listener
	gate *Gate
}

func (l listener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		tcp, ok := accepted.(*net.TCPConn)
		if err != nil || !ok {
			return accepted, err
		}
		if c := l.gate.admit(tcp); c != nil {
			return c, nil
		}
	}
}

// admit counts a connection. It returns nil if that is one too many, and has refused it.
func (g *Gate) admit(tcp *net.TCPConn) *conn {
	c := &conn{TCPConn: tcp, gate: g}
	if remote := tcp.RemoteAddr().String(); !g.deps.Trusts(remote) {
		c.client = g.deps.Client(remote, nil)
	}
	idle, limit := g.count(c)
	if idle != nil {
		idle.TCPConn.Close()
	}
	if limit != "" {
		g.refuse(tcp, limit, false)
		return nil
	}
	return c
}

// count counts a connection, if it may be open; otherwise it returns the limit. idle is a
// connection that is to be closed in its place.
func (g *Gate) count(c *conn) (idle *conn, limit string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.client.IsValid() && g.clients[c.client] >= g.deps.Limits.PerClient {
		if idle = g.longestIdle(c.client); idle == nil {
			return nil, limitPerClient
		}
	} else if g.open >= g.deps.Limits.All {
		if idle = g.longestIdle(netip.Prefix{}); idle == nil {
			return nil, limitAll
		}
	}
	if idle != nil {
		g.release(idle)
	}
	g.open++
	if c.client.IsValid() {
		g.clients[c.client]++
	}
	g.deps.Metrics.ConnectionsOpen(g.open)
	return idle, ""
}

// longestIdle returns the connection that has been idle for the longest, of a client or,
// if client is not valid, of all; or nil. The lock must be held.
func (g *Gate) longestIdle(client netip.Prefix) *conn {
	for e := g.idle.Front(); e != nil; e = e.Next() {
		if c := e.Value.(*conn); !client.IsValid() || c.client == client {
			return c
		}
	}
	return nil
}

// release ends the count of a connection. The lock must be held.
func (g *Gate) release(c *conn) {
	if c.released {
		return
	}
	c.released = true
	if c.place != nil {
		g.idle.Remove(c.place)
		c.place = nil
	}
	g.open--
	if c.client.IsValid() {
		uncount(g.clients, c.client)
	}
	g.deps.Metrics.ConnectionsOpen(g.open)
}

// refuse answers a connection and closes it. Few of them wait for the client's request and
// give it time to read the answer; the others are answered and closed at once.
func (g *Gate) refuse(tcp *net.TCPConn, limit string, asked bool) {
	g.deps.Metrics.ConnectionRefused(limit)
	_ = tcp.SetDeadline(time.Now().Add(refusalLinger)) // fails only once the connection is closed
	g.mu.Lock()
	lingers := g.lingering < maxLingering
	if lingers {
		g.lingering++
	}
	g.mu.Unlock()
	answer := func() {
		_, _ = tcp.Write([]byte(refusal(limit))) // the client may have gone
		_ = tcp.CloseWrite()
	}
	if asked || !lingers {
		answer()
	}
	if !lingers {
		tcp.Close()
		return
	}
	go func() {
		defer func() {
			tcp.Close()
			g.mu.Lock()
			defer g.mu.Unlock()
			g.lingering--
		}()
		if !asked { // some clients take an answer for an error that comes before their request
			if _, err := tcp.Read(make([]byte, 512)); err != nil {
				return
			}
			answer()
		}
		_, _ = io.Copy(io.Discard, struct{ io.Reader }{tcp})
	}()
}

// refusal is the whole answer to a connection or a head that a limit refuses.
func refusal(limit string) string {
	status, text := "503 Service Unavailable", "This service has too many connections at the moment. Try again later.\n"
	switch limit {
	case limitPerClient:
		status, text = "429 Too Many Requests", "Your address has too many connections at the moment. Close some pages, and try again.\n"
	case limitHeads:
		text = "This service has too many requests with large header fields at the moment. Try again later.\n"
	}
	return fmt.Sprintf("HTTP/1.1 %s\r\nConnection: close\r\nRetry-After: 5\r\nCache-Control: no-store\r\n"+
		"X-Content-Type-Options: nosniff\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s", status, len(text), text)
}

// conn is a connection that is counted until it is closed.
type conn struct {
	*net.TCPConn
	gate   *Gate
	client netip.Prefix // invalid for a trusted proxy

	head    atomic.Int64 // the cost of the head that is arriving
	charged atomic.Int64 // what of a head's cost counts in gate.heads
	lengths lengthScan
	serving atomic.Bool // a request is being handled: what arrives is no head
	closed  atomic.Bool
	refused atomic.Bool // the gate closes the connection, in a while

	// Under the gate's lock.
	released bool
	place    *list.Element // among the idle ones, or nil
}

// Close closes the connection, and ends its count.
func (c *conn) Close() error {
	c.gate.mu.Lock()
	c.gate.release(c)
	c.gate.mu.Unlock()
	c.closed.Store(true)
	c.charge(0)
	if c.refused.Load() {
		return nil
	}
	return c.TCPConn.Close()
}

type connKey struct{}

// ConnContext is the http.Server's, for a listener made by Listen.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if own := unwrap(c); own != nil {
		return context.WithValue(ctx, connKey{}, own)
	}
	return ctx
}

func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}

// unwrap returns the connection of a Gate that another was made from, or nil.
func unwrap(c net.Conn) *conn {
	for {
		if own, ok := c.(*conn); ok {
			return own
		}
		wrapper, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = wrapper.NetConn()
	}
}

// ConnState is the http.Server's, for a listener made by Listen. It notes which connections
// are idle.
func (g *Gate) ConnState(c net.Conn, state http.ConnState) {
	own := unwrap(c)
	if own == nil || state == http.StateNew {
		return
	}
	if state == http.StateIdle {
		own.awaitHead()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if own.place != nil {
		g.idle.Remove(own.place)
		own.place = nil
	}
	if state == http.StateIdle && !own.released {
		own.place = g.idle.PushBack(own)
	}
}
