package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"time"
)

// The application gets the path's bytes as the client sent them. Only bytes that a
// path cannot have are escaped.
func TestTargetBytes(t *testing.T) {
	targets := make(chan string, 1)
	for _, strip := range []bool{false, true} {
		inst := rawApplication(t, func(c wire) {
			for head := c.readHead(); head != ""; head = c.readHead() {
				targets <- strings.Fields(head)[1]
				_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
			}
		})
		inst.StripPrefix = strip
		c := startProxy(t, inst).dial(t)
		for sent, want := range map[string]string{
			"": "", "a%2Fb|c": "a%2Fb%7Cc", `a%2Fb"c`: "a%2Fb%22c", "a%2Fé": "a%2F%C3%A9", "x%3By|z": "x%3By%7Cz", "é/%e9": "%C3%A9/%e9",
			"a%2fb": "a%2fb", "%61%7E": "%61%7E", "a//b/./../c": "a//b/./../c", "/a": "/a", "a;b=c,d": "a;b=c,d", "a#b": "a%23b", "{a}": "%7Ba%7D",
			"a[1]`^": "a[1]%60%5E", `a\b`: "a%5Cb", "a:b@c!$&'()*+,;=~": "a:b@c!$&'()*+,;=~", "<>": "%3C%3E", "a%20b": "a%20b",
			"?": "?", "a?b?c=/%2F|\"é": "a?b?c=/%2F|\"é", "?a;b": "?a;b", "?%zz": "?%zz", "?a+b%20": "?a+b%20",
		} {
			want = base + want
			if strip {
				want = "/" + strings.TrimPrefix(want, base)
			}
			for _, form := range []string{"", "http://hub.example"} {
				c.request(t, "GET", form+base+sent)
				c.wantAnswer(t, http.StatusNoContent, "")
				if got := receive(t, targets); got != want {
					t.Errorf("strip-prefix %t: %s%q arrived as %q, want %q", strip, form, sent, got, want)
				}
			}
		}
	}
}

// X-Forwarded-Prefix says what was taken off the path.
func TestForwardedPrefix(t *testing.T) {
	for _, row := range []struct {
		strip bool
		want  []string
	}{{true, []string{strings.TrimSuffix(base, "/")}}, {false, nil}} {
		var seen http.Header
		p := startProxy(t, application(t, func(_ http.ResponseWriter, r *http.Request) { seen = r.Header.Clone() }))
		inst := p.handler.deps.Instances.(knownInstances)
		for id, i := range inst {
			i.StripPrefix = row.strip
			inst[id] = i
		}
		p.get(t, base, "X-Forwarded-Prefix", "/forged", "Forwarded", "for=forged")
		wantHeaders(t, seen, map[string][]string{"X-Forwarded-Prefix": row.want, "Forwarded": nil})
	}
}

// The application learns that a request came by the proxy, and no visitor can pretend it.
func TestPresentsTheToken(t *testing.T) {
	for _, upgrade := range []string{"", "websocket"} {
		var seen http.Header
		inst := application(t, func(_ http.ResponseWriter, r *http.Request) { seen = r.Header.Clone() })
		inst.Token = instance.Token{Name: "Authorization", Value: "token " + kubetest.Token}
		p := startProxy(t, inst)
		fields := []string{"Authorization", "token forged", "Connection", "Authorization, Upgrade"}
		if upgrade != "" {
			fields = append(fields, "Upgrade", upgrade)
		}
		p.get(t, base, fields...)
		wantHeaders(t, seen, map[string][]string{"Authorization": {"token " + kubetest.Token}})
	}
}

