package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// A status code that no client understands is answered with 502, once in the log.
func TestStatusCodes(t *testing.T) {
	for _, code := range []string{"000", "099", "20", "+20", "001", "050", "-01", "0x1", "2000", ""} {
		p := startProxy(t, answering(t, "HTTP/1.1 "+code+" x\r\nContent-Length: 0\r\n\r\n"))
		counted := &codeCounter{}
		p.Config.Handler = counted.count(p.Config.Handler)
		p.dial(t).get(t, http.StatusBadGateway, "did not answer")
		if counted.code.Load() != http.StatusBadGateway {
			t.Errorf("%s: counted as %d", code, counted.code.Load())
		}
		if log := p.log.String(); strings.Contains(log, "panic") || strings.Count(log, "\n") != 1 {
			t.Errorf("%s: logged %s, want one line", code, log)
		}
	}
	for _, code := range []int{200, 204, 226, 304, 418, 431, 511, 599, 600, 999} {
		p := startProxy(t, answering(t, fmt.Sprintf("HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n", code)))
		p.dial(t).get(t, code, "")
	}
}

// get sends a GET and checks the answer.
func (w wire) get(t testing.TB, code int, says string) *http.Response {
	t.Helper()
	w.request(t, "GET", base)
	return w.wantAnswer(t, code, says)
}

// No media type is guessed.
func TestNoContentTypeIsAdded(t *testing.T) {
	for _, row := range []struct{ code, header, body string }{
		{"200 OK", "", "<html>hello"}, {"200 OK", "X-Content-Type-Options: nosniff\r\n", "<html>"},
		{"200 OK", "Cache-Control: no-transform\r\n", "<html>"}, {"404 Not Found", "", "<html>"},
		{"200 OK", "", "%PDF-1.4"}, {"200 OK", "", `{"a":1}`}, {"200 OK", "Content-Encoding: gzip\r\n", "\x1f\x8b"}, {"200 OK", "", ""},
	} {
		p := startProxy(t, answering(t, fmt.Sprintf("HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s", row.code, row.header, len(row.body), row.body)))
		res := p.dial(t).get(t, 200+204*strings.Count(row.code, "404"), row.body)
		wantHeaders(t, res.Header, map[string][]string{"Content-Type": nil})
	}
}

// Each part of an answer arrives before the application sends the next, however the
// answer is framed; and so does the head.
func TestPartsArriveAsTheyCome(t *testing.T) {
	for _, row := range []struct {
		name  string
		parts []string // as the application sends them
		want  []string // what the client has got of the body after each
	}{
		{"a length", []string{"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", "ab", "c", "d"}, []string{"", "ab", "abc", "abcd"}},
		{"chunks", []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "2\r\nab", "\r\n1\r\nc\r\n", "1\r\nd\r\n0\r\n\r\n"}, []string{"", "ab", "abc", "abcd"}},
		{"chunks, and a half of the next one's length", []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1", "\r\nc\r\n0\r\n\r\n"}, []string{"ab", "abc"}},
		{"the end of the connection", []string{"HTTP/1.0 200 OK\r\n\r\n", "ab", "c"}, []string{"", "ab", "abc"}},
		{"a length, and the head with it", []string{"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na", "b", "c"}, []string{"a", "ab", "abc"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			next := make(chan string)
			p := startProxy(t, rawApplication(t, func(c wire) {
				c.readHead()
				for part := range next {
					_, _ = io.WriteString(c, part)
				}
			}))
			c := p.dial(t)
			c.request(t, "GET", base)
			next <- row.parts[0]
			res, err := http.ReadResponse(c.reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for i, want := range row.want {
				if i > 0 {
					next <- row.parts[i]
				}
				more := make([]byte, len(want)-len(got))
				if _, err := io.ReadFull(res.Body, more); err != nil {
					t.Fatalf("after part %d: %v", i, err)
				}
				if got += string(more); got != want {
					t.Fatalf("after part %d: got %q, want %q", i, got, want)
				}
			}
			close(next)
			if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
				t.Errorf("got %q, %v, want the end", rest, err)
			}
		})
	}
}

