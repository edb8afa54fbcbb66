package conformance

import (
	"fmt"
	"strings"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/rawapp"
)

func statusCases() (cases []test) {
	codes := []int{}
	for _, span := range [][2]int{{200, 208}, {226, 226}, {300, 308}, {400, 418}, {421, 431}, {444, 444}, {451, 451}, {499, 511}, {520, 530}} {
		for code := span[0]; code <= span[1]; code++ {
			codes = append(codes, code)
		}
	}
	for _, code := range append(codes, 250, 299, 399, 599, 600, 666, 799, 800, 999) {
		switch code {
		case 204, 304, 205:
			cases = append(cases, test{name: fmt.Sprint(code), request: get("/x"), app: sends(answer(fmt.Sprintf("%d X", code), "", "X-A: 1", "Content-Length: 0"))})
		default:
			cases = append(cases, test{name: fmt.Sprint(code), request: get("/x"), app: sends(answer(fmt.Sprintf("%d Some Reason", code), "body", "Content-Type: text/plain", "Content-Length: 4"))})
		}
	}
	return append(cases,
		test{name: "no reason", request: get("/x"), app: sends("HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n")},
		test{name: "no reason and no space", request: get("/x"), app: sends("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"), check: oneOf(200)},
		test{name: "two spaces before it", request: get("/x"), app: sends("HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n"), check: oneOf(200, 502)},
		test{name: "a reason in UTF-8", request: get("/x"), app: sends("HTTP/1.1 200 é☃\r\nContent-Length: 0\r\n\r\n")},
	)
}

// badStatusCases have status codes outside 100 to 999 (RFC 9110, section 15).
func badStatusCases() (cases []test) {
	for _, status := range []string{"000", "001", "050", "099", "20", "+20", "-20", "2", "", "2000", "1000", "0200", "2x0", "200x", "abc", "２００", "1e2", "0x1"} {
		cases = append(cases,
			test{name: fmt.Sprintf("%q", status), request: get("/x"), app: sends("HTTP/1.1 " + status + " Odd\r\nContent-Length: 2\r\n\r\nno"), check: badGateway},
			test{name: fmt.Sprintf("%q to a POST", status), request: request("POST", "/x", "Content-Length: 2") + "ab", app: sends("HTTP/1.1 " + status + " Odd\r\nContent-Length: 2\r\n\r\nno"), check: badGateway},
		)
	}
	return cases
}

