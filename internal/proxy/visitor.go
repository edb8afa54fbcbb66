package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/upstream"
)

const (
	// statusClientGone counts a request whose client has gone before its answer. It is
	// nginx's code, and is never sent.
	statusClientGone = 499
	// halfClosedPatience is how long the application may send nothing while the client
	// has closed its sending side. Nothing tells such a client from one that has gone,
	// until something is sent to it: a closed tab looks the same.
	halfClosedPatience = 30 * time.Second
	// lingerFor and lingerPause bound how long the rest of a request is read and dropped
	// after its answer: in all, and between two pieces.
	lingerFor   = 30 * time.Second
	lingerPause = 5 * time.Second
)

var errClientGone = errors.New("the client has gone")

// Listen returns a listener whose connections remember whether the client has only
// closed its sending side. A client may do so after a whole request and still read
// the answer (RFC 9112, section 9.6); net/http calls it gone. The server needs
// ConnContext, too.
//
// A client must take what is written to it within idle; 0 is no limit. One that has
// vanished is noticed within that time.
func Listen(inner net.Listener, idle time.Duration) net.Listener { return listener{inner, idle} }

type listener struct {
	net.Listener
	idle time.Duration
}

func (l listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	tcp, ok := accepted.(tcpConn)
	if err != nil || !ok {
		return accepted, err
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		tuneSocket(raw, l.idle)
	}
	return &clientConn{tcpConn: tcp, idle: l.idle}, nil
}

// tcpConn is what a clientConn needs of a *net.TCPConn.
type tcpConn interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
	SetLinger(seconds int) error
}

// ConnContext is the http.Server's, for a listener made by Listen.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if client, ok := c.(*clientConn); ok {
		return context.WithValue(ctx, clientConnKey{}, client)
	}
	return ctx
}

type clientConnKey struct{}

// clientConnOf returns the connection that a request came over, or nil if the server
// does not listen by Listen.
func clientConnOf(r *http.Request) *clientConn {
	c, _ := r.Context().Value(clientConnKey{}).(*clientConn)
	return c
}

// clientConn is a client's connection.
type clientConn struct {
	tcpConn
	idle       time.Duration // how long a write may take; 0 is no limit
	inBody     atomic.Bool   // what is read is the body of a request
	late       atomic.Bool   // the body did not come in time
	halfClosed atomic.Bool   // the client has closed its sending side
	lingers    atomic.Bool   // Close lets the client end its request
	torn       atomic.Bool   // Close resets the connection
	head       headEnd       // used by one goroutine at a time
	// writeUntil is the deadline that Write has set; nil before the first. It is no number of
	// nanoseconds since 1970: a clock that was set would make it look like a later one.
	writeUntil atomic.Pointer[time.Time]
}

// Read reads from the network.
func (c *clientConn) Read(p []byte) (int, error) {
	n, err := c.tcpConn.Read(p)
	if errors.Is(err, io.EOF) {
		c.halfClosed.Store(true)
	}
	if err != nil && c.inBody.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
		c.late.Store(true)
	}
	c.head.scan(p[:n])
	return n, err
}

// Write writes to the client. It fails if the client does not take each part of p in time.
func (c *clientConn) Write(p []byte) (written int, err error) {
	for {
		c.allowWrite()
		n, err := c.tcpConn.Write(p[written:])
		if written += n; n < upstream.Part || !errors.Is(err, os.ErrDeadlineExceeded) {
			return written, err
		}
	}
}

// allowWrite sets how long a write may take at least.
func (c *clientConn) allowWrite() {
	if c.idle == 0 {
		return
	}
	if until, set := time.Now().Add(c.idle), c.writeUntil.Load(); set == nil || set.Before(until) {
		late := until.Add(c.idle / upstream.Slack)
		c.writeUntil.Store(&late)
		_ = c.tcpConn.SetWriteDeadline(late) // fails only once the connection is closed
	}
}

// SetDeadline sets the deadline of reads and writes. The next write moves it.
func (c *clientConn) SetDeadline(t time.Time) error {
	c.writeUntil.Store(nil)
	return c.tcpConn.SetDeadline(t)
}

// SetWriteDeadline sets the deadline of writes. The next write moves it.
func (c *clientConn) SetWriteDeadline(t time.Time) error {
	c.writeUntil.Store(nil)
	return c.tcpConn.SetWriteDeadline(t)
}

// NetConn returns the connection that c was made from, as that of crypto/tls does.
func (c *clientConn) NetConn() net.Conn { return c.tcpConn }