// A request that a page of another origin causes is not shown as the visitor's.
func TestKeepsTheTokenFromOtherOrigins(t *testing.T) {
	var seen http.Header
	inst := application(t, func(_ http.ResponseWriter, r *http.Request) { seen = r.Header.Clone() })
	inst.Token = instance.Token{Name: "X-Binder-Token", Value: kubetest.Token}
	p := startProxy(t, inst)
	for _, row := range []struct {
		fields []string
		shown  bool
	}{
		{nil, true},
		{[]string{"Origin", "http://hub.example:8000"}, true},
		{[]string{"Origin", "http://HUB.example:8000", "Sec-Fetch-Site", "same-origin"}, true},
		{[]string{"Origin", "https://notebooks.example", "X-Forwarded-Host", "notebooks.example"}, true},
		{[]string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors"}, true},
		{[]string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate"}, true},
		{[]string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, true},
		{[]string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, false},
		{[]string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "websocket"}, false},
		{[]string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Referer", "http://hub.example:8000/"}, true},
		{[]string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Referer", "http://elsewhere.example/"}, false},
		{[]string{"Origin", "http://elsewhere.example"}, false},
		{[]string{"Origin", "http://elsewhere.example", "Sec-Fetch-Site", "same-origin"}, false},
		{[]string{"Origin", "http://hub.example.elsewhere.example"}, false},
		{[]string{"Origin", "http://hub.example"}, false},
		{[]string{"Origin", "null"}, false},
		{[]string{"Origin", ""}, false},
		{[]string{"Origin", "http://elsewhere.example", "Connection", "Upgrade", "Upgrade", "websocket"}, false},
	} {
		p.get(t, base, row.fields...)
		if got := seen.Get("X-Binder-Token") != ""; got != row.shown {
			t.Errorf("%q: the token is shown: %t, want %t", row.fields, got, row.shown)
		}
	}
}

// The application gets the body framed as the client did, with its trailers.
func TestBodyFraming(t *testing.T) {
	type arrived struct {
		length  int64
		coding  []string
		body    string
		trailer http.Header
	}
	requests := make(chan arrived, 1)
	p := startProxy(t, application(t, func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		requests <- arrived{r.ContentLength, r.TransferEncoding, string(body), r.Trailer}
	}))
	c := p.dial(t)
	for _, row := range []struct {
		header, body string
		want         arrived
	}{
		{"Accept: */*", "", arrived{}},
		{"Content-Length: 0", "", arrived{}},
		{"Content-Length: 3", "abc", arrived{3, nil, "abc", nil}},
		{"Transfer-Encoding: chunked", "3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", arrived{-1, []string{"chunked"}, "abcde", nil}},
		{"Transfer-Encoding: chunked", "0\r\n\r\n", arrived{-1, []string{"chunked"}, "", nil}},
		{"Transfer-Encoding: chunked\r\nTrailer: X-Sum", "1\r\na\r\n0\r\nX-Sum: 7\r\n\r\n",
			arrived{-1, []string{"chunked"}, "a", http.Header{"X-Sum": {"7"}}}},
	} {
		c.request(t, "POST", base, row.header)
		_, _ = io.WriteString(c, row.body)
		c.wantAnswer(t, 200, "")
		if got := receive(t, requests); fmt.Sprint(got) != fmt.Sprint(row.want) {
			t.Errorf("%s: got %+v, want %+v", row.header, got, row.want)
		}
	}
}

// A request that is cut short or malformed is answered with 400, and what follows it is
// not taken for a request.
func TestBrokenRequest(t *testing.T) {
	const next = "GET /user/next HTTP/1.1\r\nHost: hub.example\r\n\r\n"
	for _, row := range []struct{ name, header, body string }{
		{"a bad chunk", "Transfer-Encoding: chunked", "ZZ\r\n" + next},
		{"a bad chunk after a good one", "Transfer-Encoding: chunked", "1\r\na\r\nZZ\r\n" + next},
		{"a chunk without its end", "Transfer-Encoding: chunked", "1\r\nabc\r\n0\r\n\r\n" + next},
		{"an endless chunk length", "Transfer-Encoding: chunked", strings.Repeat("f", 20) + "\r\n" + next},
		{"a short body", "Content-Length: 10", "abc"},
		{"chunks without an end", "Transfer-Encoding: chunked", "1\r\na\r\n"},
	} {
		p := startProxy(t, rawApplication(t, func(c wire) { _, _ = io.Copy(io.Discard, c) }))
		c := p.dial(t)
		c.request(t, "PUT", base+"f", row.header)
		_, _ = io.WriteString(c, row.body)
		c.closeWrite(t)
		if res := c.wantAnswer(t, http.StatusBadRequest, "body of the request"); !res.Close {
			t.Errorf("%s: the connection is not closed", row.name)
		}
		c.wantClosed(t)
		if log := p.log.String(); strings.Contains(log, "did not answer") {
			t.Errorf("%s: the instance is blamed: %s", row.name, log)
		}
	}
}

// HTTP/1.0 knows neither the expectation nor interim answers (RFC 9110, sections 10.1.1
// and 15.2).
func TestExpectOfAnOldClient(t *testing.T) {
	p := startProxy(t, application(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "got %s, expected %q", body, r.Header["Expect"])
	}))
	c := p.dial(t)
	fmt.Fprintf(c, "PUT %s HTTP/1.0\r\nHost: hub.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", base)
	c.wantAnswer(t, 200, "got hello, expected []")
}

