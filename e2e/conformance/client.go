package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// patience bounds each wait for something that should happen at once. While bytes
// arrive, it begins again.
const patience = 10 * time.Second

// ending says how a connection ended for the client.
type ending string

const (
	endOpen  ending = "open"
	endFIN   ending = "closed"
	endReset ending = "reset"
)

// client is one connection, whose bytes are kept as they come.
type client struct {
	conn *net.TCPConn

	mu      sync.Mutex
	got     []byte
	ended   ending
	changed chan struct{} // closed and replaced when got or ended changes
}

func dial(ctx context.Context, address string) (*client, error) {
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn.(*net.TCPConn), ended: endOpen, changed: make(chan struct{})}
	go c.read()
	return c, nil
}

func (c *client) read() {
	buffer := make([]byte, 64<<10)
	for {
		n, err := c.conn.Read(buffer)
		c.mu.Lock()
		c.got = append(c.got, buffer[:n]...)
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			c.ended = endFIN
		default:
			c.ended = endReset
		}
		close(c.changed)
		c.changed = make(chan struct{})
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// await waits until enough accepts what has arrived.
func (c *client) await(ctx context.Context, what string, enough func(got []byte, ended ending) bool) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		c.mu.Lock()
		got, ended, changed := c.got, c.ended, c.changed
		c.mu.Unlock()
		switch {
		case enough(got, ended):
			return nil
		case ended != endOpen:
			return fmt.Errorf("waiting for %s: the connection is %s after %d bytes: %.300q", what, ended, len(got), got)
		}
		select {
		case <-changed:
			timer.Reset(patience)
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return fmt.Errorf("waiting for %s: nothing for %s; there are %d bytes: %.300q", what, patience, len(got), got)
		}
	}
}

func (c *client) awaitText(ctx context.Context, text string) error {
	return c.await(ctx, fmt.Sprintf("%.60q", text), func(got []byte, _ ending) bool { return bytes.Contains(got, []byte(text)) })
}

// state returns what has arrived so far.
func (c *client) state() ([]byte, ending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got, c.ended
}

// write sends data. The peer may have stopped to read: that is not an error here,
// because its answer matters.
func (c *client) write(data []byte) error {
	_ = c.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err := c.conn.Write(data)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("nobody read %d bytes within %s", len(data), patience)
	}
	return err
}

func (c *client) close() { _ = c.conn.Close() }
