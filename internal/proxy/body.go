package proxy

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/upstream"
)

// requestBody is the body of a visitor's request on its way to the application.
type requestBody struct {
	body    io.Reader
	control *http.ResponseController
	client  *clientConn // nil if the server does not listen by Listen
	silence time.Duration
	touch   func()
	passed  func(n int) // counts what is read; nil for nothing
	// readUntil is the deadline that Read has set.
	readUntil time.Time

	abandoned atomic.Bool
}

// newRequestBody returns the body of a request, or nil if it has none. silence is how long
// the client may take for the next part of it; 0 is no limit.
func newRequestBody(r *http.Request, control *http.ResponseController, silence time.Duration, touch func()) *requestBody {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	return &requestBody{body: r.Body, control: control, client: clientConnOf(r), silence: silence, touch: touch}
}

// Read reads what has arrived. Every byte counts as use.
func (b *requestBody) Read(p []byte) (int, error) {
	if until := time.Now().Add(b.silence); b.silence > 0 && b.readUntil.Before(until) {
		b.readUntil = until.Add(b.silence / upstream.Slack)
		b.allowRead(b.readUntil)
	}
	if b.client != nil {
		b.client.inBody.Store(true)
		defer b.client.inBody.Store(false)
	}
	n, err := b.body.Read(p)
	if b.silence > 0 && errors.Is(err, io.EOF) {
		b.allowRead(time.Time{}) // the server watches for the end of the connection now
	}
	if n > 0 && !b.abandoned.Load() {
		b.touch()
		if b.passed != nil {
			b.passed(n)
		}
	}
	return n, err
}

// allowRead sets until when a read may take, unless the body was abandoned.
func (b *requestBody) allowRead(until time.Time) {
	_ = b.control.SetReadDeadline(until) // fails only once the connection is closed
	if b.abandoned.Load() {
		_ = b.control.SetReadDeadline(time.Unix(1, 0))
	}
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