// A client may close its sending side after its request, and read the answer.
func TestHalfClosedClient(t *testing.T) {
	for _, row := range []struct{ name, method, header, body string }{
		{"no body", "GET", "Accept: */*", ""}, {"a body", "POST", "Content-Length: 3", "abc"}, {"chunks", "PUT", "Transfer-Encoding: chunked", "1\r\na\r\n0\r\n\r\n"},
	} {
		p := startProxy(t, application(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, "the answer")
		}))
		c := p.dial(t)
		c.request(t, row.method, base, row.header)
		_, _ = io.WriteString(c, row.body)
		c.closeWrite(t)
		c.wantAnswer(t, 200, "the answer")
	}
}

// The same, where the application takes its time.
func TestHalfClosedClientWaits(t *testing.T) {
	asked, decide := make(chan struct{}), make(chan struct{})
	p := startProxy(t, application(t, func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-decide
		_, _ = io.WriteString(w, "the answer")
	}))
	c := p.dial(t)
	c.request(t, "GET", base)
	receive(t, asked)
	c.closeWrite(t)
	c.wantSilence(t) // the proxy has seen the end by now
	close(decide)
	c.wantAnswer(t, 200, "the answer")
}

// The application learns that a client has gone: it has torn its connection down, or it
// has closed its sending side and nothing was sent to it for a while. It gets no answer.
func TestGoneClient(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T, c wire){
		"torn down": func(t *testing.T, c wire) {
			if err := c.Conn.(*net.TCPConn).SetLinger(0); err != nil { // closing resets the connection
				t.Fatal(err)
			}
			c.Close()
		},
		"half-closed": func(t *testing.T, c wire) {
			c.closeWrite(t)
			c.wantClosed(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			asked, ended := make(chan struct{}), make(chan struct{})
			p := startProxy(t, application(t, func(_ http.ResponseWriter, r *http.Request) {
				close(asked)
				<-r.Context().Done()
				close(ended)
			}))
			p.handler.patience = 10 * time.Millisecond
			counted := &codeCounter{}
			p.Config.Handler = counted.count(p.Config.Handler)
			c := p.dial(t)
			c.request(t, "GET", base)
			receive(t, asked)
			leave(t, c)
			receive(t, ended)
			kubetest.Eventually(t, "the request is counted as that of a client that has gone", func() bool { return counted.code.Load() == statusClientGone })
			if log := p.log.String(); log != "" {
				t.Errorf("logged %s, want nothing: nobody is at fault", log)
			}
		})
	}
}

// codeCounter notes the code of the last request, as the metrics do.
type codeCounter struct{ code atomic.Int64 }

func (n *codeCounter) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(&codeWriter{w, n}, r) })
}

type codeWriter struct {
	http.ResponseWriter
	n *codeCounter
}

func (w *codeWriter) WriteHeader(code int) {
	w.n.code.Store(int64(code))
	w.ResponseWriter.WriteHeader(code)
}
func (w *codeWriter) Broke(code int)              { w.n.code.Store(int64(code)) }
func (w *codeWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// An application may answer and close while the client is still sending. The client
// gets the answer, every time.
func TestAnswerDuringUpload(t *testing.T) {
	const answer = "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 9\r\n\r\ntoo large"
	for _, row := range []struct {
		name  string
		reset bool // the application's socket has unread bytes when it is closed
		size  int
		times int
	}{
		{"resets", true, 8 << 20, 20}, {"ends its side first", false, 8 << 20, 5}, {"a small body", true, 100 << 10, 50},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := startProxy(t, rawApplication(t, func(c wire) {
				c.readHead()
				_, _ = io.WriteString(c, answer)
				if !row.reset {
					_ = c.Conn.(*net.TCPConn).CloseWrite()
					_, _ = io.Copy(io.Discard, c)
				}
			}))
			body := strings.Repeat("x", row.size)
			for n := range row.times {
				c := p.dial(t)
				c.request(t, "PUT", base+"big", fmt.Sprintf("Content-Length: %d", row.size))
				// The client does not read before it has sent everything.
				if _, err := io.WriteString(c, body); err != nil {
					t.Fatalf("%d: write: %v", n, err)
				}
				res := c.wantAnswer(t, http.StatusRequestEntityTooLarge, "too large")
				if !res.Close { // then the connection carries on
					c.request(t, "GET", base)
					c.wantAnswer(t, http.StatusRequestEntityTooLarge, "too large")
				}
				c.Close()
			}
			if log := p.log.String(); log != "" {
				t.Errorf("logged %s", log)
			}
		})
	}
}

