// Package rawapp is an application that answers with exactly the bytes that a test
// wants, and that keeps the exact bytes of the requests that it gets.
//
// A test puts a [Script] under a key. Every request whose target has a path segment
// "raw" followed by that key is then answered by the script. The application uses no
// HTTP server, so its answers may break every rule. It runs in the test's process or,
// as "echo raw", in a pod. A [Client] controls it in both.
package rawapp

import (
	"errors"
	"fmt"
	"time"
)

// Limits of what a client may ask for.
const (
	maxScript   = 256 << 10 // bytes of a script's JSON
	maxSteps    = 100
	maxSend     = 1 << 30 // bytes that one step sends
	maxPause    = time.Minute
	maxKeys     = 256 // scripts at the same time; the oldest is dropped
	maxRequests = 16  // recorded requests of one key
	maxKept     = 64 << 10
	maxHead     = 1 << 20
	maxMessage  = 33 << 20 // bytes of a WebSocket message
	idleTimeout = time.Minute
)

// Op names what a step does.
type Op string

const (
	// OpSend sends Data, N times (0 means once).
	OpSend Op = "send"
	// OpRead reads N bytes of the request's body as they are on the wire. With
	// N = 0 it reads the whole body.
	OpRead Op = "read"
	// OpWait waits until the gate Gate has been opened.
	OpWait Op = "wait"
	// OpPause waits for N milliseconds.
	OpPause Op = "pause"
	// OpEcho reads the body and answers 200 with the request's bytes, head and body.
	OpEcho Op = "echo"
	// OpWebSocket answers the handshake and echoes messages. N says which
	// compression is offered: 0 none, 1 with context takeover, 2 without.
	OpWebSocket Op = "websocket"
	// OpClose closes the connection. If unread bytes have arrived, the kernel sends
	// a reset, as it does for most servers that refuse an upload.
	OpClose Op = "close"
	// OpLinger closes the sending side, and reads until the peer closes too
	// (RFC 9112, section 9.6).
	OpLinger Op = "linger"
	// OpReset closes the connection with a reset.
	OpReset Op = "reset"
	// OpHold reads, and sends nothing, until the peer closes.
	OpHold Op = "hold"
)

// Step is one thing that the application does with a connection.
type Step struct {
	Op   Op     `json:"op"`
	Data []byte `json:"data,omitempty"`
	N    int64  `json:"n,omitempty"`
	Gate string `json:"gate,omitempty"`
}

// Script is what the application does once the head of a request has arrived. After
// the last step it reads the rest of the body and then the connection's next request.
type Script struct {
	Steps []Step `json:"steps"`
}

func (s Script) check() error {
	if len(s.Steps) > maxSteps {
		return fmt.Errorf("%d steps are more than %d", len(s.Steps), maxSteps)
	}
	for i, step := range s.Steps {
		if err := step.check(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

func (s Step) check() error {
	switch {
	case s.N < 0:
		return errors.New("n is negative")
	case s.Op == OpSend && s.N*int64(len(s.Data)) > maxSend, s.Op == OpSend && s.N > maxSend:
		return fmt.Errorf("it sends more than %d bytes", maxSend)
	case s.Op == OpPause && s.N > maxPause.Milliseconds():
		return fmt.Errorf("it pauses for longer than %s", maxPause)
	case s.Op == OpWait && s.Gate == "":
		return errors.New("it names no gate")
	case s.Op == OpWebSocket && s.N > 2:
		return errors.New("n is not a kind of compression")
	}
	switch s.Op {
	case OpSend, OpRead, OpWait, OpPause, OpEcho, OpWebSocket, OpClose, OpLinger, OpReset, OpHold:
		return nil
	}
	return fmt.Errorf("there is no operation %q", s.Op)
}

// Record is one request as it arrived.
type Record struct {
	Head []byte `json:"head"` // from the request line to the empty line
	// Body is the body as it was on the wire, with its chunks and trailers. It is cut
	// after 64 KiB.
	Body []byte `json:"body"`
	// Size and SHA256 are those of the body's content, without chunks and trailers. For
	// a connection that was held they are those of all bytes after the head.
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	// Whole says that the body has arrived to its end.
	Whole bool `json:"whole"`
	// Done says that the application has finished with the request.
	Done bool `json:"done"`
}

// Send is a step that sends text.
func Send(text string) Step { return Step{Op: OpSend, Data: []byte(text)} }

// Read is a step that reads the whole body.
func Read() Step { return Step{Op: OpRead} }

// Wait is a step that waits for a gate.
func Wait(gate string) Step { return Step{Op: OpWait, Gate: gate} }
