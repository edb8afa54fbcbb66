package conformance

import (
	"fmt"
	"strings"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/rawapp"
)

// streamingCases release each part of an answer only after the part before has
// arrived.
func streamingCases() (cases []test) {
	for name, parts := range map[string][]string{
		"Content-Length":       {answer("200 OK", "one ", "Content-Length: 15"), "two ", "three ", "!"},
		"head, then body":      {answer("200 OK", "", "Content-Length: 4", "X-Head: here"), "body"},
		"a byte at a time":     {answer("200 OK", "1", "Content-Length: 4"), "2", "3", "4"},
		"chunks":               {answer("200 OK", "4\r\none \r\n", "Transfer-Encoding: chunked"), "4\r\ntwo \r\n", "0\r\n\r\n"},
		"head, then chunks":    {answer("200 OK", "", "Transfer-Encoding: chunked", "X-Head: here"), "4\r\none \r\n", "0\r\n\r\n"},
		"half a chunk":         {answer("200 OK", "8\r\nhalf", "Transfer-Encoding: chunked"), "half\r\n", "0\r\n\r\n"},
		"a chunk and a half":   {answer("200 OK", "3\r\none\r\n8\r\nhalf", "Transfer-Encoding: chunked"), "half\r\n", "0\r\n\r\n"},
		"until the end":        {answer("200 OK", "one "), "two ", "three"},
		"head, until the end":  {answer("200 OK", "", "X-Head: here"), "one", "two"},
		"HTTP/1.0":             {"HTTP/1.0 200 OK\r\nX-Head: here\r\n\r\n", "one", "two"},
		"events":               {answer("200 OK", "", "Content-Type: text/event-stream", "X-Head: here"), "data: 1\n\n", "data: 2\n\n"},
		"an error in parts":    {answer("404 Not Found", "one ", "Content-Length: 8"), "two "},
		"compressed, in parts": {answer("200 OK", "\x1f\x8b", "Content-Length: 4", "Content-Encoding: gzip"), "\x08\x00"},
		"large, then small":    {answer("200 OK", strings.Repeat("x", 40<<10), "Content-Length: 40964"), "last"},
	} {
		for _, method := range []string{"GET", "POST"} {
			c := test{name: method + " " + name}
			if method == "GET" {
				c.client = []act{{write: get("/x")}}
			} else {
				c.client = []act{{write: request("POST", "/x", "Content-Length: 4") + "body"}}
				c.app = []rawapp.Step{rawapp.Read()}
			}
			for i, part := range parts {
				c.app = append(c.app, rawapp.Send(part))
				if i == len(parts)-1 {
					break
				}
				gate := fmt.Sprintf("g%d", i)
				c.app = append(c.app, rawapp.Wait(gate))
				c.client = append(c.client, act{await: lastText(part)}, act{open: gate})
			}
			if !strings.Contains(parts[0], "Content-Length") && !strings.Contains(parts[0], "chunked") {
				c.app = append(c.app, rawapp.Step{Op: rawapp.OpClose})
			}
			cases = append(cases, c)
		}
	}
	return append(cases,
		test{name: "the head in pieces", client: []act{{write: get("/x")}, {open: "a"}}, app: []rawapp.Step{rawapp.Send("HTTP/1.1 20"), rawapp.Wait("a"), rawapp.Send("0 OK\r\nContent-Le"), {Op: rawapp.OpPause, N: 20}, rawapp.Send("ngth: 2\r\n\r\nhi")}},
		test{name: "a request in pieces", client: []act{{write: "GE"}, {write: "T {raw}"}, {write: "/x HTTP/1.1\r\nHo"}, {write: "st: hub.example\r\n\r"}, {write: "\n"}}, methods: []string{"GET"}, app: whole()},
		test{name: "while the request's body is open", client: []act{{write: request("POST", "/x", "Transfer-Encoding: chunked") + "2\r\nab\r\n"}, {await: "early"}, {write: "0\r\n\r\n"}},
			app: []rawapp.Step{{Op: rawapp.OpRead, N: 7}, rawapp.Send(answer("200 OK", "5\r\nearly\r\n", "Transfer-Encoding: chunked")), {Op: rawapp.OpRead, N: 5}, rawapp.Send("4\r\nlate\r\n0\r\n\r\n")}, mayClose: true},
	)
}

