package conformance

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// shapes returns the streams of frames in the order of Autobahn's sections. All but
// those with an error end with a close frame.
func shapes() (all []shape) {
	for _, section := range [][]shape{
		framingShapes(), pingShapes(), reservedShapes(), opcodeShapes(), fragmentShapes(), utf8Shapes(), closeShapes(), limitShapes(), deflateShapes(),
	} {
		all = append(all, section...)
	}
	return all
}

// bye is the frame that ends a connection.
func bye() frame { return closing(1000, "") }

func closing(code uint16, reason string) frame {
	return frame{op: opClose, payload: append(binary.BigEndian.AppendUint16(nil, code), reason...)}
}

func framingShapes() (all []shape) {
	for i, op := range []byte{opText, opBinary} {
		for _, size := range []int{0, 125, 126, 127, 128, 65535, 65536} {
			frames := []frame{{op: op, payload: bytes.Repeat([]byte("*"), size)}, bye()}
			all = append(all, shape{name: fmt.Sprintf("1.%d/%d bytes", i+1, size), frames: frames})
			if size <= 128 {
				all = append(all, shape{name: fmt.Sprintf("1.%d/%d bytes, one at a time", i+1, size), frames: frames, chop: 1})
			}
		}
		all = append(all, shape{name: fmt.Sprintf("1.%d/65536 bytes, 997 at a time", i+1), frames: []frame{{op: op, payload: bytes.Repeat([]byte("*"), 65536)}, bye()}, chop: 997})
	}
	return all
}

func pingShapes() (all []shape) {
	for _, payload := range []string{"", "Hello, world!", "\x00\xff\xfe\xfd\xfc\xfb\x00\xff", string(bytes.Repeat([]byte{0xfe}, 125)), string(bytes.Repeat([]byte{0xfe}, 126))} {
		for _, chop := range []int{0, 1} {
			all = append(all,
				shape{name: fmt.Sprintf("2/ping with %d bytes, chop %d", len(payload), chop), frames: []frame{{op: opPing, payload: []byte(payload)}, bye()}, chop: chop, opaque: len(payload) > 125},
				shape{name: fmt.Sprintf("2/pong with %d bytes, chop %d", len(payload), chop), frames: []frame{{op: opPong, payload: []byte(payload)}, bye()}, chop: chop, opaque: len(payload) > 125},
			)
		}
	}
	var ten []frame
	for i := range 10 {
		ten = append(ten, frame{op: opPing, payload: fmt.Appendf(nil, "payload-%d", i)})
	}
	return append(all,
		shape{name: "2/pong, then ping", frames: []frame{{op: opPong, payload: []byte("unsolicited")}, {op: opPing, payload: []byte("ping")}, bye()}},
		shape{name: "2/ten pings", frames: append(ten, bye())}, shape{name: "2/ten pings, a byte at a time", frames: append(ten, bye()), chop: 1},
	)
}

func reservedShapes() (all []shape) {
	for rsv := byte(1); rsv <= 7; rsv++ {
		for name, f := range map[string]frame{"text": {op: opText, payload: []byte("Hello")}, "binary": {op: opBinary, payload: []byte("Hello")}, "ping": {op: opPing}, "close": bye()} {
			f.rsv = rsv
			all = append(all,
				shape{name: fmt.Sprintf("3/reserved bits %03b of %s", rsv, name), frames: []frame{f}},
				shape{name: fmt.Sprintf("3/reserved bits %03b of %s after a text", rsv, name), frames: []frame{{op: opText, payload: []byte("before")}, f}, chop: 1},
			)
		}
	}
	return all
}

func opcodeShapes() (all []shape) {
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		all = append(all,
			shape{name: fmt.Sprintf("4/opcode %d", op), frames: []frame{{op: op}}},
			shape{name: fmt.Sprintf("4/opcode %d with a payload", op), frames: []frame{{op: op, payload: []byte("reserved")}}, opaque: true},
			shape{name: fmt.Sprintf("4/opcode %d after a text", op), frames: []frame{{op: opText, payload: []byte("before")}, {op: op}}},
			shape{name: fmt.Sprintf("4/opcode %d, then a ping", op), frames: []frame{{op: op}, {op: opPing}}, opaque: true},
		)
	}
	return all
}