// headEnd notes whether what was read last ends with the head of a request. A server
// reads no further than that before the request is handled.
type headEnd struct {
	tail  [3]byte // the end of the read before
	exact bool    // the last read had an empty line, and nothing after it
}

func (h *headEnd) scan(p []byte) {
	if len(p) == 0 {
		return
	}
	const emptyLine = "\r\n\r\n"
	joined := append(h.tail[:], p[:min(len(p), len(h.tail))]...) // it may be split
	after := -1                                                  // how much follows the first empty line
	if at := bytes.Index(joined, []byte(emptyLine)); at >= 0 {
		after = len(h.tail) + len(p) - at - len(emptyLine)
	} else if at := bytes.Index(p, []byte(emptyLine)); at >= 0 {
		after = len(p) - at - len(emptyLine)
	}
	h.exact = after == 0
	copy(h.tail[:], joined[min(len(p), len(h.tail)):])
	if len(p) > len(h.tail) {
		copy(h.tail[:], p[len(p)-len(h.tail):])
	}
}

// Close closes the connection. While a client is still sending, only the sending side
// is closed at first: a connection that is closed with unread bytes is reset, and the
// client can lose the answer (RFC 9112, section 9.6).
func (c *clientConn) Close() error {
	if !c.lingers.Swap(false) || c.torn.Load() {
		return c.tcpConn.Close()
	}
	if err := c.CloseWrite(); err != nil {
		return errors.Join(err, c.tcpConn.Close())
	}
	go c.linger()
	return nil
}

// tear makes Close reset the connection, where its mere end would end an answer.
func (c *clientConn) tear() {
	c.torn.Store(true)
	_ = c.SetLinger(0) // fails only once the connection is closed
}

// linger reads and drops what the client sends, for as long as lingerFor and
// lingerPause allow, and closes the connection.
func (c *clientConn) linger() {
	defer c.tcpConn.Close()
	var dropped [8 << 10]byte
	for end := time.Now().Add(lingerFor); ; {
		until := time.Now().Add(lingerPause)
		if end.Before(until) {
			until = end
		}
		if err := c.SetReadDeadline(until); err != nil {
			return
		}
		if _, err := c.tcpConn.Read(dropped[:]); err != nil {
			return
		}
	}
}

// awaitBody waits until the client begins to send its body, although nobody has said
// 100 (Continue): it need not wait (RFC 9110, section 10.1.1). It reads nothing, and
// returns false if ctx is done first. Nothing else may read meanwhile.
func (c *clientConn) awaitBody(ctx context.Context) bool {
	if !c.head.exact {
		return true // the body came with the head
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = c.SetReadDeadline(time.Unix(1, 0))
	})
	began := false
	_ = raw.Read(func(fd uintptr) bool { // fails only once ctx is done
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		began = !errors.Is(err, syscall.EAGAIN)
		return began
	})
	if !stop() {
		<-interrupted
		_ = c.SetReadDeadline(time.Time{}) // the body may be read yet
	}
	return began
}

// visitor watches the client of a request.
type visitor struct {
	// ctx is done when the client has gone, or patience has run out. It is not the
	// request's own context, because that one is done when the client closes its
	// sending side.
	ctx      context.Context
	cancel   context.CancelCauseFunc
	stop     func() bool
	patience time.Duration              // see halfClosedPatience
	timer    atomic.Pointer[time.Timer] // nil unless the client is half-closed
}

func watchVisitor(r *http.Request, patience time.Duration) *visitor {
	v := &visitor{patience: patience}
	v.ctx, v.cancel = context.WithCancelCause(context.WithoutCancel(r.Context()))
	v.stop = context.AfterFunc(r.Context(), func() {
		c := clientConnOf(r)
		if c != nil && c.late.Load() {
			return // it is still there, and the reader of the body has the error
		}
		if c == nil || !c.halfClosed.Load() {
			v.cancel(errClientGone)
			return
		}
		timer := time.AfterFunc(patience, func() { v.cancel(errClientGone) })
		v.timer.Store(timer)
		if v.ctx.Err() != nil { // released meanwhile
			timer.Stop()
		}
	})
	return v
}

// answered starts patience again: the client has taken a part of the answer.
func (v *visitor) answered() {
	if timer := v.timer.Load(); timer != nil {
		timer.Reset(v.patience)
	}
}

// settle ends the watch, and leaves ctx as it is.
func (v *visitor) settle() {
	v.stop()
	if timer := v.timer.Load(); timer != nil {
		timer.Stop()
	}
}

// release ends the watch and everything that depends on it.
func (v *visitor) release() {
	v.cancel(nil)
	v.settle()
}

// isReset reports whether an error says that a client has torn its connection down.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}
