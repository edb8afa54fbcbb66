package proxy

import (
	"net/http"
	"strings"
)

// Parts of a frame's header (RFC 6455, section 5.2). The opcodes up to
// lastDataOpcode carry an application's data: continuation, text and binary. Those
// of close, ping and pong are higher.
const (
	lastDataOpcode = 0x2
	closeOpcode    = 0x8
	finBit         = 0x80 // the last frame of a message
	opcodeMask     = 0x0f
	maskBit        = 0x80
	lengthMask     = 0x7f
)

func isWebSocket(h http.Header) bool { return strings.EqualFold(h.Get("Upgrade"), "websocket") }

// frameScanner follows one direction of a WebSocket connection and tells data
// frames from control frames. A tab that only keeps its connection alive sends
// control frames. The scanner reads headers and skips payloads, keeps no data, and
// accepts a stream cut anywhere.
type frameScanner struct {
	header [14]byte // of the frame being read: at most 2 + 8 + 4 bytes
	have   int      // bytes of it so far
	skip   uint64   // payload bytes still to come
	data   bool     // whether the payload being skipped is data
	closed bool     // whether a close frame has begun
	// counted is the payload's size in bytes of the smallest message that counts. A
	// smaller one is a heartbeat.
	counted int
}

// scan reports whether the next piece p of the stream has any byte of a data
// frame. The header of a frame counts once it is complete.
func (s *frameScanner) scan(p []byte) bool {
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
		s.skip = s.payloadLength()
		s.data = s.header[0]&opcodeMask <= lastDataOpcode && !s.isHeartbeat()
		s.closed = s.closed || s.header[0]&opcodeMask == closeOpcode
		s.have = 0
		found = found || s.data
	}
	return found
}

// between reports whether no frame is under way.
func (s *frameScanner) between() bool { return s.have == 0 && s.skip == 0 }

// isHeartbeat reports whether the frame is a whole message that is small enough for a
// heartbeat. A part of a message is not.
func (s *frameScanner) isHeartbeat() bool {
	whole := s.header[0]&finBit != 0 && s.header[0]&opcodeMask != 0
	return whole && s.skip < uint64(s.counted)
}

// headerLength returns the length of the header in bytes, as far as the bytes read
// so far tell.
func (s *frameScanner) headerLength() int {
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

func (s *frameScanner) payloadLength() uint64 {
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