func fragmentShapes() (all []shape) {
	one, two := frame{op: opText, payload: []byte("fragment1"), more: true}, frame{op: opContinuation, payload: []byte("fragment2")}
	middle := frame{op: opContinuation, payload: []byte("middle"), more: true}
	ping, stray := frame{op: opPing, payload: []byte("ping")}, frame{op: opContinuation, payload: []byte("stray")}
	for name, s := range map[string]shape{
		"a ping in fragments":              {frames: []frame{{op: opPing, payload: []byte("a"), more: true}}, opaque: true},
		"a pong in fragments":              {frames: []frame{{op: opPong, payload: []byte("a"), more: true}}, opaque: true},
		"two fragments":                    {frames: []frame{one, two, bye()}},
		"three fragments":                  {frames: []frame{one, middle, two, bye()}},
		"a ping between":                   {frames: []frame{one, ping, two, bye()}},
		"pings between":                    {frames: []frame{one, ping, middle, ping, middle, ping, two, bye()}},
		"a continuation of nothing":        {frames: []frame{stray}, opaque: true},
		"an open continuation of nothing":  {frames: []frame{{op: opContinuation, payload: []byte("x"), more: true}}, opaque: true},
		"a continuation after a message":   {frames: []frame{one, two, stray}, opaque: true},
		"a text in a message":              {frames: []frame{one, {op: opText, payload: []byte("new")}}, opaque: true},
		"a binary in a message":            {frames: []frame{one, {op: opBinary, payload: []byte("new")}}, opaque: true},
		"empty fragments":                  {frames: []frame{{op: opText, more: true}, {op: opContinuation, more: true}, {op: opContinuation}, bye()}},
		"an empty fragment at the end":     {frames: []frame{one, {op: opContinuation}, bye()}},
		"a message that never ends":        {frames: []frame{one, middle, bye()}},
		"many fragments of binary":         {frames: append(fragments(opBinary, text(3000), 1), bye())},
		"two messages, pings, two of both": {frames: []frame{one, ping, two, {op: opText, payload: []byte("whole")}, ping, one, two, bye()}},
	} {
		for _, chop := range []int{0, 1} {
			s.name, s.chop = fmt.Sprintf("5/%s, chop %d", name, chop), chop
			all = append(all, s)
		}
	}
	return append(all, shape{name: "10/65536 bytes in fragments of 1300", frames: append(fragments(opText, text(65536), 1300), bye())})
}

// fragments cuts a message into frames.
func fragments(op byte, message []byte, size int) (frames []frame) {
	for len(message) > 0 {
		n := min(size, len(message))
		frames = append(frames, frame{op: op, payload: message[:n], more: n < len(message)})
		op, message = opContinuation, message[n:]
	}
	return frames
}

// utf8Shapes only pass through: whether a text is valid is for the application to say.
func utf8Shapes() (all []shape) {
	for _, payload := range []string{
		"Hello-µ@ßöäüàá-UTF-8!!", "κόσμε", "\u0080", "\u07ff", "\u0800", "\uffff", "\U00010000", "\U0010ffff", "\x00", "\ufeff", "\ufffe",
		"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", "\xf4\x90\x80\x80", "\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xed\xa0\x80", "\xed\xad\xbf\xed\xbf\xbf",
		"\x80", "\xbf", "\xfe", "\xff", "\xfe\xfe\xff\xff", "\xc3", "\xe1\xbd", "\xf0\x9f\x98", "\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80",
	} {
		all = append(all,
			shape{name: fmt.Sprintf("6/%+q", payload), frames: []frame{{op: opText, payload: []byte(payload)}, bye()}},
			shape{name: fmt.Sprintf("6/%+q, a byte in each fragment", payload), frames: append(fragments(opText, []byte(payload), 1), bye()), chop: 1},
		)
	}
	return all
}

