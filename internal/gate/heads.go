package gate

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
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
	n, err := c.TCPConn.Read(p)
	if n == 0 || c.serving.Load() {
		return n, err
	}
	cost := c.head.Add(int64(n)*costPerByte + int64(bytes.Count(p[:n], []byte("\n")))*costPerLine)
	fits := c.charge(cost)
	if c.closed.Load() || !fits {
		c.charge(0)
	}
	if !fits {
		c.refused.Store(true)
		c.gate.refuse(c.TCPConn, limitHeads)
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
// counts what is kept until endRequest.
func (c *conn) beginRequest(r *http.Request) {
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
}

func (c *conn) endRequest() {
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