// A request that follows one whose body was refused is answered, or its connection is
// closed. Nothing panics.
func TestPipelinedBehindARefusedBody(t *testing.T) {
	p := startProxy(t, rawApplication(t, func(c wire) {
		c.readHead()
		_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
	}))
	const size = 100 << 10
	for range 50 {
		c := p.dial(t)
		go func() {
			fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: hub.example\r\nContent-Length: %d\r\n\r\n%s", base, size, strings.Repeat("x", size))
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: hub.example\r\n\r\n", base)
		}()
		if res := c.wantAnswer(t, http.StatusRequestEntityTooLarge, ""); res.Close {
			c.wantClosed(t)
		} else {
			c.wantAnswer(t, http.StatusRequestEntityTooLarge, "")
		}
		c.Close()
	}
	if log := p.log.String(); strings.Contains(log, "panic") {
		t.Error(log)
	}
}

// The proxy's own refusals reach a client that is still sending, too.
func TestRefusalDuringUpload(t *testing.T) {
	p := startProxy(t, answering(t, "HTTP/1.1 200 OK\r\n\r\n"))
	const size = 8 << 20
	for _, row := range []struct {
		name, path, field string
		code              int
		says              string
	}{
		{"no such instance", instance.BaseURL(kubetest.ID(404)) + "big", "X-A: b", http.StatusNotFound, "no such instance"},
		{"too large a head", base + "big", "X-A: " + strings.Repeat("x", 70<<10), http.StatusRequestHeaderFieldsTooLarge, "larger than 64 KiB"},
		{"no slash", strings.TrimSuffix(base, "/"), "X-A: b", http.StatusTemporaryRedirect, ""},
	} {
		for range 3 {
			c := p.dial(t)
			c.request(t, "PUT", row.path, row.field, fmt.Sprintf("Content-Length: %d", size))
			if _, err := io.WriteString(c, strings.Repeat("x", size)); err != nil {
				t.Fatalf("%s: %v", row.name, err)
			}
			c.wantAnswer(t, row.code, row.says)
			c.wantClosed(t)
		}
	}
}

