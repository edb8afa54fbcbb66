package proxy

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// requestBody is the body of a visitor's request on its way to the application.
type requestBody struct {
	body    io.Reader
	control *http.ResponseController
	client  *clientConn // nil if the server does not listen by Listen
	touch   func()

	abandoned atomic.Bool
}

// newRequestBody returns the body of a request, or nil if it has none.
func newRequestBody(r *http.Request, control *http.ResponseController, touch func()) *requestBody {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	return &requestBody{body: r.Body, control: control, client: clientConnOf(r), touch: touch}
}

// Read reads what has arrived. Every byte counts as use.
func (b *requestBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if n > 0 && !b.abandoned.Load() {
		b.touch()
	}
	return n, err
}

// Abandon ends reads: the request is answered without the rest of its body. The
// connection is closed after the answer, which must say so, and what the client still
// sends is read and dropped for a while.
func (b *requestBody) Abandon() {
	b.abandoned.Store(true)
	if b.client != nil {
		b.client.lingers.Store(true)
	}
	_ = b.control.SetReadDeadline(time.Unix(1, 0)) // fails only once the connection is closed
}