func answerBodyCases() (cases []test) {
	closing := rawapp.Step{Op: rawapp.OpClose}
	for _, status := range []string{"200 OK", "206 Partial Content", "404 Not Found", "503 Service Unavailable"} {
		cases = append(cases,
			test{name: status + ", Content-Length", request: get("/x"), app: sends(answer(status, "hello", "Content-Type: text/plain", "Content-Length: 5"))},
			test{name: status + ", Content-Length 0", request: get("/x"), app: sends(answer(status, "", "Content-Type: text/plain", "Content-Length: 0"))},
			test{name: status + ", chunked", request: get("/x"), app: sends(answer(status, "5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n", "Content-Type: text/plain", "Transfer-Encoding: chunked"))},
			test{name: status + ", chunked, empty", request: get("/x"), app: sends(answer(status, "0\r\n\r\n", "Transfer-Encoding: chunked"))},
			test{name: status + ", until the end", request: get("/x"), app: []rawapp.Step{rawapp.Send(answer(status, "hello", "Content-Type: text/plain")), closing}},
			test{name: status + ", until the end, empty", request: get("/x"), app: []rawapp.Step{rawapp.Send(answer(status, "", "Content-Type: text/plain")), closing}},
			test{name: status + ", HTTP/1.0", request: get("/x"), app: []rawapp.Step{rawapp.Send("HTTP/1.0 " + status + "\r\nContent-Type: text/plain\r\n\r\nhello"), closing}},
			test{name: status + ", HTTP/1.0 with a length", request: get("/x"), app: []rawapp.Step{rawapp.Send("HTTP/1.0 " + status + "\r\nContent-Length: 5\r\n\r\nhello"), closing}},
			test{name: status + ", trailers", request: get("/x", "TE: trailers"), app: sends(answer(status, "5\r\nhello\r\n0\r\nX-Sum: abc\r\nX-Two: 2\r\n\r\n", "Trailer: X-Sum, X-Two", "Transfer-Encoding: chunked"))},
			test{name: status + ", trailers not announced", request: get("/x", "TE: trailers"), app: sends(answer(status, "5\r\nhello\r\n0\r\nX-Sum: abc\r\n\r\n", "Transfer-Encoding: chunked"))},
			test{name: "HEAD " + status + ", Content-Length", request: request("HEAD", "/x"), app: sends(answer(status, "", "Content-Type: text/plain", "Content-Length: 12345"))},
			test{name: "HEAD " + status + ", Content-Length 0", request: request("HEAD", "/x"), app: sends(answer(status, "", "Content-Length: 0"))},
			test{name: "HEAD " + status + ", chunked", request: request("HEAD", "/x"), app: sends(answer(status, "", "Transfer-Encoding: chunked"))},
			test{name: "HEAD " + status + ", no length", request: request("HEAD", "/x"), app: sends(answer(status, "", "Content-Type: text/plain"))},
		)
	}
	for _, size := range []int{1, 511, 512, 513, 2047, 2048, 4096, 32 << 10, 32<<10 + 1, 1 << 20} {
		body := strings.Repeat("0123456789abcde\n", size/16+1)[:size]
		cases = append(cases,
			test{name: fmt.Sprintf("%d bytes", size), request: get("/x"), app: sizedAnswer(body, "Content-Length: "+fmt.Sprint(size))},
			test{name: fmt.Sprintf("%d bytes until the end", size), request: get("/x"), app: append(sizedAnswer(body), closing)},
		)
	}
	return append(cases,
		test{name: "204 with no fields", request: get("/x"), app: sends("HTTP/1.1 204 No Content\r\n\r\n")},
		test{name: "204 with a Content-Length", request: get("/x"), app: sends(answer("204 No Content", "", "Content-Length: 0"))},
		test{name: "204 to DELETE", request: request("DELETE", "/x"), app: sends(answer("204 No Content", "", "ETag: \"a\""))},
		test{name: "205 with no length", request: get("/x"), app: []rawapp.Step{rawapp.Send("HTTP/1.1 205 Reset Content\r\n\r\n"), closing}},
		test{name: "304 with no fields", request: get("/x"), app: sends("HTTP/1.1 304 Not Modified\r\n\r\n")},
		test{name: "304 with validators", request: get("/x", `If-None-Match: "a"`), app: sends(answer("304 Not Modified", "", `ETag: "a"`, "Cache-Control: max-age=3", "Vary: Accept"))},
		test{name: "304 with a Content-Length", request: get("/x"), app: sends(answer("304 Not Modified", "", "Content-Length: 1234"))},
		test{name: "304 to HEAD", request: request("HEAD", "/x"), app: sends(answer("304 Not Modified", "", `ETag: "a"`, "Content-Length: 1234"))},
		test{name: "a range", request: get("/x", "Range: bytes=2-4"), app: sends(answer("206 Partial Content", "llo", "Content-Range: bytes 2-4/5", "Content-Length: 3", "Accept-Ranges: bytes"))},
		test{name: "several ranges", request: get("/x", "Range: bytes=0-0,2-2"), app: sends(answer("206 Partial Content", "--b\r\n\r\nh\r\n--b--\r\n", "Content-Type: multipart/byteranges; boundary=b", "Content-Length: 17"))},
		test{name: "a range that cannot be", request: get("/x", "Range: bytes=9-"), app: sends(answer("416 Range Not Satisfiable", "", "Content-Range: bytes */5", "Content-Length: 0"))},
		test{name: "equal lengths", request: get("/x"), app: sends(answer("200 OK", "hi", "Content-Length: 2", "Content-Length: 2"))},
		test{name: "equal lengths in one field", request: get("/x"), app: sends(answer("200 OK", "hi", "Content-Length: 2, 2")), check: oneOf(200, 502)},
		test{name: "Chunked in another case", request: get("/x"), app: sends(answer("200 OK", "2\r\nhi\r\n0\r\n\r\n", "Transfer-Encoding: Chunked"))},
		test{name: "folded fields", request: get("/x"), app: sends(answer("200 OK", "hi", "X-Fold: a\r\n  b\r\n\tc", "Content-Length: 2"))},
		test{name: "one byte in each chunk", request: get("/x"), app: sends(answer("200 OK", strings.Repeat("1\r\nx\r\n", 1000)+"0\r\n\r\n", "Transfer-Encoding: chunked"))},
	)
}

