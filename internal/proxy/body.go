package proxy

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	// lingerFor and lingerPause bound how long the rest of a request is read and dropped
	// after its answer: in all, and between two pieces. A client that sends more than
	// its connection's buffers hold would otherwise lose the answer, because closing a
	// connection with unread bytes resets it (RFC 9112, section 9.6).
	lingerFor   = 30 * time.Second
	lingerPause = 5 * time.Second
)

// requestBody is the body of a visitor's request on its way to the application.
type requestBody struct {
	body    io.Reader
	control *http.ResponseController
	touch   func()
	// until is when reads must end, in Unix nanoseconds; 0 while the body is needed.
	until atomic.Int64
}

// newRequestBody returns the body of a request, or nil if it has none.
func newRequestBody(r *http.Request, control *http.ResponseController, touch func()) *requestBody {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	return &requestBody{body: r.Body, control: control, touch: touch}
}

// Read reads what has arrived. Every byte counts as use, until the body is abandoned.
func (b *requestBody) Read(p []byte) (int, error) {
	if until := b.until.Load(); until != 0 {
		b.extend(time.Unix(0, until))
	}
	n, err := b.body.Read(p)
	if n > 0 && b.until.Load() == 0 {
		b.touch()
	}
	return n, err
}

// extend lets a read wait for one more piece.
func (b *requestBody) extend(until time.Time) {
	next := time.Now().Add(lingerPause)
	if until.Before(next) {
		next = until
	}
	_ = b.control.SetReadDeadline(next) // fails only once the connection is closed
}

// Abandon lets the rest of the body arrive for a while.
func (b *requestBody) Abandon() { b.end(time.Now().Add(lingerFor)) }

// end makes all reads end by a time. A second call changes nothing.
func (b *requestBody) end(until time.Time) {
	if b.until.CompareAndSwap(0, until.UnixNano()) {
		b.extend(until)
	}
}

// linger reads the rest of the body, as Abandon allows, after an answer that did not
// need it. A client that waits for 100 (Continue) sends none.
func (b *requestBody) linger(r *http.Request) {
	if b == nil || hasToken(r.Header["Expect"], "100-continue") {
		return
	}
	_ = b.control.Flush() // a client that has gone shows while its request is read
	b.Abandon()
	_, _ = io.Copy(io.Discard, b)
}
