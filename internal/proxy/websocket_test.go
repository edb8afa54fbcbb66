package proxy

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"slices"
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

// FuzzScan cuts a stream anywhere. Each piece counts if, and only if, one of its bytes
// does by a decoder that has the whole stream at once.
func FuzzScan(f *testing.F) {
	var all []byte
	for opcode := range byte(16) {
		for _, masked := range []bool{false, true} {
			for _, size := range []int{0, 1, 125, 126, 300, 1 << 16} {
				frame := wsFrame(opcode, masked, bytes.Repeat([]byte{0x82}, size))
				f.Add(frame, []byte{1}, 0)
				f.Add(frame, []byte{0, 2, 5, 250}, 127)
				if size < 1<<16 {
					all = append(all, frame...)
				}
			}
		}
	}
	f.Add(all, []byte{3, 1, 4, 1, 5, 9}, 2)
	f.Add(bytes.Repeat(wsFrame(opPing, true, []byte("ping")), 50), []byte{7}, 0)
	f.Add([]byte{0x8a, 127, 255, 255, 255, 255, 255, 255, 255, 255, 0x81, 0}, []byte{}, 0)
	f.Add([]byte{0x01, 1, 'a', 0x80, 1, 'b', 0x81, 1, 'c'}, []byte{}, 5) // a message in parts, and a whole one

	f.Fuzz(func(t *testing.T, stream, cuts []byte, counted int) {
		s := frameScanner{counted: max(counted, 0)}
		activity, from := countedBytes(stream, uint64(max(counted, 0))), 0
		for i := 0; from < len(stream); i++ {
			size := 1
			if len(cuts) > 0 {
				size += int(cuts[i%len(cuts)])
			}
			to := min(from+size, len(stream))
			if got, want := s.scan(stream[from:to]), slices.Contains(activity[from:to], true); got != want {
				t.Fatalf("%x, at %d to %d: got %v, want %v", stream, from, to, got, want)
			}
			if s.scan(nil) {
				t.Fatalf("%x, at %d: nothing counted as data", stream, to)
			}
			from = to
		}
	})
}

// countedBytes decodes a stream of frames (RFC 6455, section 5.2), and reports of each byte
// whether it is use: the end of a data frame's header, and its payload. A whole message of
// less than counted bytes is none.
func countedBytes(stream []byte, counted uint64) []bool {
	activity := make([]bool, len(stream))
	for at := 0; at+2 <= len(stream); {
		fin, opcode, masked := stream[at]&0x80 != 0, stream[at]&0x0f, stream[at+1]&0x80 != 0
		payload, size := uint64(stream[at+1]&0x7f), 0 // size is that of the length
		switch payload {
		case 126:
			size = 2
		case 127:
			size = 8
		}
		header := at + 2 + size
		if masked {
			header += 4
		}
		if header > len(stream) {
			break
		}
		switch size {
		case 2:
			payload = uint64(binary.BigEndian.Uint16(stream[at+2:]))
		case 8:
			payload = binary.BigEndian.Uint64(stream[at+2:])
		}
		end := len(stream)
		if left := uint64(len(stream) - header); payload < left {
			end = header + int(payload)
		}
		data := opcode == opContinuation || opcode == opText || opcode == opBinary
		if whole := fin && opcode != opContinuation; data && !(whole && payload < counted) {
			for i := header - 1; i < end; i++ {
				activity[i] = true
			}
		}
		at = end
	}
	return activity
}

func TestIsWebSocket(t *testing.T) {
	for upgrade, want := range map[string]bool{"websocket": true, "WebSocket": true, "": false, "h2c": false, "websocket2": false} {
		if got := isWebSocket(http.Header{"Upgrade": {upgrade}}); got != want {
			t.Errorf("Upgrade: %s: got %v, want %v", upgrade, got, want)
		}
	}
}
