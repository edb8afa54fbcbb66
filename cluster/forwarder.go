package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

const (
	// forwardDialTimeout bounds the wait for a connection to a Service.
	forwardDialTimeout = 5 * time.Second
	// maxConnections is the number of connections that one port serves at a
	// time. Further connections wait.
	maxConnections = 4096
)

// forwarder accepts TCP connections on a port and forwards them to a target. It
// sets no time limit: a notebook's WebSocket lives for hours.
type forwarder struct {
	owner    string // the Service that has the port, namespace/name
	target   string
	listener net.Listener
	slots    chan struct{} // holds one value per connection
	log      *slog.Logger
	ctx      context.Context // done when the forwarder is closed
	cancel   context.CancelFunc
	running  sync.WaitGroup
}

// newForwarder listens at an address. It fails if the address is in use.
func newForwarder(owner, address, target string, log *slog.Logger) (*forwarder, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", owner, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &forwarder{
		owner: owner, target: target, listener: listener, slots: make(chan struct{}, maxConnections),
		log: log, ctx: ctx, cancel: cancel,
	}
	f.running.Go(f.accept)
	return f, nil
}

// close closes the listener and all connections and waits for their goroutines.
func (f *forwarder) close() {
	f.cancel()
	_ = f.listener.Close() // fails only if it is already closed
	f.running.Wait()
}

func (f *forwarder) accept() {
	for {
		select {
		case f.slots <- struct{}{}:
		case <-f.ctx.Done():
			return
		}
		conn, err := f.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // for example, no file descriptors left
			<-f.slots
			f.log.Warn("cannot accept a connection", "service", f.owner, "error", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-f.ctx.Done():
			}
		default:
			f.running.Go(func() {
				defer func() { <-f.slots }()
				f.forward(conn)
			})
		}
	}
}

func (f *forwarder) forward(client net.Conn) {
	defer client.Close()
	// Retry for a while: kube-proxy may not know the Service's pods yet.
	var server net.Conn
	err := poll(f.ctx, forwardDialTimeout, func(ctx context.Context) (err error) {
		var dialer net.Dialer
		server, err = dialer.DialContext(ctx, "tcp", f.target)
		return err
	})
	if err != nil {
		f.log.Warn("cannot connect to a Service", "service", f.owner, "target", f.target, "error", err)
		return
	}
	defer server.Close()
	stop := context.AfterFunc(f.ctx, func() {
		_ = client.Close()
		_ = server.Close()
	})
	defer stop()
	var upstream sync.WaitGroup
	upstream.Go(func() { pipe(server, client) })
	pipe(client, server)
	upstream.Wait()
}

// pipe copies from one connection to the other. At the end of input it closes
// the write side only, because the other direction may still be sending. After
// an error it closes both connections.
func pipe(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		_ = to.Close()
		_ = from.Close()
		return
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
