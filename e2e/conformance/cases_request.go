package conformance

import (
	"fmt"
	"strings"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/rawapp"
)

func methodCases() (cases []test) {
	for _, method := range []string{
		"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE",
		"LOCK", "UNLOCK", "REPORT", "SEARCH", "QUERY", "PURGE", "M-SEARCH", "BREW", "get", "Post", "pRoPfInD", "X", "!#$%&'*+-.^_`|~",
	} {
		cases = append(cases, test{name: method, request: request(method, "/x"), app: whole()})
		if method != "HEAD" && method != "TRACE" {
			cases = append(cases, test{name: method + " with a body", request: request(method, "/x", "Content-Length: 4") + "body", app: whole()})
		}
	}
	return append(cases,
		test{name: "OPTIONS *", request: "OPTIONS * HTTP/1.1\r\nHost: hub.example\r\n\r\n", app: whole(), check: ownAnswer(200, 204, 404)},
		test{name: "CONNECT", request: "CONNECT hub.example:443 HTTP/1.1\r\nHost: hub.example:443\r\n\r\n", app: whole(), check: ownAnswer(400, 404, 405, 501)},
		test{name: "absolute form", request: "GET http://other.example{raw}/x%2Fy?z HTTP/1.1\r\nHost: hub.example\r\n\r\n", app: whole()},
		test{name: "HTTP/1.0", request: "GET {raw}/x HTTP/1.0\r\nHost: hub.example\r\n\r\n", app: whole(), mayClose: true},
		test{name: "HTTP/1.0, kept", request: "GET {raw}/x HTTP/1.0\r\nHost: hub.example\r\nConnection: keep-alive\r\n\r\n", app: whole(), mayClose: true},
		test{name: "empty lines before", methods: []string{"GET"}, request: "\r\n" + get("/x"), app: whole(), check: oneOf(200, 400)},
	)
}

func pathCases() (cases []test) {
	for _, rest := range []string{
		"", "/", "/a%2Fb", "/a%2fb", "/a%2Fb|c", `/a%2Fb"c`, "/a%2Fé", "/é", "/a%2F\xff", "/%ff%fe", "/x%3By|z", "/x;y", "/x;v=1,2/y;", "//", "//twice", "///",
		"/a//b///c", "/.", "/..", "/./x", "/../x", "/a/../b/./c/..", "/%2e%2e/x", "/%2E", "/..%2fx", "/a%5Cb", `/a\b`, "/a^b", "/a`b", "/a{b}", "/a<b>", "/[x]", "/a%5Bx%5D",
		"/a%20b", "/a+b", "/%41%42", "/%7Euser", "/~user", "/a%25b", "/a%252Fb", "/a:b@c", "/a=b&c", "/a$b!c'd(e)f*g,h", "/-._~", "/a%00b", "/a%0D%0Ab", "/a%3Fb", "/a%23b", "/a*", "/*",
		"/http://x/y", "/user/0/x", "/a%2F|%2F%7C", "/caf%C3%A9/é|%2F", "/a\x7fb",
		"/" + strings.Repeat("0123456789", 800), "/" + strings.Repeat("a/", 500), "/" + strings.Repeat("%2F", 500),
	} {
		c := test{name: fmt.Sprintf("%.40q", rest), request: get(rest), app: whole()}
		if strings.Contains(rest, "\x7f") {
			c.check = oneOf(400) // a control byte: refused before it reaches anybody
		}
		cases = append(cases, c)
	}
	for _, rest := range []string{"/a%zzb", "/%", "/%2", "/a%", "/%%41"} {
		cases = append(cases, test{name: fmt.Sprintf("invalid escape %q", rest), request: get(rest), app: whole(), check: oneOf(200, 400)})
	}
	return cases
}

func queryCases() (cases []test) {
	for _, query := range []string{
		"?", "??", "?&", "?=", "?a", "?a=", "?=b", "?a=1&a=2&b", "?a=1;b=2", "?;", "?a=%zz", "?%", "?a=%", "?a=b+c", "?a=b%20c", "?a=b%2Bc", "?a=/x?y", "?a=[1]&b[]=2",
		"?a=|", `?a="b"`, "?a=é", "?a=\xff", "?a=%C3%A9", "?a={b}", "?a=<b>", "?a=b\\c", "?a=^`", "?a=http://x/y?z#", "?url=%2Fuser%2F1", "?a=%00", "?a=%2e%2e", "?jsonp=a.b(c)",
		"?" + strings.Repeat("x=1&", 1500), "?token=abc&next=/lab", "?a=b#c",
	} {
		cases = append(cases, test{name: fmt.Sprintf("%.40q", query), request: get("/x"+query, "Accept: */*"), app: whole()})
	}
	return cases
}

