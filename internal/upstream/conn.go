package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// Slack is the part of a time limit by which a deadline can be late, as a divisor: moving a
// deadline at each read and write costs more than many of them.
const Slack = 8

// longAgo is a deadline that ends every read and write under way.
func longAgo() time.Time { return time.Unix(1, 0) }

// conn is a connection to an application.
type conn struct {
	net.Conn
	address string
	// Of a connection with a request under way; nil while it is idle.
	reader *bufio.Reader
	writer *bufio.Writer
	// budget is how many more bytes may be read, and lines how many more lines. They bound
	// the head of an answer, and are counted only until unbound.
	bounded bool
	budget  int64
	lines   int
	read    int64 // bytes of the present answer that have been read
	// silence is how long the application may neither send nor take a byte; 0 is no limit.
	silence time.Duration
	// readUntil and writeUntil are the deadlines that are set, unless it was interrupted.
	readUntil, writeUntil time.Time
	silent                bool         // it was silent for too long
	starved               atomic.Bool  // it waits for the next part of a body
	opened                time.Time    // by this process, with a monotonic reading: the clock can be set
	fed                   atomic.Int64 // when it last got a part of a body, in nanoseconds since opened
	// beforeRead, if it is not nil, is called before the connection is read from:
	// what has arrived so far has been used up.
	beforeRead func()

	interrupted atomic.Bool

	since time.Time // when it became idle
}

func newConn(c net.Conn, address string, silence time.Duration) *conn {
	return &conn{Conn: c, address: address, silence: silence, opened: time.Now()}
}

// bound begins a head or a trailer: no more than the bounds of one is read from now on.
func (c *conn) bound() { c.bounded, c.budget, c.lines = true, MaxHead, maxLines }

// unbound ends the head or the trailer.
func (c *conn) unbound() { c.bounded = false }

// Read reads from the network. It fails once the application has been silent for too long.
func (c *conn) Read(p []byte) (int, error) {
	// A head has not ended with what was read so far, or nobody would read on. So all lines
	// so far are its own.
	if c.bounded && (c.budget <= 0 || c.lines <= 0) {
		return 0, errHead
	}
	if c.beforeRead != nil {
		c.beforeRead()
	}
	if c.bounded {
		p = p[:min(int64(len(p)), c.budget)]
	}
	n, err := c.awaitBytes(p)
	if c.bounded {
		c.budget -= int64(n)
		c.lines -= bytes.Count(p[:n], []byte("\n"))
	}
	c.read += int64(n)
	return n, err
}

// awaitBytes reads what the application sends. Its silence counts from when it has last got
// a part of a body: it may have to wait for that.
func (c *conn) awaitBytes(p []byte) (int, error) {
	if c.silence == 0 {
		return c.Conn.Read(p)
	}
	for began := time.Now(); !c.silent; {
		c.allowRead(began.Add(c.silence))
		n, err := c.Conn.Read(p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || c.interrupted.Load() {
			return n, err
		}
		fed := c.opened.Add(time.Duration(c.fed.Load()))
		if c.starved.Load() {
			fed = time.Now()
		}
		c.silent = !fed.After(began)
		began = fed
	}
	return 0, fmt.Errorf("%w (%s)", ErrIdle, c.silence)
}

// Part is how many bytes of a larger write a peer must take within a time limit, so that it
// gets more time for the rest.
const Part = 32 << 10

// Write writes to the application, which must take each Part in time.
func (c *conn) Write(p []byte) (written int, err error) {
	for {
		c.allowWrite()
		n, err := c.Conn.Write(p[written:])
		if written += n; n < Part || !errors.Is(err, os.ErrDeadlineExceeded) {
			return written, err
		}
	}
}

// readBody reads a part of the body that the application waits for.
func (c *conn) readBody(body io.Reader, p []byte) (int, error) {
	c.starved.Store(true)
	defer c.starved.Store(false)
	n, err := body.Read(p)
	c.fed.Store(int64(time.Since(c.opened)))
	return n, err
}

// interrupt ends what waits for the connection, now and later.
func (c *conn) interrupt() {
	c.interrupted.Store(true)
	_ = c.SetDeadline(longAgo()) // fails only once the connection is closed
}

// allowRead sets until when a read may take at least, unless the connection was
// interrupted.
func (c *conn) allowRead(until time.Time) {
	if c.readUntil.Before(until) {
		c.readUntil = until.Add(c.silence / Slack)
		_ = c.SetReadDeadline(c.readUntil)
	}
	if c.interrupted.Load() {
		_ = c.SetReadDeadline(longAgo())
	}
}

// allowWrite sets how long a write may take at least, unless the connection was
// interrupted.
func (c *conn) allowWrite() {
	if c.silence > 0 {
		if until := time.Now().Add(c.silence); c.writeUntil.Before(until) {
			c.writeUntil = until.Add(c.silence / Slack)
			_ = c.SetWriteDeadline(c.writeUntil)
		}
	}
	if c.interrupted.Load() {
		_ = c.SetWriteDeadline(longAgo())
	}
}

// isOpen reports whether an idle connection is still open and nothing has arrived
// on it: an application does not speak unless it is asked.
func (c *conn) isOpen() bool {
	wrapped, ok := c.Conn.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := wrapped.SyscallConn()
	if err != nil {
		return false
	}
	open := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		open = errors.Is(err, syscall.EAGAIN)
	})
	return err == nil && open
}

// tunnelConn is a connection that has changed to another protocol. It may be silent for as
// long as it likes.
type tunnelConn struct {
	*conn
}

// Read reads what has not been read ahead.
func (t tunnelConn) Read(p []byte) (int, error) { return t.Conn.Read(p) }

// NetConn returns the connection that reads go to.
func (t tunnelConn) NetConn() net.Conn { return t.Conn }

// CloseWrite ends the direction to the application.
func (t tunnelConn) CloseWrite() error {
	if half, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

var _ io.ReadWriteCloser = tunnelConn{}
