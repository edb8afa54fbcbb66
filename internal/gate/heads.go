package gate

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
)

// The memory that the head of a request takes, measured with net/http: each byte takes about
// four while it is read, and each line about 100 more, however short it is. Once it was
// read, each byte takes one.
const (
	costPerByte = 4
	costPerLine = 100
	// freeHead is the cost of a head that does not count: one of about 6 KiB with 40 fields.
	freeHead = 32 << 10
	// maxCookies is the most bytes of cookies that a request keeps, and maxCookieFields the
	// most fields that they are in. It is more than any application gets.
	maxCookies      = 32 << 10
	maxCookieFields = 64
)

// Read reads from the network. It fails if the heads of all requests together would take
// too much memory.
func (c *conn) Read(p []byte) (int, error) {
	if c.refused.Load() {
		return 0, io.EOF
	}
	n, err := c.TCPConn.Read(p)
	serving := c.serving.Load()
	if !serving || len(p) <= serverBuffer { // otherwise all of it is of a body
		c.lengths.scan(p[:n])
	}
	if n == 0 || serving {
		return n, err
	}
	cost := c.head.Add(int64(n)*costPerByte + int64(bytes.Count(p[:n], []byte("\n")))*costPerLine)
	fits := c.charge(cost)
	if c.closed.Load() || !fits {
		c.charge(0)
	}
	if !fits {
		c.refused.Store(true)
		c.gate.refuse(c.TCPConn, limitHeads, true)
		return 0, io.EOF // nothing is to be answered any more
	}
	return n, err
}

// charge counts the cost of the connection's head. It returns false if that is too much.
func (c *conn) charge(cost int64) bool {
	count := max(0, cost-freeHead)
	more := count - c.charged.Swap(count)
	return c.gate.heads.Add(more) <= c.gate.deps.Limits.Heads || more <= 0
}

// beginRequest is called when a head has been read. It drops cookies beyond maxCookies, and
// counts what is kept until endRequest. It returns true if the connection must be closed
// after the answer: the request is in chunks and may have a length as well, which net/http
// does not tell. A proxy in front may have gone by the length, and then what follows is no
// request (RFC 9112, section 6.1).
func (c *conn) beginRequest(r *http.Request) (last bool) {
	c.serving.Store(true)
	c.head.Store(0)
	dropCookies(r.Header)
	cost := int64(len(r.RequestURI))
	for name, values := range r.Header {
		for _, value := range values {
			cost += int64(len(name)+len(value)) + costPerLine
		}
	}
	c.charge(cost)
	return len(r.TransferEncoding) > 0 && c.lengths.seen.Load()
}

// serverBuffer is the size of the buffer that net/http reads heads into. What follows a
// body can be read into it together with the end of the body.
const serverBuffer = 4 << 10

// lengthScan notes whether any line that was read from a connection begins with
// "Content-Length". It can be a line of a body, which does no harm.
type lengthScan struct {
	begin [len("Content-Length")]byte // of the line
	have  int                         // bytes of it so far
	seen  atomic.Bool
}

func (s *lengthScan) scan(p []byte) {
	for len(p) > 0 && !s.seen.Load() {
		line, rest, ended := bytes.Cut(p, []byte("\n"))
		s.have += copy(s.begin[s.have:], line)
		if s.have == len(s.begin) && bytes.EqualFold(s.begin[:], []byte("Content-Length")) {
			s.seen.Store(true)
		}
		if ended {
			s.have = 0
		}
		p = rest
	}
}

// endRequest is called when a request has been handled. The rest of its body may still
// come: only the idle connection reads heads again.
func (c *conn) endRequest() { c.charge(0) }

// awaitHead is called when the connection is idle.
func (c *conn) awaitHead() {
	c.head.Store(0)
	c.charge(0)
	c.serving.Store(false)
}

// dropCookies drops the cookies of a request beyond maxCookies.
func dropCookies(h http.Header) {
	lines := h["Cookie"]
	room := maxCookies
	for i, line := range lines {
		if room -= len(line); room >= 0 && i < maxCookieFields {
			continue
		}
		kept := slices.Clone(lines[:i]) // so that the memory of the others is free
		if fits := len(line) + room; i < maxCookieFields && fits > 0 {
			last := strings.LastIndexByte(line[:fits+1], ';')
			kept = append(kept, strings.Clone(line[:max(0, last)]))
		}
		if h["Cookie"] = kept; len(kept) == 0 {
			delete(h, "Cookie")
		}
		return
	}
}