// What the client expects is the application's to grant.
func TestExpectContinue(t *testing.T) {
	const head = "HTTP/1.1 100 Continue\r\n\r\n"
	for _, row := range []struct {
		name      string
		interim   string // what the application says before the body
		sendFirst string // when the client sends although nobody has said 100: with the "head", or "later"
		answer    string
		code      int
		continues bool
	}{
		{"accepts", head, "", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, true},
		{"refuses", "", "", "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno", 417, false},
		{"answers without the body", "", "", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, false},
		{"says nothing to a client that does not wait", "", "head", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, false},
		{"says nothing to a client that waits for a while", "", "later", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			asked, decide := make(chan string), make(chan struct{})
			p := startProxy(t, rawApplication(t, func(c wire) {
				asked <- c.readHead()
				<-decide
				_, _ = io.WriteString(c, row.interim)
				if row.continues || row.sendFirst != "" {
					body := make([]byte, 5)
					if _, err := io.ReadFull(c, body); err != nil || string(body) != "hello" {
						t.Errorf("the application got %q, %v", body, err)
					}
				}
				_, _ = io.WriteString(c, row.answer)
			}))
			c := p.dial(t)
			body := ""
			if row.sendFirst == "head" {
				body = "hello"
			}
			fmt.Fprintf(c, "PUT %s HTTP/1.1\r\nHost: hub.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n%s", base, body)
			if got := receive(t, asked); !strings.Contains(got, "Expect: 100-continue") {
				t.Errorf("the application is not asked: %q", got)
			}
			if row.sendFirst == "" {
				c.wantSilence(t)
			}
			close(decide)
			if row.sendFirst == "later" {
				_, _ = io.WriteString(c, "hello")
			}
			if row.continues {
				if got := c.readHead(); got != head {
					t.Fatalf("the client got %q, want %q", got, head)
				}
				_, _ = io.WriteString(c, "hello")
			}
			res, _ := http.ReadResponse(c.reader, nil)
			for res != nil && res.StatusCode == 100 { // to a client that did not wait
				res, _ = http.ReadResponse(c.reader, nil)
			}
			if res == nil || res.StatusCode != row.code {
				t.Errorf("the client got %v, want %d", res, row.code)
			}
		})
	}
}

// A body that comes with its head may look like the end of a head.
func TestHeadEnd(t *testing.T) {
	for _, row := range []struct {
		reads []string
		want  bool
	}{
		{[]string{"GET / HTTP/1.1\r\n\r\n"}, true},
		{[]string{"GET / HTTP/1.1\r\nA: b\r", "\n\r", "\n"}, true},
		{[]string{"GET / HTTP/1.1\r\n\r", "\n"}, true},
		{[]string{"GET / HTTP/1.1\r\n", "\r\n"}, true},
		{[]string{"GET / HTTP/1.1\r\n\r\nhello"}, false},
		{[]string{"GET / HTTP/1.1\r\n\r\nhello\r\n\r\n"}, false},
		{[]string{"GET / HTTP/1.1\r\n\r", "\nhello\r\n\r\n"}, false},
		{[]string{"GET / HTTP/1.1\r\n\r\n", "5\r\nhello\r\n0\r\n\r\nx"}, false},
		{[]string{"G", "E"}, false},
		{[]string{"GET / HTTP/1.1\r\n\r\n\r\n\r\n"}, false},
	} {
		var h headEnd
		for _, read := range row.reads {
			h.scan([]byte(read))
		}
		if h.exact != row.want {
			t.Errorf("%q: got %t, want %t", row.reads, h.exact, row.want)
		}
	}
}

// Interim answers and the 100 for a client that does not wait do not mix.
func TestInterimAnswersWhileTheClientSends(t *testing.T) {
	const times = 50
	p := startProxy(t, rawApplication(t, func(c wire) {
		for c.readHead() != "" {
			for range 20 {
				_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: <a>; rel=preload\r\n\r\n")
			}
			if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	}))
	c := p.dial(t)
	for range times {
		fmt.Fprintf(c, "PUT %s HTTP/1.1\r\nHost: hub.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", base)
		for code := 0; code != 200; {
			res, err := http.ReadResponse(c.reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			if code = res.StatusCode; code != 100 && code != 103 && code != 200 {
				t.Fatalf("got %d", code)
			}
		}
	}
}

// A trailer cannot carry what frames, routes or authorises a message.
func TestTrailersThatAreNotPassed(t *testing.T) {
	trailers := make(chan http.Header, 1)
	p := startProxy(t, application(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		trailers <- r.Trailer
	}))
	c := p.dial(t)
	c.request(t, "POST", base, "Transfer-Encoding: chunked")
	_, _ = io.WriteString(c, "0\r\nX-Sum: 7\r\nAuthorization: token "+testAPIKey+"\r\nHost: x\r\nCookie: a=b\r\n\r\n")
	c.wantAnswer(t, 200, "")
	wantHeaders(t, receive(t, trailers), map[string][]string{"X-Sum": {"7"}, "Authorization": nil, "Host": nil, "Cookie": nil})
}

// wantSilence checks that nothing has come. What would come wrongly comes at once, so
// a short wait finds it nearly always; a right answer never fails.
func (w wire) wantSilence(t testing.TB) {
	t.Helper()
	_ = w.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if got, err := w.reader.Peek(1); err == nil {
		t.Errorf("got %q, want nothing yet", got)
	}
	_ = w.SetReadDeadline(time.Now().Add(10 * time.Second))
}