func requestHeaderCases() (cases []test) {
	for _, lines := range [][]string{
		{"Accept: text/html", "Accept-Encoding: gzip, br", "User-Agent: Mozilla/5.0"}, {"User-Agent:"}, {"Accept-Encoding: identity"},
		{"x-lower: 1", "X-UPPER: 2", "x_under: 3"}, {"X-Empty:"}, {"X-Space:   a  b  "}, {"X-Tab:\ta\tb\t"}, {"X-Obs: \xe9\xff\x80"}, {"X-Utf8: é☃"},
		{"X-Twice: 1", "X-Twice: 2", "X-Other: 3", "X-Twice: 1"}, {"Cookie: a=1; b=2"}, {"Cookie: a=1", "Cookie: b=2"}, {"Cookie: a=\"x y\"; b=,;c"},
		{"X-Long: " + strings.Repeat("v", 16<<10)}, {"Authorization: token abc"}, {"Authorization: Basic dTpw"}, {"Authorization: token {key}"},
		{"Proxy-Authorization: Basic dTpw"}, {"Proxy-Connection: keep-alive"}, {"Keep-Alive: timeout=5"}, {"TE: gzip"}, {"TE: trailers", "Connection: TE"},
		{"Connection: X-Hop, keep-alive", "X-Hop: 1", "X-End: 2"}, {"Connection: close"}, {"Connection: close, X-Hop", "X-Hop: 1"}, {"Connection: keep-alive"},
		{"Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABk"}, {"Upgrade: foo/1"},
		{"X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https"}, {"Via: 1.1 other"}, {"Forwarded: for=203.0.113.9"},
		{"If-None-Match: \"a\", W/\"b\"", "If-Modified-Since: Sat, 28 Nov 2026 12:00:00 GMT"}, {"Range: bytes=0-9"}, {"Range: bytes=0-0,-1"}, {"Range: lines=1"}, {"If-Range: \"a\"", "Range: bytes=5-"},
		{"Origin: http://hub.example", "Referer: http://hub.example/user/x/"}, {"Origin: null"}, {"Sec-Fetch-Site: same-origin", "Sec-CH-UA: \"x\";v=\"1\""},
		{"Content-Type: application/json"}, {"Max-Forwards: 3"}, {"Cache-Control: no-cache", "Pragma: no-cache"}, {"Date: Sat, 28 Nov 2026 12:00:00 GMT"}, {"From: a@b.example"},
		{"Accept: */*;q=0.1", "Accept: text/html"}, {"X-Quoted: \"a, b\", c"}, {"X-!#$%&'*+-.^_`|~: token"}, {"Transfer-Encoding-X: chunked"}, {"Trailer: X-End"}, {"Destination: http://elsewhere.example/x"},
	} {
		name := strings.Join(lines, ", ")
		cases = append(cases, test{name: fmt.Sprintf("%.50q", name), request: get("/x", lines...), app: whole(), mayClose: strings.Contains(name, "Connection: close")})
	}
	many := make([]string, 150)
	for i := range many {
		many[i] = fmt.Sprintf("X-Many-%d: %d", i, i)
	}
	return append(cases,
		test{name: "150 fields", request: get("/x", many...), app: whole()},
		test{name: "a host with a port", request: "GET {raw}/x HTTP/1.1\r\nHost: Hub.Example:8000\r\n\r\n", app: whole()},
		test{name: "a host that is an IPv6 address", request: "GET {raw}/x HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n", app: whole()},
		test{name: "an empty host", request: "GET {raw}/x HTTP/1.1\r\nHost:\r\n\r\n", app: whole(), check: oneOf(200, 400)},
	)
}

func requestBodyCases() (cases []test) {
	for _, method := range []string{"POST", "PUT", "GET", "DELETE"} {
		cases = append(cases,
			test{name: method + " without a body", request: request(method, "/x"), app: whole()},
			test{name: method + " Content-Length 0", request: request(method, "/x", "Content-Length: 0"), app: whole()},
			test{name: method + " Content-Length", request: request(method, "/x", "Content-Length: 11", "Content-Type: text/plain") + "hello world", app: whole()},
			test{name: method + " chunked", request: request(method, "/x", "Transfer-Encoding: chunked") + "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", app: whole()},
			test{name: method + " chunked, empty", request: request(method, "/x", "Transfer-Encoding: chunked") + "0\r\n\r\n", app: whole()},
			test{name: method + " chunked, extensions", request: request(method, "/x", "Transfer-Encoding: chunked") + "5;a=1;b=\"x\"\r\nhello\r\n0;z\r\n\r\n", app: whole()},
			test{name: method + " chunked, trailers", request: request(method, "/x", "Transfer-Encoding: chunked", "Trailer: X-Sum, X-Two") + "A\r\n0123456789\r\n0\r\nX-Sum: abc\r\nX-Two: 2\r\n\r\n", app: whole()},
		)
	}
	for _, size := range []int{1, 4095, 4096, 4097, 32 << 10, 65536, 1 << 20} {
		cases = append(cases, test{name: fmt.Sprintf("%d bytes", size),
			request: request("POST", "/x", fmt.Sprintf("Content-Length: %d", size)) + strings.Repeat("\x00\xff\r\n", size/4+1)[:size], app: whole()})
	}
	return append(cases,
		test{name: "one byte in each chunk", request: request("POST", "/x", "Transfer-Encoding: chunked") + strings.Repeat("1\r\nx\r\n", 1000) + "0\r\n\r\n", app: whole()},
		test{name: "Chunked in another case", request: request("POST", "/x", "Transfer-Encoding: Chunked") + "1\r\nx\r\n0\r\n\r\n", app: whole()},
		test{name: "encoded content", request: request("POST", "/x", "Content-Encoding: gzip", "Content-Length: 4") + "\x1f\x8b\x08\x00", app: whole()},
		test{name: "equal lengths", request: request("POST", "/x", "Content-Length: 2", "Content-Length: 2") + "ab", app: whole(), check: oneOf(200, 400)},
		test{name: "a body that the application does not read", request: request("POST", "/x", "Content-Length: 5") + "hello", app: []rawapp.Step{ok()}, mayClose: true, bodyMayBeCut: true},
		test{name: "a body in pieces, each answered", client: []act{
			{write: request("POST", "/x", "Content-Length: 8") + "aaaa"}, {await: "got one"}, {write: "bbbb"},
		}, app: []rawapp.Step{{Op: rawapp.OpRead, N: 4}, rawapp.Send("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\ngot one"), {Op: rawapp.OpRead, N: 4}, rawapp.Send(" got two")}, mayClose: true},
		test{name: "chunks in pieces, each answered", client: []act{
			{write: request("POST", "/x", "Transfer-Encoding: chunked") + "4\r\naaaa\r\n"}, {await: "got one"}, {write: "4\r\nbbbb\r\n0\r\n\r\n"},
		}, app: []rawapp.Step{{Op: rawapp.OpRead, N: 9}, rawapp.Send("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\ngot one"), {Op: rawapp.OpRead, N: 14}, rawapp.Send(" got two")}, mayClose: true},
	)
}

