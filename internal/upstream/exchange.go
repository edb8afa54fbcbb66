package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"
)

// Exchange is a request under way and its answer. It is for one goroutine.
type Exchange struct {
	ctx       context.Context // of the whole exchange, as of an http.Request
	pool      *Pool
	address   string
	request   *Request
	reused    bool // the connection has carried requests before
	conn      *conn
	upload    *upload // nil if the request has no body
	stopWatch func() bool
	broken    bool // the head of the request could not be written
	response  *http.Response
	whole     bool // the body of the answer has been read to its end
}

// dial sends the request over a new connection.
func (x *Exchange) dial() error {
	dialled, err := x.pool.dial(x.ctx, x.address)
	if err != nil {
		return causeOr(x.ctx, fmt.Errorf("connect to the application: %w", err))
	}
	x.reused = false
	x.send(newConn(dialled, x.address, x.pool.silence))
	return nil
}

// send sends the request over a connection. A failed write is not an error yet: the
// application may have answered before it closed the connection.
func (x *Exchange) send(c *conn) {
	x.conn = c
	x.pool.heads.lend(c)
	x.stopWatch = context.AfterFunc(x.ctx, c.interrupt)
	writeHead(c.writer, x.request)
	x.broken = c.writer.Flush() != nil
	if x.request.Body != nil {
		x.upload = startUpload(x.pool, c, x.request)
	}
}

// Answer waits for the head of the final answer. It is a BodyError if the request's
// body could not be read.
//
// A request that is safe to repeat is sent again, over a new connection, if the
// application has closed the one that it was sent over and that had carried others
// before (RFC 9112, section 9.3.1).
func (x *Exchange) Answer() (*http.Response, error) {
	err := x.readHead()
	if errors.Is(err, errNoAnswer) && x.reused && isRepeatable(x.request) && x.ctx.Err() == nil {
		x.stopWatch()
		x.conn.Close()
		if err = x.dial(); err == nil {
			err = x.readHead()
		}
	}
	if err != nil {
		return nil, x.blame(err)
	}
	return x.response, nil
}

// readHead reads up to the head of the final answer.
func (x *Exchange) readHead() error {
	x.conn.bound()
	x.conn.read = 0
	for {
		response, err := http.ReadResponse(x.conn.reader, &http.Request{Method: x.request.Method})
		if err != nil && x.conn.read == 0 && !errors.Is(err, ErrIdle) {
			return fmt.Errorf("%w: %w", errNoAnswer, err)
		}
		if err != nil {
			return fmt.Errorf("read the application's answer: %w", err)
		}
		code := response.StatusCode
		if code >= 200 || code == http.StatusSwitchingProtocols {
			x.conn.unbound()
			x.response, x.whole = response, response.Body == http.NoBody
			if !x.whole && slices.Equal(response.TransferEncoding, []string{"chunked"}) {
				response.Body = io.NopCloser(&chunkedBody{conn: x.conn, trailer: &response.Trailer})
			}
			if x.upload != nil {
				x.upload.refuse()
			}
			return nil
		}
		if code < 100 {
			// A status code is from 100 to 599 (RFC 9110, section 15). Clients treat
			// larger ones as 500, so those pass.
			return fmt.Errorf("the application's answer has the invalid status code %03d", code)
		}
		if x.request.Inform != nil {
			x.request.Inform(code, response.Header)
		}
		if code == http.StatusContinue && x.upload != nil {
			x.upload.accept()
		}
	}
}

// blame returns what an error comes from.
func (x *Exchange) blame(err error) error {
	if x.upload != nil {
		if bodyErr := x.upload.bodyError(); bodyErr != nil {
			return &BodyError{bodyErr}
		}
	}
	return causeOr(x.ctx, err)
}

// BeforeWait sets a function that Read calls whenever everything that has arrived
// of the answer has been returned and it is about to wait for more.
func (x *Exchange) BeforeWait(call func()) { x.conn.beforeRead = call }

// Read reads the body of the answer. It returns io.EOF only at its end. Its error is a
// BodyError if the request's body could not be read meanwhile.
func (x *Exchange) Read(p []byte) (int, error) {
	n, err := x.response.Body.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		x.whole = true
	case err != nil:
		err = x.blame(fmt.Errorf("read the application's answer: %w", err))
	}
	return n, err
}

// BodyLeft reports whether the request's body has not been read to its end: it is still
// on its way, was held back, or could not be read.
func (x *Exchange) BodyLeft() bool {
	return x.upload != nil && !x.upload.read.Load()
}

// Tunnel returns the connection of an application that has changed to another
// protocol (101), and what was read ahead from it. It stays the Exchange's: Close closes it.
func (x *Exchange) Tunnel() (c net.Conn, ahead []byte) {
	ahead, _ = x.conn.reader.Peek(x.conn.reader.Buffered()) // has no error
	ahead = bytes.Clone(ahead)
	x.pool.heads.takeBack(x.conn)
	_ = x.conn.SetReadDeadline(time.Time{}) // fails only once the connection is closed
	if x.ctx.Err() != nil {
		x.conn.interrupt()
	}
	return tunnelConn{x.conn}, ahead
}

// Close ends the exchange. It keeps the connection if the application can take
// another request on it, and closes it otherwise. When Close returns, the request's
// body is not read any more.
func (x *Exchange) Close() {
	if x.conn == nil {
		return
	}
	x.conn.beforeRead = nil
	sent := x.upload == nil || x.upload.stop(x.conn)
	if x.stopWatch() && sent && x.isReusable() {
		x.pool.heads.takeBack(x.conn)
		x.pool.idle.put(x.conn)
		return
	}
	x.conn.Close()
}

// isReusable reports whether the connection is where another answer can begin.
func (x *Exchange) isReusable() bool {
	return x.response != nil && x.whole && !x.broken && !x.response.Close &&
		x.response.StatusCode != http.StatusSwitchingProtocols && x.conn.reader.Buffered() == 0
}
