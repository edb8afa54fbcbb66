package upstream

import (
	"bufio"
	"errors"
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	maxIdle       = 4096             // idle connections
	maxIdlePerPod = 16               // idle connections to one application
	idleTimeout   = 90 * time.Second // how long a connection is kept
	// freshFor is how long a connection can have been idle and still carry a request
	// that must not be sent twice: an application closes idle connections when it
	// likes, and then nobody can tell whether it has seen the request.
	freshFor = time.Second
)

var (
	// errNoAnswer is wrapped by the error of a connection that ended before the first
	// byte of an answer.
	errNoAnswer = errors.New("the application closed the connection without an answer")
	errHeadSize = errors.New("the head of the application's answer is larger than 1 MiB")
)

// longAgo is a deadline that ends every read and write under way.
func longAgo() time.Time { return time.Unix(1, 0) }

// conn is a connection to an application.
type conn struct {
	net.Conn
	address string
	reader  *bufio.Reader
	writer  *bufio.Writer
	// budget is how many more bytes may be read; it bounds the head of an answer.
	budget int64
	read   int64 // bytes of the present answer that have been read
	// beforeRead, if it is not nil, is called before the connection is read from:
	// what has arrived so far has been used up.
	beforeRead func()

	interrupted atomic.Bool

	// Of an idle connection.
	since   time.Time
	expires *time.Timer
}

func newConn(c net.Conn, address string) *conn {
	own := &conn{Conn: c, address: address, budget: math.MaxInt64}
	own.reader, own.writer = bufio.NewReader(own), bufio.NewWriter(c)
	return own
}

// Read reads from the network.
func (c *conn) Read(p []byte) (int, error) {
	if c.budget <= 0 {
		return 0, errHeadSize
	}
	if c.beforeRead != nil {
		c.beforeRead()
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.budget)])
	c.budget -= int64(n)
	c.read += int64(n)
	return n, err
}

// interrupt ends what waits for the connection, now and later.
func (c *conn) interrupt() {
	c.interrupted.Store(true)
	_ = c.SetDeadline(longAgo()) // fails only once the connection is closed
}

// allowWrite sets how long a write may take, unless the connection was interrupted.
func (c *conn) allowWrite(limit time.Duration) {
	_ = c.SetWriteDeadline(time.Now().Add(limit))
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
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		open = errors.Is(err, syscall.EAGAIN)
		return true // do not wait
	})
	return err == nil && open
}

// idleConns are the connections that carry no request.
type idleConns struct {
	mu    sync.Mutex
	byPod map[string][]*conn // the longest idle first
	count int
}

// take returns an open connection to an application, or nil. The one that was used
// last is taken first. If the request must not be sent twice, only a connection
// that was just used will do.
func (i *idleConns) take(address string, now time.Time, repeatable bool) *conn {
	for {
		c := i.pop(address, now, repeatable)
		if c == nil || c.isOpen() {
			return c
		}
		c.Close()
	}
}

func (i *idleConns) pop(address string, now time.Time, repeatable bool) *conn {
	i.mu.Lock()
	defer i.mu.Unlock()
	conns := i.byPod[address]
	if len(conns) == 0 {
		return nil
	}
	c := conns[len(conns)-1]
	if !repeatable && now.Sub(c.since) > freshFor {
		return nil
	}
	i.set(address, conns[:len(conns)-1])
	c.expires.Stop()
	return c
}

// put keeps a connection for later requests, or closes it if there are enough.
func (i *idleConns) put(c *conn, now time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	conns := i.byPod[c.address]
	if len(conns) >= maxIdlePerPod {
		c.Close()
		return
	}
	if i.count >= maxIdle {
		i.evict()
		conns = i.byPod[c.address]
	}
	c.since = now
	c.expires = time.AfterFunc(idleTimeout, func() { i.expire(c) })
	i.set(c.address, append(conns, c))
}

// evict closes any idle connection, so that no pod can keep others from having some.
func (i *idleConns) evict() {
	for address, conns := range i.byPod {
		conns[0].expires.Stop()
		conns[0].Close()
		i.set(address, conns[1:])
		return
	}
}

// expire closes a connection if it is still idle.
func (i *idleConns) expire(c *conn) {
	i.mu.Lock()
	defer i.mu.Unlock()
	conns := i.byPod[c.address]
	for n, kept := range conns {
		if kept == c {
			i.set(c.address, append(conns[:n:n], conns[n+1:]...))
			c.Close()
			return
		}
	}
}

// set replaces the idle connections of an application.
func (i *idleConns) set(address string, conns []*conn) {
	i.count += len(conns) - len(i.byPod[address])
	if len(conns) == 0 {
		delete(i.byPod, address)
		return
	}
	if i.byPod == nil {
		i.byPod = map[string][]*conn{}
	}
	i.byPod[address] = conns
}

// tunnelConn is a connection that has changed to another protocol, with what has
// been read ahead of it.
type tunnelConn struct {
	*conn
}

// Read reads first what has been read ahead.
func (t tunnelConn) Read(p []byte) (int, error) { return t.reader.Read(p) }

// CloseWrite ends the direction to the application.
func (t tunnelConn) CloseWrite() error {
	if half, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

var _ io.ReadWriteCloser = tunnelConn{}
