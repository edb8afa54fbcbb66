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
	// forwardDialTimeout bounds the wait for a Service's pods.
	forwardDialTimeout = 5 * time.Second
	// forwardMost is how many connections one port has at a time; more wait.
	forwardMost = 4096
)

// forwarder takes TCP connections on a port and passes their bytes on, as long
// as either side wants: a notebook's WebSocket lives for hours.
type forwarder struct {
	owner    string // the Service whose port it is, namespace/name
	target   string
	listener net.Listener
	slots    chan struct{} // one in it for each connection
	log      *slog.Logger
	ctx      context.Context // done when it is closed
	cancel   context.CancelFunc
	running  sync.WaitGroup
}

// newForwarder listens at an address; it fails when that is taken.
func newForwarder(owner, address, target string, log *slog.Logger) (*forwarder, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", owner, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &forwarder{
		owner: owner, target: target, listener: listener, slots: make(chan struct{}, forwardMost),
		log: log, ctx: ctx, cancel: cancel,
	}
	f.running.Go(f.accept)
	return f, nil
}

// close ends it with its connections, and returns when all have ended.
func (f *forwarder) close() {
	f.cancel()
	_ = f.listener.Close() // it fails only when it is closed already
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
		case err != nil: // no file descriptors left, say
			<-f.slots
			f.log.Warn("connection not accepted", "service", f.owner, "error", err)
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
	// Again and again for a moment: kube-proxy may not know yet which pods are there.
	var server net.Conn
	err := poll(f.ctx, forwardDialTimeout, func(ctx context.Context) (err error) {
		var dialer net.Dialer
		server, err = dialer.DialContext(ctx, "tcp", f.target)
		return err
	})
	if err != nil {
		f.log.Warn("no pod behind a Service", "service", f.owner, "target", f.target, "error", err)
		return
	}
	defer server.Close()
	stop := context.AfterFunc(f.ctx, func() {
		_ = client.Close()
		_ = server.Close()
	})
	defer stop()
	var upward sync.WaitGroup
	upward.Go(func() { pipe(server, client) })
	pipe(client, server)
	upward.Wait()
}

// pipe copies what from sends and then passes its end on: the other direction
// may still have something to say. After an error neither has.
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
