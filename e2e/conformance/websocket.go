package conformance

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/rawapp"
)

// Opcodes of frames (RFC 6455, section 5.2).
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa
)

// frame is one WebSocket frame, which need not be valid.
type frame struct {
	op      byte
	payload []byte
	more    bool // another fragment follows: FIN is not set
	rsv     byte // the three reserved bits, as a number from 0 to 7
}

// encode encodes a frame, masked as clients do, or not.
func (f frame) encode(masked bool) []byte {
	first := f.op | f.rsv<<4
	if !f.more {
		first |= 0x80
	}
	data := []byte{first, 0}
	switch n := len(f.payload); {
	case n < 126:
		data[1] = byte(n)
	case n < 1<<16:
		data[1] = 126
		data = binary.BigEndian.AppendUint16(data, uint16(n))
	default:
		data[1] = 127
		data = binary.BigEndian.AppendUint64(data, uint64(n))
	}
	if !masked {
		return append(data, f.payload...)
	}
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	data[1] |= 0x80
	data = append(data, mask[:]...)
	start := len(data)
	data = append(data, f.payload...)
	for i := range f.payload {
		data[start+i] ^= mask[i%4]
	}
	return data
}

// shape is a stream of frames.
type shape struct {
	name   string
	frames []frame
	// chop is how many bytes are written at once; 0 means all.
	chop int
	// extensions is what the client offers; compression is what the application
	// accepts, as in rawapp.OpWebSocket.
	extensions  string
	compression int64
	// opaque says that the frames are not for an echo server, because what it answers
	// to them is a matter of timing.
	opaque bool
}

func (s shape) encode(masked bool) []byte {
	var stream bytes.Buffer
	for _, f := range s.frames {
		stream.Write(f.encode(masked))
	}
	return stream.Bytes()
}

// WebSocketCase is a stream of frames, and what the application does with it.
type WebSocketCase struct {
	Name string
	run  func(ctx context.Context, t Target, used *Counter) error
}

// String returns the case's name, which is unique.
func (c WebSocketCase) String() string { return c.Name }

// Run runs a case. It returns nil if the proxy is right.
func (c WebSocketCase) Run(ctx context.Context, t Target, used *Counter) error {
	return c.run(ctx, t, used)
}

// WebSocketCases returns all cases, in the sections of Autobahn's test suite. Each
// stream of frames goes to an echo server, whose bytes must be the same as without a
// proxy; to an application that records it; and from an application to the client.
func WebSocketCases() (cases []WebSocketCase) {
	for _, s := range shapes() {
		if !s.opaque {
			cases = append(cases, WebSocketCase{s.name + "/echo", s.echoed})
		}
		cases = append(cases, WebSocketCase{s.name + "/to the application", s.recorded})
		if len(s.encode(false)) <= maxScripted {
			cases = append(cases, WebSocketCase{s.name + "/to the client", s.received})
		}
	}
	return cases
}

// maxScripted is how long a stream can be that a script holds.
const maxScripted = 128 << 10

const (
	wsKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	wsAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" // of wsKey (RFC 6455, section 1.3)
)

func (s shape) handshake() string {
	fields := []string{"Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + wsKey, "Origin: http://hub.example"}
	if s.extensions != "" {
		fields = append(fields, "Sec-WebSocket-Extensions: "+s.extensions)
	}
	return get("/ws", fields...)
}

func accepted(extra string) rawapp.Step {
	return rawapp.Send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + wsAccept + "\r\n\r\n" + extra)
}

// tunnel opens a WebSocket, writes a stream, and returns everything that came back
// until the connection's end.
func (s shape) tunnel(ctx context.Context, t Target, address string, send []byte, halfClose bool, app ...rawapp.Step) (o outcome, err error) {
	key := newKey()
	if err := t.Control.Put(ctx, key, app...); err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, t.Control.Delete(context.WithoutCancel(ctx), key)) }()
	conn, err := dial(ctx, address)
	if err != nil {
		return o, err
	}
	defer conn.close()
	if err := (act{write: s.handshake()}).do(ctx, t, conn, key); err != nil {
		return o, err
	}
	if err := conn.awaitText(ctx, "\r\n\r\n"); err != nil {
		return o, err
	}
	for len(send) > 0 {
		n := len(send)
		if s.chop > 0 {
			n = min(n, s.chop)
		}
		if err := conn.write(send[:n]); err != nil {
			return o, err
		}
		send = send[n:]
	}
	if halfClose {
		if err := conn.conn.CloseWrite(); err != nil {
			return o, err
		}
	}
	if err := conn.await(ctx, "the end of the WebSocket", func(_ []byte, ended ending) bool { return ended != endOpen }); err != nil {
		return o, err
	}
	got, ended := conn.state()
	answers, used := parseAnswers(got, []string{"GET"}, true)
	o = outcome{answers: answers, ended: ended, raw: got[used:]}
	o.seen, err = t.settled(ctx, key)
	return o, err
}

// echoed compares what an echo server answers.
func (s shape) echoed(ctx context.Context, t Target, used *Counter) error {
	var both [2]outcome
	for i, address := range []string{t.Direct, t.Proxy} {
		o, err := s.tunnel(ctx, t, address, s.encode(true), false, rawapp.Step{Op: rawapp.OpWebSocket, N: s.compression})
		if err != nil {
			return fmt.Errorf("at %s: %w", address, err)
		}
		both[i] = o
	}
	direct, proxied := both[0], both[1]
	if !bytes.Equal(direct.raw, proxied.raw) {
		return fmt.Errorf("directly there are %d bytes, through the proxy %d, or others\ndirectly %.200q\nproxied  %.200q", len(direct.raw), len(proxied.raw), direct.raw, proxied.raw)
	}
	direct.raw, proxied.raw = nil, nil
	c := test{mayClose: true, bodyMayBeCut: true}
	return c.compare(t, direct, proxied, used)
}

// recorded wants that an application gets every byte.
func (s shape) recorded(ctx context.Context, t Target, _ *Counter) error {
	send := s.encode(true)
	o, err := s.tunnel(ctx, t, t.Proxy, send, true, accepted(""), rawapp.Step{Op: rawapp.OpHold})
	if err != nil {
		return err
	}
	sum := sha256.Sum256(send)
	if len(o.seen) != 1 || o.seen[0].SHA256 != hex.EncodeToString(sum[:]) {
		return fmt.Errorf("the application got %d bytes, or others, want %d", o.seen[0].Size, len(send))
	}
	return nil
}

// received wants that the client gets every byte.
func (s shape) received(ctx context.Context, t Target, _ *Counter) error {
	want := s.encode(false)
	o, err := s.tunnel(ctx, t, t.Proxy, nil, false, accepted(string(want)), rawapp.Step{Op: rawapp.OpLinger})
	if err != nil {
		return err
	}
	if !bytes.Equal(o.raw, want) {
		return fmt.Errorf("the client got %d bytes, or others, want %d: %.200q", len(o.raw), len(want), o.raw)
	}
	return nil
}

// deflated compresses a message (RFC 7692, section 7.2.1).
func deflated(message []byte) []byte {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestSpeed)
	if err != nil {
		panic(err) // the level is valid
	}
	_, _ = w.Write(message) // a bytes.Buffer takes everything
	_ = w.Flush()
	return bytes.TrimSuffix(out.Bytes(), []byte{0, 0, 0xff, 0xff})
}

// text returns n bytes that compress well, but not to nothing.
func text(n int) []byte {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "line %d of a text; ", i*i)
	}
	return []byte(b.String()[:n])
}
