package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// patience limits every wait for something that should happen at once.
const patience = 10 * time.Second

// server is an application that handles each connection as a test says.
type server struct {
	net.Listener
	connections atomic.Int64
}

func serve(t testing.TB, handle func(n int64, c net.Conn, r *bufio.Reader)) *server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Listener: listener}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			n := s.connections.Add(1)
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				handle(n, c, bufio.NewReader(c))
			}()
		}
	}()
	return s
}

// answerAll answers each request on a connection in the same way.
func answerAll(c net.Conn, r *bufio.Reader, answer string) {
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		_, _ = io.WriteString(c, answer)
	}
}

func newPool() *Pool {
	return NewPool(func(ctx context.Context, address string) (net.Conn, error) {
		return (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", address)
	}, time.Now, patience)
}

// body is a Body that a test controls.
type body struct {
	io.Reader
	abandoned chan struct{}
}

func (b *body) Abandon() { close(b.abandoned) }

func newBody(r io.Reader) *body { return &body{r, make(chan struct{})} }

// do sends a request and returns the whole answer.
func do(t testing.TB, p *Pool, address string, req *Request) (*http.Response, string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	x, err := p.Start(ctx, address, req)
	if err != nil {
		return nil, "", err
	}
	defer x.Close()
	res, err := x.Answer()
	if err != nil {
		return nil, "", err
	}
	text, err := io.ReadAll(x)
	return res, string(text), err
}

func get() *Request {
	return &Request{Method: "GET", Target: "/", Host: "app", ContentLength: -1}
}

// A connection carries another request only if nobody can mistake where the next
// answer begins.
func TestConnectionsAreUsedAgain(t *testing.T) {
	for _, row := range []struct {
		name, answer string
		again        bool
	}{
		{"a length", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true},
		{"interim", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true},
		{"close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", false},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false},
		{"more than an answer", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", false},
	} {
		s := serve(t, func(_ int64, c net.Conn, r *bufio.Reader) { answerAll(c, r, row.answer) })
		p := newPool()
		for range 3 {
			if _, text, err := do(t, p, s.Addr().String(), get()); err != nil || text != "ok" {
				t.Errorf("%s: got %q, %v", row.name, text, err)
			}
		}
		if got := s.connections.Load(); (got == 1) != row.again {
			t.Errorf("%s: %d connections for 3 requests, want them used again: %t", row.name, got, row.again)
		}
	}
}

// An application closes idle connections when it likes. No visitor notices.
func TestClosedIdleConnection(t *testing.T) {
	closed := make(chan struct{}, 1)
	s := serve(t, func(n int64, c net.Conn, r *bufio.Reader) {
		const answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
		if n > 1 {
			answerAll(c, r, answer)
			return
		}
		_, _ = http.ReadRequest(r)
		_, _ = io.WriteString(c, answer)
		c.Close()
		closed <- struct{}{}
	})
	p := newPool()
	for range 2 {
		for _, method := range []string{"GET", "POST"} {
			req := get()
			req.Method = method
			if _, text, err := do(t, p, s.Addr().String(), req); err != nil || text != "ok" {
				t.Fatalf("%s: got %q, %v", method, text, err)
			}
			if method == "GET" && s.connections.Load() == 1 {
				<-closed
			}
		}
	}
}

// A request is repeated only if the connection was used before, nothing came back, and
// repeating does no harm.
func TestRepeats(t *testing.T) {
	for _, row := range []struct {
		method string
		want   bool
	}{{"GET", true}, {"HEAD", true}, {"OPTIONS", true}, {"POST", false}, {"PUT", false}, {"DELETE", false}} {
		s := serve(t, func(n int64, c net.Conn, r *bufio.Reader) {
			for first := true; ; first = false {
				if _, err := http.ReadRequest(r); err != nil || n == 1 && !first {
					return // the second request on the first connection gets no answer
				}
				_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
			}
		})
		p := newPool()
		if _, _, err := do(t, p, s.Addr().String(), get()); err != nil {
			t.Fatal(err)
		}
		now := time.Now().Add(settledAfter)
		p.idle.now = func() time.Time { return now }
		req := get()
		req.Method = row.method
		if _, _, err := do(t, p, s.Addr().String(), req); (err == nil) != row.want {
			t.Errorf("%s: got %v, want success: %t", row.method, err, row.want)
		}
		if !row.want && s.connections.Load() != 1 {
			t.Errorf("%s: it was sent twice", row.method)
		}
	}
}

// A request that must not be sent twice takes no connection that has been idle for long,
// and none that has just been used.
func TestConnectionsForWrites(t *testing.T) {
	s := serve(t, func(_ int64, c net.Conn, r *bufio.Reader) { answerAll(c, r, "HTTP/1.1 204 No Content\r\n\r\n") })
	p := newPool()
	now := time.Now()
	p.idle.now = func() time.Time { return now }
	send := func(method string) {
		req := get()
		req.Method = method
		if _, _, err := do(t, p, s.Addr().String(), req); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		pause       time.Duration
		method      string
		connections int64 // that have been opened so far
	}{
		{0, "POST", 1}, {0, "GET", 1}, {0, "PUT", 2}, {settledAfter - 1, "DELETE", 3},
		{settledAfter, "POST", 3}, {0, "POST", 3}, {0, "POST", 3}, {0, "POST", 4}, // three had settled
		{freshFor, "POST", 4}, {freshFor + 1, "POST", 5}, {freshFor + 1, "GET", 5},
	} {
		now = now.Add(step.pause)
		send(step.method)
		if got := s.connections.Load(); got != step.connections {
			t.Errorf("%s after %s: %d connections, want %d", step.method, step.pause, got, step.connections)
		}
	}
}

func TestIdleConnectionsAreBounded(t *testing.T) {
	s := serve(t, func(_ int64, c net.Conn, r *bufio.Reader) { answerAll(c, r, "HTTP/1.1 204 No Content\r\n\r\n") })
	p := newPool()
	var open []*Exchange
	for range 2 * maxIdlePerPod {
		x, err := p.Start(t.Context(), s.Addr().String(), &Request{Method: "GET", Target: "/", Host: "app", Header: http.Header{}})
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, x)
	}
	for _, x := range open {
		if _, err := x.Answer(); err != nil {
			t.Error(err)
		}
		x.Close()
	}
	p.idle.mu.Lock()
	kept := p.idle.byPod[s.Addr().String()]
	count := p.idle.count
	p.idle.mu.Unlock()
	if len(kept) != maxIdlePerPod || count != maxIdlePerPod {
		t.Errorf("%d connections are kept, counted as %d, want %d", len(kept), count, maxIdlePerPod)
	}
	p.idle.sweep()
	if p.idle.count != maxIdlePerPod {
		t.Errorf("%d connections are kept after a moment, want %d", p.idle.count, maxIdlePerPod)
	}
	p.idle.now = func() time.Time { return time.Now().Add(idleTimeout) }
	p.idle.sweep()
	for _, c := range kept {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := c.Conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("an idle connection is not closed: %v", err)
		}
	}
	p.idle.mu.Lock()
	defer p.idle.mu.Unlock()
	if left := p.idle.count + len(p.idle.byPod); left != 0 {
		t.Errorf("%d are left", left)
	}
}

