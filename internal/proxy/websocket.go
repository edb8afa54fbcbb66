package proxy

import (
	"errors"
	"io"
	"net/http"
	"strings"
)

// The frame opcodes that carry an application's data (RFC 6455, section 5.2):
// continuation, text and binary. Close, ping and pong have the others.
const (
	lastDataOpcode = 0x2
	opcodeMask     = 0x0f
	maskBit        = 0x80
	lengthMask     = 0x7f
)

// FrameScanner follows one direction of a WebSocket connection and tells data
// frames from control frames. It reads headers and skips payloads, keeps no
// data, and takes a stream cut anywhere.
type FrameScanner struct {
	header [14]byte // of the frame being read: at most 2 + 8 + 4 bytes
	have   int      // bytes of it so far
	skip   uint64   // payload bytes still to come
	data   bool     // the payload being skipped is data
}

// Scan reports whether p holds any byte of a data frame.
func (s *FrameScanner) Scan(p []byte) bool {
	found := false
	for len(p) > 0 {
		if s.skip > 0 {
			n := min(s.skip, uint64(len(p)))
			s.skip -= n
			p = p[n:]
			found = found || s.data
			continue
		}
		s.header[s.have] = p[0]
		s.have++
		p = p[1:]
		if s.have < s.headerLength() {
			continue
		}
		s.data = s.header[0]&opcodeMask <= lastDataOpcode
		s.skip = s.payloadLength()
		s.have = 0
		found = found || s.data
	}
	return found
}

// headerLength is how long the header is, as far as its first bytes tell.
func (s *FrameScanner) headerLength() int {
	if s.have < 2 {
		return 2
	}
	length := 2
	switch s.header[1] & lengthMask {
	case 126:
		length += 2
	case 127:
		length += 8
	}
	if s.header[1]&maskBit != 0 {
		length += 4
	}
	return length
}

func (s *FrameScanner) payloadLength() uint64 {
	short := s.header[1] & lengthMask
	var extended []byte
	switch short {
	case 126:
		extended = s.header[2:4]
	case 127:
		extended = s.header[2:10]
	default:
		return uint64(short)
	}
	length := uint64(0)
	for _, b := range extended {
		length = length<<8 | uint64(b)
	}
	return length
}

func IsWebSocket(h http.Header) bool { return strings.EqualFold(h.Get("Upgrade"), "websocket") }

// webSocketTunnel is the pod's side of a WebSocket connection: what is read
// from it goes to the browser, what is written comes from there. Either counts
// as activity if it is data; a tab that only keeps its connection alive does not.
type webSocketTunnel struct {
	io.ReadWriteCloser
	toBrowser, toPod FrameScanner // each used by one goroutine
	touch            func()
}

// Read ends the whole tunnel with the pod's side: no half of a WebSocket goes on
// alone (RFC 6455, section 7.1.1), and an io.EOF would leave the browser's open for
// as long as that likes.
func (t *webSocketTunnel) Read(p []byte) (int, error) {
	n, err := t.ReadWriteCloser.Read(p)
	if t.toBrowser.Scan(p[:n]) {
		t.touch()
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (t *webSocketTunnel) Write(p []byte) (int, error) {
	n, err := t.ReadWriteCloser.Write(p)
	if t.toPod.Scan(p[:n]) {
		t.touch()
	}
	return n, err
}

// byteTunnel is the same for any other protocol that a connection was upgraded
// to: there is no telling what its bytes mean, so all count.
type byteTunnel struct {
	io.ReadWriteCloser
	touch func()
}

func (t *byteTunnel) Read(p []byte) (int, error) {
	n, err := t.ReadWriteCloser.Read(p)
	if n > 0 {
		t.touch()
	}
	return n, err
}

func (t *byteTunnel) Write(p []byte) (int, error) {
	n, err := t.ReadWriteCloser.Write(p)
	if n > 0 {
		t.touch()
	}
	return n, err
}