// sizedAnswer sends a body, in two steps if it is long, because scripts are bounded.
func sizedAnswer(body string, fields ...string) []rawapp.Step {
	const most = 64 << 10
	head := rawapp.Send(answer("200 OK", "", append(fields, "Content-Type: text/plain")...))
	if len(body) <= most {
		return []rawapp.Step{head, rawapp.Send(body)}
	}
	// All pieces of a long body are equal.
	return []rawapp.Step{head, {Op: rawapp.OpSend, Data: []byte(body[:most]), N: int64(len(body) / most)}}
}

// contentTypeCases have answers without Content-Type: none may be guessed (RFC 9110,
// section 8.3).
func contentTypeCases() (cases []test) {
	for name, body := range map[string]string{
		"HTML": "<!DOCTYPE html><html><script>alert(1)</script>", "PDF": "%PDF-1.7 x", "JSON": `{"a": 1}`, "PNG": "\x89PNG\r\n\x1a\n", "text": "hello",
		"bytes": "\x00\x01\x02\xff", "empty": "", "long": strings.Repeat("<html>", 2000),
	} {
		length := fmt.Sprintf("Content-Length: %d", len(body))
		for _, variant := range []struct {
			status string
			fields []string
		}{
			{"200 OK", []string{length}}, {"200 OK", []string{length, "X-Content-Type-Options: nosniff"}}, {"200 OK", []string{length, "Cache-Control: no-transform"}},
			{"404 Not Found", []string{length}}, {"500 Oops", []string{length}}, {"200 OK", []string{length, "Content-Type:"}}, {"200 OK", []string{length, "Content-Encoding: gzip"}},
		} {
			cases = append(cases, test{name: fmt.Sprintf("%s, %s %.30q", name, variant.status, strings.Join(variant.fields, ", ")), request: get("/x"), app: sends(bare(variant.status, body, variant.fields...))})
		}
		cases = append(cases,
			test{name: name + ", chunked", request: get("/x"), app: sends(bare("200 OK", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", max(len(body), 1), body+strings.Repeat("x", max(0, 1-len(body)))), "Transfer-Encoding: chunked"))},
			test{name: name + ", until the end", request: get("/x"), app: []rawapp.Step{rawapp.Send(bare("200 OK", body)), {Op: rawapp.OpClose}}},
			test{name: name + ", to HEAD", request: request("HEAD", "/x"), app: sends(bare("200 OK", "", length))},
		)
	}
	return cases
}

func answerHeaderCases() (cases []test) {
	for _, lines := range [][]string{
		{"X-Obs: \xe9\xff\x80"}, {"X-Utf8: é☃"}, {"X-Empty:"}, {"X-Space:   a  b  "}, {"X-Tab:\ta\tb"}, {"X-Long: " + strings.Repeat("v", 32<<10)},
		{"x-lower: 1", "X-UPPER: 2", "x_under: 3", "eTag: \"x\""}, {"X-Twice: 1", "X-Other: 2", "X-Twice: 3", "X-Twice: 1"},
		{"Set-Cookie: a=1; Path=/; HttpOnly", "Set-Cookie: b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "Set-Cookie: c=\"3,4\"; SameSite=Lax"}, {"Set-Cookie: bad cookie \xff"},
		{"Content-Encoding: gzip"}, {"Content-Encoding: br", "Vary: Accept-Encoding"}, {"Content-Type: text/html;charset=UTF-8"}, {"Content-Type: TEXT/HTML"}, {"Content-Type: text/plain", "Content-Type: text/html"},
		{"Content-Disposition: attachment; filename=\"é.txt\""}, {"Date: Sat, 28 Nov 2026 12:00:00 GMT"}, {"Date: nonsense"}, {"Server: Werkzeug/2"}, {"Via: 1.0 other"}, {"Warning: 110 - \"stale\""},
		{"Connection: X-Hop", "X-Hop: 1", "X-End: 2"}, {"Keep-Alive: timeout=5, max=100"}, {"Connection: keep-alive"}, {"Proxy-Connection: keep-alive"}, {"Proxy-Authenticate: Basic"},
		{"WWW-Authenticate: Basic realm=\"x\"", "WWW-Authenticate: Bearer"}, {"Service-Worker-Allowed: /"}, {"Service-Worker-Allowed: /", "Service-Worker-Allowed: /user/"}, {"X-Accel-Buffering: no"},
		{"Location: ../x"}, {"Location: relative"}, {"Location: ?a=b"}, {"Location: https://elsewhere.example/x"}, {"Location: //elsewhere.example/x"}, {"Content-Location: x"}, {"Refresh: 5"}, {"Link: <https://elsewhere.example/a>; rel=preload"},
		{"Content-Security-Policy: frame-ancestors 'self'", "X-Frame-Options: DENY"}, {"Strict-Transport-Security: max-age=1"}, {"Access-Control-Allow-Origin: *"}, {"Alt-Svc: h3=\":443\""},
		{"Cache-Control: public, max-age=5", "Cache-Control: immutable", "Age: 3", "Expires: 0"}, {"ETag: W/\"a\"", "Last-Modified: Sat, 28 Nov 2026 12:00:00 GMT"}, {"Accept-Ranges: none"}, {"Allow: GET, HEAD"}, {"Upgrade: h2c"},
		{"X-!#$%&'*+-.^_`|~: token"}, {"Content-MD5: x"}, {"Content-Language: de"}, {"Server-Timing: a;dur=1"}, {"SourceMap: /x.map"}, {"Clear-Site-Data: \"cookies\""}, {"Retry-After: 3"},
	} {
		name := fmt.Sprintf("%.50q", strings.Join(lines, ", "))
		cases = append(cases, test{name: name, request: get("/x"), app: sends(answer("200 OK", "hi", append(lines, "Content-Length: 2")...))})
	}
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("Set-Cookie: c%d=%d; Path=/", i, i))
	}
	return append(cases, test{name: "100 cookies", request: get("/x"), app: sends(answer("200 OK", "hi", append(many, "Content-Length: 2")...))})
}

func interimCases() []test {
	hints := "HTTP/1.1 103 Early Hints\r\nLink: <https://elsewhere.example/a.css>; rel=preload\r\n\r\n"
	final := answer("200 OK", "hi", "Content-Length: 2")
	return []test{
		{name: "103", request: get("/x"), app: sends(hints + final)},
		{name: "103 twice", request: get("/x"), app: sends(hints + strings.Replace(hints, "a.css", "b.css", 1) + final)},
		{name: "103 alone, then the answer", client: []act{{write: get("/x")}, {await: "103"}, {open: "go"}}, app: []rawapp.Step{rawapp.Send(hints), rawapp.Wait("go"), rawapp.Send(final)}},
		{name: "102", request: get("/x"), app: sends("HTTP/1.1 102 Processing\r\n\r\n" + final)},
		{name: "102, 103", request: get("/x"), app: sends("HTTP/1.1 102 Processing\r\n\r\n" + hints + final)},
		{name: "199", request: get("/x"), app: sends("HTTP/1.1 199 Odd\r\nX-A: 1\r\n\r\n" + final)},
		{name: "103 to HEAD", request: request("HEAD", "/x"), app: sends(hints + answer("200 OK", "", "Content-Length: 2"))},
		{name: "103 to POST", request: request("POST", "/x", "Content-Length: 2") + "ab", app: []rawapp.Step{rawapp.Send(hints), rawapp.Read(), rawapp.Send(final)}},
		{name: "103 before 404", request: get("/x"), app: sends(hints + answer("404 Not Found", "no", "Content-Length: 2"))},
		{name: "103 before 204", request: get("/x"), app: sends(hints + "HTTP/1.1 204 No Content\r\n\r\n")},
		{name: "103 with a Content-Length", request: get("/x"), app: sends("HTTP/1.1 103 Early Hints\r\nLink: <x>\r\nContent-Length: 5\r\n\r\n" + final), check: oneOf(200, 502)},
		// A client that has sent no Expect may get 100 and must ignore it (RFC 9110, section 15.2.1).
		{name: "100 without Expect", request: get("/x"), app: sends("HTTP/1.1 100 Continue\r\n\r\n" + final), check: oneOf(200)},
		{name: "103 to HTTP/1.0", request: "GET {raw}/x HTTP/1.0\r\nHost: hub.example\r\n\r\n", app: sends(hints + final), check: noInterim},
		{name: "without end", request: get("/x"), app: []rawapp.Step{{Op: rawapp.OpSend, Data: []byte("HTTP/1.1 102 Processing\r\n\r\n"), N: 3}, {Op: rawapp.OpClose}}, check: badGateway},
	}
}