// Interim answers and trailers reach the client.
func TestInterimAnswersAndTrailers(t *testing.T) {
	p := startProxy(t, answering(t, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"+
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1\r\na\r\n0\r\nX-Sum: 7\r\nX-Late: 8\r\n\r\n", stripPrefix))
	c := p.dial(t)
	c.request(t, "GET", base)
	if got, want := c.readHead(), "HTTP/1.1 103 Early Hints\r\nLink: <"+base+"a.css>; rel=preload\r\n\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := c.readHead(); !strings.HasPrefix(got, "HTTP/1.1 102") {
		t.Errorf("got %q, want 102", got)
	}
	res, body := c.answer(t)
	if res.StatusCode != 200 || body != "a" || res.Header.Get("Link") != "" {
		t.Errorf("got %v %q", res, body)
	}
	wantHeaders(t, res.Trailer, map[string][]string{"X-Sum": {"7"}, "X-Late": {"8"}})
}

// A part of a chunk arrives before the rest of it is sent.
func TestPartsOfChunks(t *testing.T) {
	next := make(chan string)
	p := startProxy(t, rawApplication(t, func(c wire) {
		c.readHead()
		for part := range next {
			_, _ = io.WriteString(c, part)
		}
	}))
	c := p.dial(t)
	c.request(t, "GET", base)
	next <- "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf"
	res, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	half := make([]byte, 4)
	if _, err := io.ReadFull(res.Body, half); err != nil || string(half) != "half" {
		t.Errorf("got %q, %v", half, err)
	}
	next <- "more\r\n0\r\nX-Late: 8\r\n\r\n"
	close(next)
	if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != "more" {
		t.Errorf("got %q, %v", rest, err)
	}
	wantHeaders(t, res.Trailer, map[string][]string{"X-Late": {"8"}})
}

// Malformed chunks of an application break the answer off.
func TestMalformedChunks(t *testing.T) {
	for _, body := range []string{
		"ZZ\r\n", "-1\r\n", "+1\r\na\r\n0\r\n\r\n", "\r\n", "1\r\nab\r\n0\r\n\r\n", "1\r\na", "1\r\na\r\n", "1\r\na\r\n0\r\n", "1\r\na\r\n0\r\nx\r\n\r\n",
		strings.Repeat("f", 17) + "\r\n", "8000000000000000\r\n", "1;" + strings.Repeat("x", 8<<10) + "\r\na\r\n0\r\n\r\n",
	} {
		p := startProxy(t, rawApplication(t, func(c wire) {
			c.readHead()
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+body)
		}))
		c := p.dial(t)
		c.request(t, "GET", base)
		res, err := http.ReadResponse(c.reader, nil)
		if err != nil {
			continue // broken before anything was sent
		}
		if got, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("%.20q: got %q as a whole answer", body, got)
		}
	}
}

// HTTP/1.0 has no other sign of a broken answer than a torn connection.
func TestBrokenAnswerToAnOldClient(t *testing.T) {
	p := startProxy(t, answering(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZZ\r\n"))
	c := p.dial(t)
	fmt.Fprintf(c, "GET %s HTTP/1.0\r\nHost: hub.example\r\n\r\n", base)
	if answer, err := io.ReadAll(c); err == nil {
		t.Errorf("got %q as a whole answer", answer)
	}
}

// The same, while the rest of an upload is dropped.
func TestBrokenAnswerToAnOldUpload(t *testing.T) {
	p := startProxy(t, answering(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZZ\r\n"))
	c := p.dial(t)
	fmt.Fprintf(c, "PUT %s HTTP/1.0\r\nHost: hub.example\r\nContent-Length: 1000\r\n\r\nhello", base)
	if answer, err := io.ReadAll(c); err == nil {
		t.Errorf("got %q as a whole answer", answer)
	}
}

// A request with a body cannot change the protocol: two would read the connection.
func TestUpgradeWithABody(t *testing.T) {
	p := startProxy(t, rawApplication(t, func(c wire) {
		c.readHead()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		_, _ = io.Copy(io.Discard, c)
	}))
	c := p.dial(t)
	c.request(t, "POST", base, "Connection: upgrade", "Upgrade: x", "Content-Length: 100000000")
	go func() { _, _ = io.Copy(c, strings.NewReader(strings.Repeat("x", 8<<20))) }()
	c.wantAnswer(t, http.StatusBadGateway, "did not answer")
}

// An upload that breaks off while the answer is under way is the client's doing.
func TestUploadBreaksDuringTheAnswer(t *testing.T) {
	p := startProxy(t, rawApplication(t, func(c wire) {
		c.readHead()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
		_, _ = io.Copy(io.Discard, c)
	}))
	counted := &codeCounter{}
	p.Config.Handler = counted.count(p.Config.Handler)
	c := p.dial(t)
	c.request(t, "PUT", base, "Content-Length: 10")
	if got := c.readHead(); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Fatalf("got %q", got)
	}
	c.Close()
	kubetest.Eventually(t, "the request is counted as that of a client that has gone", func() bool { return counted.code.Load() == statusClientGone })
}
