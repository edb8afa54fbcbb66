package proxy

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"testing"
)

// The opcodes that RFC 6455, section 5.2, defines.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa
)

// wsFrame encodes one final WebSocket frame, masked as browsers do, or not.
func wsFrame(opcode byte, masked bool, payload []byte) []byte {
	frame := []byte{0x80 | opcode}
	switch n := len(payload); {
	case n < 126:
		frame = append(frame, byte(n))
	case n < 1<<16:
		frame = binary.BigEndian.AppendUint16(append(frame, 126), uint16(n))
	default:
		frame = binary.BigEndian.AppendUint64(append(frame, 127), uint64(n))
	}
	if !masked {
		return append(frame, payload...)
	}
	mask := []byte{0x81, 0x02, 0x81, 0x02} // it would itself be a header
	frame[1] |= 0x80
	frame = append(frame, mask...)
	for i, b := range payload {
		frame = append(frame, b^mask[i%4])
	}
	return frame
}

// sizes are payload lengths on both sides of each change in how lengths are encoded.
func sizes() []int { return []int{0, 1, 125, 126, 127, 1<<16 - 1, 1 << 16, 1<<16 + 1} }

func TestScanEveryOpcodeAndLength(t *testing.T) {
	for opcode := range byte(16) {
		want := opcode == opContinuation || opcode == opText || opcode == opBinary
		for _, masked := range []bool{false, true} {
			for _, size := range sizes() {
				// The payload looks like the headers of text frames.
				frame := wsFrame(opcode, masked, bytes.Repeat([]byte{0x81}, size))
				var s frameScanner
				if got := s.scan(frame); got != want {
					t.Errorf("opcode %#x, masked %v, %d bytes: got %v, want %v", opcode, masked, size, got, want)
				}
				// The scanner has found the end: what follows is read as another frame.
				if s.scan(wsFrame(opPing, masked, nil)) {
					t.Errorf("opcode %#x, masked %v, %d bytes: the ping after it counted as data", opcode, masked, size)
				}
				if !s.scan(wsFrame(opText, masked, nil)) {
					t.Errorf("opcode %#x, masked %v, %d bytes: the text after it was not seen", opcode, masked, size)
				}
			}
		}
	}
}

func TestScanStreams(t *testing.T) {
	ping, pong := wsFrame(opPing, true, []byte("are you there")), wsFrame(opPong, false, nil)
	text := wsFrame(opText, true, []byte("6*7"))
	unfinished := func(frame []byte) []byte { return append([]byte{frame[0] &^ 0x80}, frame[1:]...) }
	for _, row := range []struct {
		name   string
		pieces [][]byte
		want   []bool // of each piece
	}{
		{"nothing", [][]byte{nil, {}}, []bool{false, false}},
		{"control frames only", [][]byte{ping, pong, wsFrame(opClose, true, []byte{3, 232})}, []bool{false, false, false}},
		{"data among them", [][]byte{bytes.Join([][]byte{ping, text, pong}, nil), ping}, []bool{true, false}},
		{"a message in fragments, with a ping between", [][]byte{
			unfinished(text), ping, unfinished(wsFrame(opContinuation, true, nil)), wsFrame(opContinuation, true, []byte("!")),
		}, []bool{true, false, true, true}},
		{"reserved bits", [][]byte{{0x80 | 0x40 | opText, 1, 'x'}, {0x80 | 0x70 | opPing, 0}}, []bool{true, false}},
		// A header counts as data once it is complete, and then each byte of the payload.
		{"data, bit by bit", [][]byte{text[:1], text[1:5], text[5:6], text[6:7], text[7:], ping}, []bool{false, false, true, true, true, false}},
		{"a ping, bit by bit", [][]byte{ping[:1], ping[1:3], ping[3:9], ping[9:], text}, []bool{false, false, false, false, true}},
		{"the longest frame that can be encoded", [][]byte{
			{0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255}, text, ping,
		}, []bool{true, true, true}},
		{"the longest ping that can be encoded", [][]byte{
			{0x89, 127, 255, 255, 255, 255, 255, 255, 255, 255}, text, ping,
		}, []bool{false, false, false}},
	} {
		var s frameScanner
		for i, piece := range row.pieces {
			if got := s.scan(piece); got != row.want[i] {
				t.Errorf("%s: piece %d: got %v, want %v", row.name, i, got, row.want[i])
			}
		}
	}
}

// FuzzScan checks that it makes no difference how a stream is cut, and that the
// result is that of a parser that has the whole stream at once.
func FuzzScan(f *testing.F) {
	var all []byte
	for opcode := range byte(16) {
		for _, masked := range []bool{false, true} {
			for _, size := range []int{0, 1, 125, 126, 300, 1 << 16} {
				frame := wsFrame(opcode, masked, bytes.Repeat([]byte{0x82}, size))
				f.Add(frame, []byte{1})
				f.Add(frame, []byte{0, 2, 5, 250})
				if size < 1<<16 {
					all = append(all, frame...)
				}
			}
		}
	}
	f.Add(all, []byte{3, 1, 4, 1, 5, 9})
	f.Add(bytes.Repeat(wsFrame(opPing, true, []byte("ping")), 50), []byte{7})
	f.Add([]byte{0x8a, 127, 255, 255, 255, 255, 255, 255, 255, 255, 0x81, 0}, []byte{})

	f.Fuzz(func(t *testing.T, stream, cuts []byte) {
		var whole, cut frameScanner
		want := holdsData(stream)
		if got := whole.scan(stream); got != want {
			t.Errorf("%x: got %v at once, want %v", stream, got, want)
		}
		got, rest := false, stream
		for i := 0; len(rest) > 0; i++ {
			n := 1
			if len(cuts) > 0 {
				n = min(len(rest), 1+int(cuts[i%len(cuts)]))
			}
			got = cut.scan(rest[:n]) || got
			rest = rest[n:]
			if cut.scan(nil) {
				t.Errorf("%x: nothing counted as data", stream)
			}
		}
		if got != want {
			t.Errorf("%x: got %v cut by %v, want %v", stream, got, cuts, want)
		}
		if cut != whole {
			t.Errorf("%x: ended as %+v cut by %v, and as %+v at once", stream, cut, cuts, whole)
		}
	})
}

// holdsData reports whether a stream has the complete header of a data frame.
func holdsData(stream []byte) bool {
	for len(stream) >= 2 {
		header, length := uint64(2), uint64(stream[1]&0x7f)
		switch {
		case length == 126 && len(stream) >= 4:
			header, length = 4, uint64(binary.BigEndian.Uint16(stream[2:]))
		case length == 127 && len(stream) >= 10:
			header, length = 10, binary.BigEndian.Uint64(stream[2:])
		case length >= 126:
			return false
		}
		if stream[1]&0x80 != 0 {
			header += 4
		}
		size := uint64(len(stream))
		if size < header {
			return false
		}
		if stream[0]&0xf <= opBinary {
			return true
		}
		if size-header < length {
			return false
		}
		stream = stream[header+length:]
	}
	return false
}

func TestIsWebSocket(t *testing.T) {
	for upgrade, want := range map[string]bool{"websocket": true, "WebSocket": true, "": false, "h2c": false, "websocket2": false} {
		if got := isWebSocket(http.Header{"Upgrade": {upgrade}}); got != want {
			t.Errorf("Upgrade: %s: got %v, want %v", upgrade, got, want)
		}
	}
}