// lastText returns what to wait for to know that a part has arrived: its content, or
// the field X-Head.
func lastText(part string) string {
	if head, body, found := strings.Cut(part, "\r\n\r\n"); found && strings.HasPrefix(head, "HTTP/") {
		if body == "" {
			return "X-Head: here"
		}
		part = body
		if !strings.Contains(head, "chunked") {
			return part[max(0, len(part)-8):]
		}
	}
	part = strings.TrimSuffix(part, "\r\n")
	return part[strings.LastIndex(part, "\n")+1:]
}

func connectionCases() []test {
	two, three := []string{"GET", "GET"}, []string{"GET", "POST", "GET"}
	post := request("POST", "/2", "Content-Length: 3") + "abc"
	chunked := request("POST", "/2", "Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\n\r\n"
	upgrade := get("/x", "Connection: Upgrade", "Upgrade: echo/1")
	switching := rawapp.Send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n")
	return []test{
		{name: "kept", client: []act{{write: get("/1")}, {await: "ok"}, {write: get("/2")}}, methods: two, app: whole()},
		{name: "pipelined", client: []act{{write: get("/1") + get("/2")}}, methods: two, app: whole()},
		{name: "pipelined with a body", client: []act{{write: get("/1") + post + get("/3")}}, methods: three, app: whole()},
		{name: "pipelined with chunks", client: []act{{write: get("/1") + chunked + get("/3")}}, methods: three, app: whole()},
		{name: "pipelined, the first slow", client: []act{{write: get("/1") + get("/2")}, {open: "go"}}, methods: two, app: []rawapp.Step{rawapp.Wait("go"), ok()}},
		{name: "pipelined HEAD", client: []act{{write: request("HEAD", "/1") + request("HEAD", "/2")}}, methods: []string{"HEAD", "HEAD"}, app: sends(answer("200 OK", "", "Content-Length: 5"))},
		{name: "pipelined behind a body that nobody reads", client: []act{{write: post + get("/2")}}, methods: []string{"POST", "GET"}, app: []rawapp.Step{ok()}, check: answeredOrClosed},
		{name: "closed by the client's wish", request: get("/x", "Connection: close"), app: whole(), mayClose: true},
		{name: "closed by the application's wish", request: get("/x"), app: []rawapp.Step{rawapp.Send(answer("200 OK", "hi", "Content-Length: 2", "Connection: close")), {Op: rawapp.OpClose}}},
		{name: "closed by the application without a word", request: get("/x"), app: []rawapp.Step{ok(), {Op: rawapp.OpClose}}, check: oneOf(200)},
		{name: "half-closed", client: []act{{write: get("/x")}, {closeWrite: true}}, app: whole()},
		{name: "half-closed, slow", client: []act{{write: get("/x")}, {closeWrite: true}, {open: "go"}}, app: []rawapp.Step{rawapp.Wait("go"), {Op: rawapp.OpPause, N: 100}, ok()}},
		{name: "half-closed, in parts", client: []act{{write: get("/x")}, {closeWrite: true}, {await: "one"}, {open: "go"}}, app: []rawapp.Step{rawapp.Send(answer("200 OK", "one", "Content-Length: 6")), rawapp.Wait("go"), {Op: rawapp.OpPause, N: 100}, rawapp.Send("two")}},
		{name: "half-closed POST", client: []act{{write: post}, {closeWrite: true}}, app: whole()},
		{name: "half-closed chunks", client: []act{{write: chunked}, {closeWrite: true}}, app: whole()},
		{name: "half-closed, large answer", client: []act{{write: get("/x")}, {closeWrite: true}}, app: sizedAnswer(strings.Repeat("x", 1<<20), "Content-Length: 1048576")},
		{name: "half-closed, pipelined", client: []act{{write: get("/1") + get("/2")}, {closeWrite: true}}, methods: two, app: whole()},
		{name: "another protocol", client: []act{{write: upgrade}, {await: "echo/1"}, {write: "hello"}, {await: "world"}}, app: []rawapp.Step{switching, {Op: rawapp.OpRead, N: 5}, rawapp.Send("world"), {Op: rawapp.OpHold}}},
		{name: "another protocol, half-closed by the client", client: []act{{write: upgrade}, {await: "echo/1"}, {write: "hello"}, {closeWrite: true}, {await: "world"}}, app: []rawapp.Step{switching, {Op: rawapp.OpRead, N: 5}, {Op: rawapp.OpPause, N: 50}, rawapp.Send("world"), {Op: rawapp.OpClose}}},
		{name: "another protocol, refused", request: upgrade, app: sends(answer("400 Bad Request", "no", "Content-Length: 2"))},
		{name: "another protocol that nobody asked for", request: get("/x"), app: []rawapp.Step{rawapp.Send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"), {Op: rawapp.OpHold}}, check: badGateway},
		{name: "another protocol than asked for", request: upgrade, app: []rawapp.Step{rawapp.Send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other/2\r\n\r\n"), {Op: rawapp.OpHold}}, check: badGateway},
	}
}

// earlyAnswerCases have an application that answers before it has read the body, as
// one does that refuses an upload (RFC 9112, section 9.5).
func earlyAnswerCases() (cases []test) {
	refusal := answer("413 Content Too Large", "too large", "Content-Type: text/plain", "Content-Length: 9", "Connection: close")
	piece := strings.Repeat("x", 64<<10)
	for n := range 100 {
		end := []rawapp.Op{rawapp.OpClose, rawapp.OpLinger, rawapp.OpReset, rawapp.OpHold}[n%4]
		if end == rawapp.OpReset {
			end = rawapp.OpClose // a reset can overtake the answer: nothing can be promised
		}
		cases = append(cases, test{
			name:   fmt.Sprintf("a large upload, refused, %s", end),
			client: []act{{write: request("PUT", "/x", "Content-Length: 1073741824")}, {write: piece, repeat: 160, untilHeard: true}},
			app:    []rawapp.Step{rawapp.Send(refusal), {Op: end}}, check: all(oneOf(413), answerIs("too large")), methods: []string{"PUT"}, leaves: true,
		})
	}
	for n := range 20 {
		cases = append(cases, test{
			name:   fmt.Sprintf("chunks, refused after %d KiB", 64*n),
			client: []act{{write: request("PUT", "/x", "Transfer-Encoding: chunked")}, {write: "10000\r\n" + piece + "\r\n", repeat: 100}},
			app:    []rawapp.Step{{Op: rawapp.OpRead, N: int64(n)*64<<10 + 1}, rawapp.Send(refusal), {Op: rawapp.OpClose}}, check: all(oneOf(413), answerIs("too large")), methods: []string{"PUT"}, leaves: true,
		})
	}
	for n := range 20 {
		first := request("POST", "/1", "Content-Length: 102400") + strings.Repeat("y", 102400)
		cases = append(cases, test{
			name:   fmt.Sprintf("100 KB refused on a kept connection, %d", n),
			client: []act{{write: first + get("/2")}}, methods: []string{"POST", "GET"},
			app: []rawapp.Step{rawapp.Send(answer("413 Content Too Large", "too large", "Content-Length: 9")), {Op: rawapp.OpLinger}}, check: answeredOrClosed,
		})
	}
	return append(cases,
		test{name: "an answer while the upload goes on", client: []act{{write: request("PUT", "/x", "Content-Length: 4") + "ab"}, {await: "early"}, {write: "cd"}},
			app: []rawapp.Step{rawapp.Send(answer("200 OK", "early", "Content-Length: 5")), rawapp.Read()}, mayClose: true, bodyMayBeCut: true},
		test{name: "a redirect while the upload goes on", client: []act{{write: request("PUT", "/x", "Content-Length: 1000000") + piece}},
			app: []rawapp.Step{rawapp.Send(answer("307 Temporary Redirect", "", "Location: x", "Content-Length: 0", "Connection: close")), {Op: rawapp.OpClose}}, check: oneOf(307)},
	)
}

// cutCases have a client that breaks its message off, or breaks its framing. What
// follows must not be run as a request (RFC 9112, sections 7.1 and 8).
func cutCases() (cases []test) {
	hidden := "GET {raw}/hidden HTTP/1.1\r\nHost: hub.example\r\n\r\n"
	for name, body := range map[string]string{
		"an invalid chunk size": "ZZ\r\nabc\r\n0\r\n\r\n", "an empty chunk size": "\r\nabc\r\n0\r\n\r\n", "a negative chunk size": "-1\r\nabc\r\n", "a chunk size with 0x": "0x3\r\nabc\r\n0\r\n\r\n",
		"a chunk size that overflows": "fffffffffffffffff\r\nabc\r\n", "a chunk that is longer": "2\r\nabc\r\n0\r\n\r\n", "a chunk size in words": "three\r\nabc\r\n0\r\n\r\n", "a bad chunk after a good one": "3\r\nabc\r\nXX\r\nabc\r\n0\r\n\r\n",
	} {
		for _, app := range [][]rawapp.Step{whole(), {ok()}} {
			cases = append(cases, test{name: name, client: []act{{write: request("POST", "/x", "Transfer-Encoding: chunked") + body + hidden}}, methods: []string{"POST"}, app: app, check: all(badRequestAndClosed(len(app) == 1), notHidden)})
		}
	}
	for _, part := range []string{"", "a", "hello"} {
		cases = append(cases,
			test{name: fmt.Sprintf("a PUT cut after %d of 10 bytes", len(part)), client: []act{{write: request("PUT", "/x", "Content-Length: 10") + part}, {closeWrite: true}}, app: whole(), check: badRequestAndClosed(false)},
			test{name: fmt.Sprintf("chunks cut after %d bytes", len(part)), client: []act{{write: request("PUT", "/x", "Transfer-Encoding: chunked") + fmt.Sprintf("a\r\n%s", part)}, {closeWrite: true}}, app: whole(), check: badRequestAndClosed(false)},
			test{name: fmt.Sprintf("a PUT abandoned after %d of 10 bytes", len(part)), client: []act{{write: request("PUT", "/x", "Content-Length: 10") + part}, {gone: true}}, methods: []string{}, app: whole(), check: notWhole},
		)
	}
	return append(cases,
		test{name: "chunks without an end", client: []act{{write: request("PUT", "/x", "Transfer-Encoding: chunked") + "3\r\nabc\r\n"}, {closeWrite: true}}, app: whole(), check: badRequestAndClosed(false)},
		test{name: "trailers without an end", client: []act{{write: request("PUT", "/x", "Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\nX: 1\r\n"}, {closeWrite: true}}, app: whole(), check: badRequestAndClosed(false)},
		test{name: "a head cut short", client: []act{{write: "GET {raw}/x HTTP/1.1\r\nHost: hub"}, {closeWrite: true}}, app: whole(), check: nothingRun},
	)
}

// refusedCases could be read in two ways. None may reach an application in another
// sense than the proxy's (RFC 9112, section 11.2).
func refusedCases() (cases []test) {
	hidden := "GET {raw}/hidden HTTP/1.1\r\nHost: hub.example\r\n\r\n"
	for name, head := range map[string]string{
		"two lengths":                     "POST {raw}/x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
		"a list of lengths":               "POST {raw}/x HTTP/1.1\r\nHost: h\r\nContent-Length: 0, 5\r\n\r\n",
		"a length with a sign":            "POST {raw}/x HTTP/1.1\r\nHost: h\r\nContent-Length: +0\r\n\r\n",
		"a negative length":               "POST {raw}/x HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
		"a length in hex":                 "POST {raw}/x HTTP/1.1\r\nHost: h\r\nContent-Length: 0x0\r\n\r\n",
		"a length that overflows":         "POST {raw}/x HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"xchunked":                        "POST {raw}/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n",
		"two codings":                     "POST {raw}/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"a list of codings":               "POST {raw}/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
		"gzip, chunked":                   "POST {raw}/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"a coding with a vertical tab":    "POST {raw}/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n",
		"a space before the colon":        "POST {raw}/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
		"a space before a length's colon": "POST {raw}/x HTTP/1.1\r\nHost: h\r\nContent-Length : 5\r\n\r\n",
		"a folded coding":                 "POST {raw}/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n xchunked\r\n\r\n0\r\n\r\n",
		"a space before the first field":  "POST {raw}/x HTTP/1.1\r\n Host: h\r\n\r\n",
		"a NUL in a value":                "GET {raw}/x HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n",
		"a lone CR in a value":            "GET {raw}/x HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n",
		"no name":                         "GET {raw}/x HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n",
		"no colon":                        "GET {raw}/x HTTP/1.1\r\nHost: h\r\nX\r\n\r\n",
		"two hosts":                       "GET {raw}/x HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n",
		"no host":                         "GET {raw}/x HTTP/1.1\r\nX: y\r\n\r\n",
		"a bad host":                      "GET {raw}/x HTTP/1.1\r\nHost: a b\r\n\r\n",
		"HTTP/2.0":                        "GET {raw}/x HTTP/2.0\r\nHost: h\r\n\r\n",
		"HTTP/1.9 in words":               "GET {raw}/x HTTP/one\r\nHost: h\r\n\r\n",
		"no version":                      "GET {raw}/x\r\nHost: h\r\n\r\n",
		"two spaces":                      "GET  {raw}/x HTTP/1.1\r\nHost: h\r\n\r\n",
		"a space in the target":           "GET {raw}/x y HTTP/1.1\r\nHost: h\r\n\r\n",
		"a bad method":                    "G@T {raw}/x HTTP/1.1\r\nHost: h\r\n\r\n",
		"a NUL in the target":             "GET {raw}/x\x00 HTTP/1.1\r\nHost: h\r\n\r\n",
	} {
		cases = append(cases, test{name: name, client: []act{{write: head + hidden}}, methods: []string{"GET"}, app: whole(), check: refused})
	}
	// These have one right reading. Nothing may be smuggled past it.
	body := "0\r\n\r\n"
	for name, head := range map[string]string{
		"length and chunks":        "POST {raw}/x HTTP/1.1\r\nHost: hub.example\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + body,
		"chunks and length":        "POST {raw}/x HTTP/1.1\r\nHost: hub.example\r\nTransfer-Encoding: chunked\r\nContent-Length: 100\r\n\r\n" + body,
		"chunks in HTTP/1.0":       "POST {raw}/x HTTP/1.0\r\nHost: hub.example\r\nTransfer-Encoding: chunked\r\n\r\n" + body,
		"lines that end with LF":   "POST {raw}/x HTTP/1.1\nHost: hub.example\nContent-Length: 0\n\n",
		"chunks that end with LF":  "POST {raw}/x HTTP/1.1\r\nHost: hub.example\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\n0\n\n",
		"Connection that takes it": "POST {raw}/x HTTP/1.1\r\nHost: hub.example\r\nConnection: Content-Length\r\nContent-Length: 0\r\n\r\n",
	} {
		cases = append(cases, test{name: name, client: []act{{write: head}}, methods: []string{"POST"}, app: whole(), check: soundFraming})
	}
	return cases
}

// brokenAnswerCases have an application whose answer is broken off or cannot be
// understood. It must not look whole to the client (RFC 9112, section 8).
func brokenAnswerCases() (cases []test) {
	for name, text := range map[string]string{
		"a length cut":          answer("200 OK", "half", "Content-Length: 8"),
		"a chunk cut":           answer("200 OK", "8\r\nhalf", "Transfer-Encoding: chunked"),
		"chunks without an end": answer("200 OK", "4\r\nhalf\r\n", "Transfer-Encoding: chunked"),
		"an invalid chunk size": answer("200 OK", "4\r\nhalf\r\nZZ\r\n", "Transfer-Encoding: chunked"),
		"trailers cut":          answer("200 OK", "4\r\nhalf\r\n0\r\nX-A: 1\r\n", "Transfer-Encoding: chunked", "Trailer: X-A"),
	} {
		for _, end := range []rawapp.Op{rawapp.OpClose, rawapp.OpReset} {
			cases = append(cases, test{name: fmt.Sprintf("%s, %s", name, end), client: []act{{write: get("/x")}, {open: "go"}},
				app: []rawapp.Step{rawapp.Send(text), rawapp.Wait("go"), {Op: end}}, check: brokenOff})
		}
	}
	for name, text := range map[string]string{
		"nothing": "", "a head cut": "HTTP/1.1 200 OK\r\nX-A: 1\r\n", "no HTTP": "hello\r\n\r\n", "SSH": "SSH-2.0-x\r\n", "HTTP/2": "\x00\x00\x00\x04\x00\x00\x00\x00\x00",
		"a field without a colon": "HTTP/1.1 200 OK\r\nbroken\r\n\r\n", "a NUL in a value": "HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
		"two lengths": "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "a negative length": "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "a length in words": "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nab",
		"a coding that is unknown": "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab",
	} {
		cases = append(cases, test{name: name, request: get("/x"), app: []rawapp.Step{rawapp.Send(text), {Op: rawapp.OpClose}}, check: badGateway})
	}
	return append(cases,
		// A proxy removes such a space (RFC 9112, section 5.1).
		test{name: "a space before the colon", request: get("/x"), app: sends(answer("200 OK", "hi", "X-A : b", "Content-Length: 2")), check: all(oneOf(200, 502), lacks("X-A :"))},
		test{name: "a field with a space", request: get("/x"), app: sends(answer("200 OK", "hi", "A B: c", "Content-Length: 2")), check: all(oneOf(200, 502), lacks("A B:"))},
		test{name: "HTTP/3.0", request: get("/x"), app: []rawapp.Step{rawapp.Send("HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n"), {Op: rawapp.OpClose}}, check: all(oneOf(200, 502), lacks("HTTP/3"))},
		test{name: "a head without end", request: get("/x"), app: []rawapp.Step{rawapp.Send("HTTP/1.1 200 OK\r\n"), {Op: rawapp.OpSend, Data: []byte("X-A: " + strings.Repeat("a", 8<<10) + "\r\n"), N: 5000}, {Op: rawapp.OpClose}}, check: badGateway},
		test{name: "a reset at once", request: get("/x"), app: []rawapp.Step{{Op: rawapp.OpReset}}, check: badGateway},
		test{name: "a body that 204 cannot have", request: get("/x"), app: []rawapp.Step{rawapp.Send(answer("204 No Content", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfalse")), {Op: rawapp.OpLinger}}, check: all(oneOf(204), notFalse)},
		test{name: "more than the length", request: get("/x"), app: []rawapp.Step{rawapp.Send(answer("200 OK", "hiHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfalse", "Content-Length: 2")), {Op: rawapp.OpLinger}}, check: all(oneOf(200), notFalse)},
		test{name: "a body after HEAD", request: request("HEAD", "/x"), app: []rawapp.Step{rawapp.Send(answer("200 OK", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfalse", "Content-Length: 2")), {Op: rawapp.OpLinger}}, check: all(oneOf(200), notFalse)},
		test{name: "a body after 304", request: get("/x"), app: []rawapp.Step{rawapp.Send(answer("304 Not Modified", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfalse")), {Op: rawapp.OpLinger}}, check: all(oneOf(304), notFalse)},
		test{name: "two answers to one request", request: get("/x"), app: []rawapp.Step{rawapp.Send(answer("200 OK", "hi", "Content-Length: 2") + answer("200 OK", "false", "Content-Length: 5")), {Op: rawapp.OpLinger}}, check: all(oneOf(200), notFalse)},
		test{name: "length and chunks", request: get("/x"), app: sends(answer("200 OK", "2\r\nhi\r\n0\r\n\r\n", "Content-Length: 100", "Transfer-Encoding: chunked")), check: oneOf(200, 502)},
	)
}
