// Package upstream speaks HTTP/1.1 with the applications in pods. It sends one
// request and returns the application's answer while the request's body is still on
// its way.
//
// net/http's Transport is not used, because it gives up an answer in three cases in
// which a proxy must deliver it: the application answers and closes while the body
// is being sent (RFC 9112, section 9.5), it refuses an expectation (RFC 9110,
// section 10.1.1), or the caller must know that no read of the body is under way any
// more. Parsing and framing are net/http's.
//
// It must never know what a visitor is, what an instance is, or which header fields
// pass: package proxy decides that.
package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	// MaxHead is the most bytes that the head of an answer may have, together with the
	// interim answers before it. A trailer may have as many. Envoy's bound is 60 KiB, and
	// nginx's 4 or 8 KiB.
	MaxHead = 64 << 10
	// maxLines is the most lines of a head, together with the interim answers before it, and
	// of a trailer. Each takes about 100 bytes of memory, however short it is. An interim
	// answer has two at least, so there are at most 500.
	maxLines = 1000
)

var (
	// ErrIdle is wrapped by the error of an application that has neither sent nor taken a
	// byte for as long as it may.
	ErrIdle = errors.New("the application was silent for too long")
	errHead = errors.New("the head of the application's answer is larger than 64 KiB, or has more than 1000 lines")
	// errNoAnswer is wrapped by the error of a connection that ended before the first
	// byte of an answer.
	errNoAnswer = errors.New("the application closed the connection without an answer")
)

// Request is a request for an application.
type Request struct {
	Method string
	// Target is the request target, byte for byte: a path, and a query with its
	// question mark (RFC 9112, section 3.2.1).
	Target string
	Host   string
	// Header has the fields to send, but Host, Content-Length, Transfer-Encoding and
	// Trailer: those follow from the other fields of Request.
	Header http.Header
	// Body is nil if the request has none.
	Body Body
	// ContentLength is the length of the body in bytes; -1 sends it in chunks. For a
	// request without a body, 0 sends "Content-Length: 0", and -1 sends no length.
	ContentLength int64
	// Trailer returns the trailer fields of a body that is sent in chunks: their
	// names at the start, and their values once Body has returned io.EOF.
	Trailer func() http.Header
	// Continue, if it is not nil, holds the body back: it is sent once Continue
	// returns true, or the application has said 100 (Continue). Continue must return
	// false soon after its context is done, which is when the application has said
	// anything.
	Continue func(ctx context.Context) bool
	// Inform is told each interim answer (1xx) but 101. It may be nil.
	Inform func(code int, header http.Header)
}

// Body is the body of a Request.
type Body interface {
	io.Reader
	// Abandon is called when the rest of the body is no longer needed. Reads must
	// end soon after that. What they return is dropped.
	Abandon()
}

// BodyError is an error of Request.Body, as opposed to one of the application.
type BodyError struct{ Err error }

func (e *BodyError) Error() string { return "read the request's body: " + e.Err.Error() }

// Unwrap returns the error of the body.
func (e *BodyError) Unwrap() error { return e.Err }

// Pool sends requests over connections that it keeps for later ones.
type Pool struct {
	// dial opens a connection to an application.
	dial    func(ctx context.Context, address string) (net.Conn, error)
	silence time.Duration // how long an application may neither send nor take a byte
	idle    idleConns
	heads   headBuffers
	buffers Buffers
}

// NewPool returns a Pool without connections. dial must have a time limit. silence is how
// long an application may neither send nor take a byte while a request is under way. A
// connection that has changed to another protocol may be silent for longer, but what is
// written to it must be taken within that time.
func NewPool(dial func(ctx context.Context, address string) (net.Conn, error), now func() time.Time, silence time.Duration) *Pool {
	return &Pool{dial: dial, silence: silence, idle: idleConns{now: now}}
}

// Start sends a request to the application that listens at address. The caller must
// Close the Exchange. When ctx is done, everything that waits for the application
// ends with its cause.
func (p *Pool) Start(ctx context.Context, address string, req *Request) (*Exchange, error) {
	x := &Exchange{ctx: ctx, pool: p, address: address, request: req}
	if strings.ContainsAny(req.Method+req.Target+req.Host, "\r\n") {
		return nil, errors.New("the request line or the Host has a line break")
	}
	if c := p.idle.take(address, isRepeatable(req)); c != nil {
		x.reused = true
		x.send(c)
		return x, nil
	}
	return x, x.dial()
}

// isRepeatable reports whether a request can be sent twice without harm: it has no
// body, and its method is safe (RFC 9110, section 9.2.1).
func isRepeatable(req *Request) bool {
	if req.Body != nil {
		return false
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// causeOr returns why ctx is done, or err if it is not.
func causeOr(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
