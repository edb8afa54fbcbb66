package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httputil"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// writeHead writes the request line and the header section (RFC 9112, sections 3
// and 6). Errors show when w is flushed.
func writeHead(w *bufio.Writer, req *Request) {
	for _, part := range []string{req.Method, " ", req.Target, " HTTP/1.1\r\nHost: ", req.Host, "\r\n"} {
		_, _ = w.WriteString(part)
	}
	switch {
	case req.Body != nil && req.ContentLength < 0:
		_, _ = w.WriteString("Transfer-Encoding: chunked\r\n")
		if names := slices.Sorted(maps.Keys(req.trailer())); len(names) > 0 {
			_, _ = w.WriteString("Trailer: " + strings.Join(names, ", ") + "\r\n")
		}
	case req.ContentLength >= 0:
		_, _ = w.WriteString("Content-Length: " + strconv.FormatInt(req.ContentLength, 10) + "\r\n")
	}
	_ = req.Header.Write(w) // replaces line breaks in values
	_, _ = w.WriteString("\r\n")
}

func (r *Request) trailer() http.Header {
	if r.Trailer == nil {
		return nil
	}
	return r.Trailer()
}

// lastPiece is how long an application that has answered may take to read the last piece
// of a body. It has read it already, unless it answered without it.
const lastPiece = 10 * time.Millisecond

// upload sends the body of a request, in a goroutine of its own.
type upload struct {
	body    Body
	decide  context.CancelFunc // ends the wait until the application accepts or refuses
	decided context.Context
	// accepted says that the application wants the body, or that it was not asked.
	accepted atomic.Bool
	// dropping says that what is read from the body goes nowhere.
	dropping atomic.Bool
	// read says that the body has been read to its end.
	read atomic.Bool
	done chan struct{}

	mu    sync.Mutex
	err   error // of the body
	whole bool  // everything was sent
}

// startUpload begins to send a body. It holds it back if req.Continue says so.
func startUpload(p *Pool, c *conn, req *Request) *upload {
	u := &upload{body: req.Body, done: make(chan struct{})}
	u.decided, u.decide = context.WithCancel(context.Background())
	go func() {
		defer close(u.done)
		defer u.decide()
		if req.Continue != nil && !req.Continue(u.decided) && !u.accepted.Load() {
			return
		}
		if u.dropping.Load() { // the client began to send when it was too late
			return
		}
		u.copy(c, req, &p.buffers)
	}()
	return u
}

// accept sends a held-back body.
func (u *upload) accept() {
	u.accepted.Store(true)
	u.decide()
}

// refuse ends the wait for the application: a held-back body is not sent.
func (u *upload) refuse() { u.decide() }

// copy sends the body. Once the application does not take it any more, the rest is
// read and dropped, because the application may have answered, and a client that is
// still sending must be able to end before it reads the answer (RFC 9112, section
// 9.6).
func (u *upload) copy(c *conn, req *Request, buffers *Buffers) {
	buffer := buffers.Get()
	defer func() { buffers.Put(buffer) }()
	var to io.Writer = c.writer
	var chunks io.WriteCloser
	if req.ContentLength < 0 {
		chunks = httputil.NewChunkedWriter(c.writer)
		to = chunks
	}
	for {
		n, err := c.readBody(u.body, buffer)
		if errors.Is(err, io.EOF) {
			u.read.Store(true) // before the application gets the last byte, and can answer
		}
		if n > 0 && !u.dropping.Load() {
			_, writeErr := to.Write(buffer[:n])
			if writeErr == nil {
				writeErr = c.writer.Flush()
			}
			if errors.Is(writeErr, os.ErrDeadlineExceeded) {
				c.interrupt() // there will be no answer
			}
			if writeErr != nil {
				u.dropping.Store(true)
			}
		}
		if err == nil {
			buffer = buffers.Next(buffer, n)
			continue
		}
		if !errors.Is(err, io.EOF) {
			u.fail(c, err)
			return
		}
		sent := !u.dropping.Load() && finish(c.writer, chunks, req) == nil
		u.mu.Lock()
		u.whole = sent
		u.mu.Unlock()
		return
	}
}

// finish ends a body.
func finish(w *bufio.Writer, chunks io.Closer, req *Request) error {
	if chunks == nil {
		return w.Flush()
	}
	if err := chunks.Close(); err != nil { // writes the last chunk
		return err
	}
	_ = req.trailer().Write(w)
	_, _ = w.WriteString("\r\n")
	return w.Flush()
}

// fail notes that the body could not be read, and ends the wait for an answer that
// will not come.
func (u *upload) fail(c *conn, err error) {
	u.mu.Lock()
	u.err = err
	u.mu.Unlock()
	if !u.dropping.Load() {
		c.interrupt()
	}
}

func (u *upload) bodyError() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

func (u *upload) ended() bool {
	select {
	case <-u.done:
		return true
	default:
		return false
	}
}

// stop ends the upload, and reports whether the application has got all of it.
func (u *upload) stop(c *conn) (whole bool) {
	if u.read.Load() { // what is left is to send the last piece
		select {
		case <-u.done:
		case <-time.After(lastPiece):
		}
	}
	if !u.ended() {
		u.dropping.Store(true)
		u.decide()
		c.interrupt() // ends a write
		if !u.read.Load() {
			u.body.Abandon()
		}
		<-u.done
		return false // the connection cannot be used any more
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.whole
}