func expectCases() []test {
	const wants = "Expect: 100-continue"
	upload := request("PUT", "/x", wants, "Content-Length: 5")
	chunked := request("PUT", "/x", wants, "Transfer-Encoding: chunked")
	proceed := rawapp.Send("HTTP/1.1 100 Continue\r\n\r\n")
	refuse := func(status string) rawapp.Step { return rawapp.Send(answer(status, "no", "Content-Length: 2")) }
	closing := func(status string) rawapp.Step {
		return rawapp.Send(answer(status, "no", "Content-Length: 2", "Connection: close"))
	}
	var cases []test
	for _, status := range []string{"417 Expectation Failed", "413 Content Too Large", "401 Unauthorized", "200 OK", "303 See Other", "500 Oops"} {
		cases = append(cases,
			test{name: "refused with " + status, client: []act{{write: upload}}, app: []rawapp.Step{refuse(status), {Op: rawapp.OpLinger}}, check: refusedBeforeContinue(status), mayClose: true},
			test{name: "refused and closed with " + status, client: []act{{write: upload}}, app: []rawapp.Step{closing(status), {Op: rawapp.OpClose}}, check: refusedBeforeContinue(status)},
			test{name: "chunked, refused with " + status, client: []act{{write: chunked}}, app: []rawapp.Step{closing(status), {Op: rawapp.OpClose}}, check: refusedBeforeContinue(status)},
		)
	}
	return append(cases,
		test{name: "continued", client: []act{{write: upload}, {await: "100 Continue"}, {write: "hello"}}, app: []rawapp.Step{proceed, rawapp.Read(), ok()}},
		test{name: "continued, chunked", client: []act{{write: chunked}, {await: "100 Continue"}, {write: "5\r\nhello\r\n0\r\n\r\n"}}, app: []rawapp.Step{proceed, rawapp.Read(), ok()}},
		test{name: "continued late", client: []act{{write: upload}, {open: "go"}, {await: "100 Continue"}, {write: "hello"}}, app: []rawapp.Step{rawapp.Wait("go"), proceed, rawapp.Read(), ok()}},
		test{name: "hints, then continued", client: []act{{write: upload}, {await: "100 Continue"}, {write: "hello"}},
			app: []rawapp.Step{rawapp.Send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), proceed, rawapp.Read(), ok()}},
		test{name: "nothing is said before the application says it", client: []act{{write: upload}, {open: "go"}},
			app: []rawapp.Step{rawapp.Wait("go"), closing("413 Content Too Large"), {Op: rawapp.OpClose}}, check: refusedBeforeContinue("413")},
		test{name: "a client that does not wait", request: upload + "hello", app: []rawapp.Step{rawapp.Read(), ok()}, check: oneOf(200)},
		test{name: "another case", client: []act{{write: request("PUT", "/x", "Expect: 100-Continue", "Content-Length: 5")}, {await: "100 Continue"}, {write: "hello"}}, app: []rawapp.Step{proceed, rawapp.Read(), ok()}},
		test{name: "refused after a part", client: []act{{write: upload}, {await: "100 Continue"}, {write: "he"}, {await: "413"}},
			app: []rawapp.Step{proceed, {Op: rawapp.OpRead, N: 2}, closing("413 Content Too Large"), {Op: rawapp.OpLinger}}, check: oneOf(413)},
	)
}