// Malformed answers are errors, and bounded.
func TestMalformedAnswers(t *testing.T) {
	for _, answer := range []string{
		"", "x", "HTTP/1.1", "HTTP/1.1 20", "HTTP/1.1 099 x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\n", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*MaxHead),
		"HTTP/1.1 103 x\r\n\r\n",
	} {
		s := serve(t, func(_ int64, c net.Conn, r *bufio.Reader) {
			_, _ = http.ReadRequest(r)
			_, _ = io.WriteString(c, answer)
		})
		if res, _, err := do(t, newPool(), s.Addr().String(), get()); err == nil {
			t.Errorf("%.50q: got %v, want an error", answer, res)
		}
	}
}

// A body that cannot be read is told from an application that does not answer.
func TestBodyError(t *testing.T) {
	cause := errors.New("bad chunk")
	s := serve(t, func(_ int64, _ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })
	req := &Request{Method: "POST", Target: "/", Host: "app", ContentLength: 10, Body: newBody(io.MultiReader(strings.NewReader("abc"), &failing{cause}))}
	var fromBody *BodyError
	if _, _, err := do(t, newPool(), s.Addr().String(), req); !errors.As(err, &fromBody) || !errors.Is(err, cause) {
		t.Errorf("got %v, want a BodyError of %v", err, cause)
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

// Close returns only when nobody reads the body any more, and abandons one that is
// still on its way.
func TestCloseEndsTheUpload(t *testing.T) {
	s := serve(t, func(_ int64, c net.Conn, r *bufio.Reader) {
		_, _ = r.ReadString('\n')
		_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
		_, _ = io.Copy(io.Discard, r)
	})
	reader, writer := io.Pipe()
	b := newBody(reader)
	x, err := newPool().Start(t.Context(), s.Addr().String(), &Request{Method: "PUT", Target: "/", Host: "app", Header: http.Header{}, ContentLength: -1, Body: b})
	if err != nil {
		t.Fatal(err)
	}
	if res, err := x.Answer(); err != nil || res.StatusCode != 413 || !x.BodyLeft() {
		t.Fatalf("got %v, %v, body left %t", res, err, x.BodyLeft())
	}
	closed := make(chan struct{})
	go func() {
		x.Close()
		close(closed)
	}()
	<-b.abandoned
	select {
	case <-closed:
		t.Error("closed while the body was being read")
	default:
	}
	writer.Close()
	<-closed
}

// Whatever waits for the application ends with its context.
func TestContextEnds(t *testing.T) {
	cause := errors.New("the client has gone")
	for _, answer := range []string{"", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"} {
		s := serve(t, func(_ int64, c net.Conn, r *bufio.Reader) {
			_, _ = http.ReadRequest(r)
			_, _ = io.WriteString(c, answer)
			_, _ = io.Copy(io.Discard, r)
		})
		ctx, cancel := context.WithCancelCause(t.Context())
		x, err := newPool().Start(ctx, s.Addr().String(), &Request{Method: "GET", Target: "/", Host: "app", Header: http.Header{}, ContentLength: -1})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Millisecond, func() { cancel(cause) })
		if _, err = x.Answer(); err == nil {
			_, err = io.ReadAll(x)
		}
		if !errors.Is(err, cause) {
			t.Errorf("%q: got %v, want %v", answer, err, cause)
		}
		x.Close()
	}
}

func TestRefusesLineBreaks(t *testing.T) {
	for _, req := range []*Request{
		{Method: "GET\r\nX: y", Target: "/", Host: "app"}, {Method: "GET", Target: "/ HTTP/1.1\r\nX: y", Host: "app"}, {Method: "GET", Target: "/", Host: "app\nX: y"},
	} {
		if _, err := newPool().Start(t.Context(), "127.0.0.1:1", req); err == nil || !strings.Contains(err.Error(), "line break") {
			t.Errorf("%+v: got %v", req, err)
		}
	}
}

func ExampleBodyError() {
	fmt.Println(&BodyError{io.ErrUnexpectedEOF})
	// Output: read the request's body: unexpected EOF
}

func TestBuffersAreLentAgain(t *testing.T) {
	pool := &Buffers{}
	buffer := pool.Get()
	for range 100 { // with the race detector, sync.Pool drops some at random
		copy(buffer[:], "used")
		pool.Put(buffer)
		if buffer = pool.Get(); string(buffer[:4]) == "used" {
			return
		}
	}
	t.Error("no buffer came back in 100 times")
}

// Transfers that fill small buffers get large ones, as long as there are some.
func TestLargeBuffersAreBounded(t *testing.T) {
	pool := &Buffers{}
	var lent [][]byte
	for range maxLarge + 3 {
		lent = append(lent, pool.Next(pool.Get(), smallBuffer))
	}
	for i, buffer := range lent {
		if large := i < maxLarge; large != (len(buffer) == largeBuffer) {
			t.Errorf("buffer %d has %d bytes", i, len(buffer))
		}
	}
	if kept := pool.Next(lent[0], smallBuffer+1); len(kept) != largeBuffer {
		t.Errorf("a large buffer that is in use became one of %d bytes", len(kept))
	}
	if back := pool.Next(lent[0], smallBuffer); len(back) != smallBuffer {
		t.Errorf("a large buffer that is hardly in use became one of %d bytes", len(back))
	}
	if part := pool.Next(pool.Get(), smallBuffer-1); len(part) != smallBuffer {
		t.Errorf("a small buffer that was not full became one of %d bytes", len(part))
	}
	if again := pool.Next(pool.Get(), smallBuffer); len(again) != largeBuffer {
		t.Errorf("a large buffer that came back was not lent again: %d bytes", len(again))
	}
	for _, buffer := range lent[1:] {
		pool.Put(buffer)
	}
	pool.Put(make([]byte, largeBuffer)) // the one that was lent again
	if n := pool.lent.Load(); n != 0 {
		t.Errorf("%d are counted as lent", n)
	}
}

// The heads of answers, interim ones together with the final one, and trailers are bounded
// in bytes, in lines, and in number. What is just within the bounds passes.
func TestHeadsAreBounded(t *testing.T) {
	const end = "Content-Length: 0\r\n\r\n"
	const chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	interim := func(n int) string { return strings.Repeat("HTTP/1.1 102 P\r\n\r\n", n) }
	for _, row := range []struct {
		name, answer string
		ok           bool
	}{
		{"a field of 60 KiB", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 60<<10) + "\r\n" + end, true},
		{"a field of 64 KiB", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 64<<10) + "\r\n" + end, false},
		{"a field of 10 MiB", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 10<<20) + "\r\n" + end, false},
		{"many fields of 1 KiB", "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: "+strings.Repeat("x", 1<<10)+"\r\n", 70) + end, false},
		{"900 short fields", "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 900) + end, true},
		{"10,000 short fields", "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 10_000) + end, false},
		{"400 interim answers", interim(400) + "HTTP/1.1 200 OK\r\n" + end, true},
		{"2000 interim answers", interim(2000) + "HTTP/1.1 200 OK\r\n" + end, false},
		{"interim answers with a large field each", strings.Repeat("HTTP/1.1 103 E\r\nA: "+strings.Repeat("x", 30<<10)+"\r\n\r\n", 3) + "HTTP/1.1 200 OK\r\n" + end, false},
		{"a trailer of 60 KiB", chunks + "0\r\nA: " + strings.Repeat("x", 60<<10) + "\r\n\r\n", true},
		{"a trailer of 70 KiB", chunks + "0\r\nA: " + strings.Repeat("x", 70<<10) + "\r\n\r\n", false},
		{"a trailer of 10,000 lines", chunks + "0\r\n" + strings.Repeat("A: b\r\n", 10_000) + "\r\n", false},
		{"a body of many lines", "HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + strings.Repeat("a\n", 100_000), true},
		{"chunks of many lines", chunks + strings.Repeat("2\r\na\n\r\n", 50_000) + "0\r\n\r\n", true},
	} {
		s := serve(t, func(_ int64, c net.Conn, r *bufio.Reader) {
			_, _ = http.ReadRequest(r)
			_, _ = io.WriteString(c, row.answer)
			_, _ = io.Copy(io.Discard, r)
		})
		res, _, err := do(t, newPool(), s.Addr().String(), get())
		if (err == nil) != row.ok {
			t.Errorf("%s: got %.100v, %v, want it to pass: %t", row.name, res, err, row.ok)
		}
		if err != nil && !errors.Is(err, errHead) && !strings.Contains(row.name, "interim") { // whose first line is cut
			t.Errorf("%s: got %v, want that it is too large", row.name, err)
		}
	}
}

// A silent application is not asked again.
func TestSilentApplicationIsAskedOnce(t *testing.T) {
	var asked atomic.Int64
	s := serve(t, func(_ int64, c net.Conn, r *bufio.Reader) {
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			if asked.Add(1) == 1 {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		}
	})
	p := newPool()
	p.silence = 100 * time.Millisecond
	if _, text, err := do(t, p, s.Addr().String(), get()); err != nil || text != "ok" {
		t.Fatalf("got %q, %v", text, err)
	}
	if _, _, err := do(t, p, s.Addr().String(), get()); !errors.Is(err, ErrIdle) {
		t.Errorf("got %v, want %v", err, ErrIdle)
	}
	if asked.Load() != 2 {
		t.Errorf("asked %d times, want 2", asked.Load())
	}
}