func closeShapes() (all []shape) {
	for _, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999, 0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		all = append(all,
			shape{name: fmt.Sprintf("7/code %d", code), frames: []frame{closing(code, "")}},
			shape{name: fmt.Sprintf("7/code %d with a reason", code), frames: []frame{closing(code, "Bye, déjà vu")}},
		)
	}
	return append(all,
		shape{name: "7/no payload", frames: []frame{{op: opClose}}},
		shape{name: "7/one byte", frames: []frame{{op: opClose, payload: []byte("a")}}},
		shape{name: "7/the longest reason", frames: []frame{closing(1000, string(bytes.Repeat([]byte("*"), 123)))}},
		shape{name: "7/a longer reason", frames: []frame{closing(1000, string(bytes.Repeat([]byte("*"), 124)))}, opaque: true},
		shape{name: "7/a reason that is no UTF-8", frames: []frame{closing(1000, "\xce\xba\xed\xa0\x80")}},
		shape{name: "7/a message, then close", frames: []frame{{op: opText, payload: []byte("Hello")}, bye()}},
		shape{name: "7/close twice", frames: []frame{bye(), bye()}, opaque: true},
		shape{name: "7/a ping after close", frames: []frame{bye(), {op: opPing}}, opaque: true},
		shape{name: "7/a text after close", frames: []frame{bye(), {op: opText, payload: []byte("late")}}, opaque: true},
		shape{name: "7/256 KiB, close, ping", frames: []frame{{op: opText, payload: text(256 << 10)}, bye(), {op: opPing}}, opaque: true},
		shape{name: "7/no close at all", opaque: true},
	)
}

func limitShapes() (all []shape) {
	for i, op := range []byte{opText, opBinary} {
		sizes := []int{64 << 10, 1 << 20, 4 << 20}
		if op == opBinary {
			sizes = []int{256 << 10, 1 << 20, 16 << 20}
		}
		for _, size := range sizes {
			all = append(all, shape{name: fmt.Sprintf("9.%d/%d KiB", i+1, size>>10), frames: []frame{{op: op, payload: bytes.Repeat([]byte("*"), size)}, bye()}})
		}
		for _, size := range []int{256, 4 << 10, 64 << 10} {
			all = append(all, shape{name: fmt.Sprintf("9.%d/1 MiB in fragments of %d", i+3, size), frames: append(fragments(op, bytes.Repeat([]byte("*"), 1<<20), size), bye())})
		}
		for _, chop := range []int{256, 2048} {
			all = append(all, shape{name: fmt.Sprintf("9.%d/256 KiB, %d bytes at a time", i+5, chop), frames: []frame{{op: op, payload: bytes.Repeat([]byte("*"), 256<<10)}, bye()}, chop: chop})
		}
		for _, size := range []int{0, 16, 256, 4096} {
			var many []frame
			for range 200 {
				many = append(many, frame{op: op, payload: text(size)})
			}
			all = append(all, shape{name: fmt.Sprintf("9.%d/200 messages of %d bytes", i+7, size), frames: append(many, bye())})
		}
	}
	return all
}

func deflateShapes() (all []shape) {
	for _, offer := range []string{
		"permessage-deflate", "permessage-deflate; client_no_context_takeover", "permessage-deflate; server_no_context_takeover", "permessage-deflate; client_max_window_bits",
		"permessage-deflate; client_no_context_takeover; server_no_context_takeover", "permessage-deflate; server_max_window_bits=9", "permessage-deflate; client_max_window_bits=15, permessage-deflate",
		"permessage-deflate; nonsense", "x-webkit-deflate-frame", "permessage-bzip2, permessage-deflate",
	} {
		for compression := int64(0); compression <= 2; compression++ {
			all = append(all, shape{name: fmt.Sprintf("13/%s, to kind %d", offer, compression), extensions: offer, compression: compression, frames: []frame{{op: opText, payload: text(600)}, bye()}})
		}
	}
	for _, op := range []byte{opText, opBinary} {
		for _, size := range []int{0, 16, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 128 << 10, 1 << 20} {
			// Each message is compressed by itself, which every server understands.
			compressed := frame{op: op, payload: deflated(text(size)), rsv: 4}
			cut := fragments(op, compressed.payload, max(1, len(compressed.payload)/3))
			cut[0].rsv = 4
			for compression := int64(1); compression <= 2; compression++ {
				offer := "permessage-deflate; client_no_context_takeover; server_no_context_takeover"
				all = append(all,
					shape{name: fmt.Sprintf("12/opcode %d, %d bytes, kind %d", op, size, compression), extensions: offer, compression: compression, frames: []frame{compressed, compressed, bye()}},
					shape{name: fmt.Sprintf("12/opcode %d, %d bytes in fragments, kind %d", op, size, compression), extensions: offer, compression: compression, frames: append(cut, bye())},
				)
			}
		}
	}
	return all
}
