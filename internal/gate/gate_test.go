package gate

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// counts are the Metrics of a test.
type counts struct {
	mu      sync.Mutex
	open    int
	refused map[string]int
}

func (c *counts) ConnectionsOpen(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = n
}

func (c *counts) ConnectionRefused(limit string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused[limit]++
}

func (c *counts) of(limit string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused[limit]
}

func (c *counts) isOpen(n int) func() bool {
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.open == n
	}
}

// testGate is a server behind a gate. The request for /wait is answered when wait is closed.
type testGate struct {
	*Gate
	*counts
	address string
	wait    chan struct{}
}

// start starts a server. Peers in 127.1.0.0/16 are trusted proxies.
func start(t *testing.T, limits Limits) *testGate {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &testGate{counts: &counts{refused: map[string]int{}}, address: inner.Addr().String(), wait: make(chan struct{})}
	g.Gate = New(Deps{
		Limits: limits, Metrics: g.counts,
		Client: func(remote string, forwarded []string) netip.Prefix {
			address := netip.MustParseAddrPort(remote).Addr()
			if len(forwarded) > 0 {
				address = netip.MustParseAddr(forwarded[0])
			}
			return netip.PrefixFrom(address, 32)
		},
		Trusts: func(remote string) bool { return strings.HasPrefix(remote, "127.1.") },
	})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-g.wait
		}
		var cookies []string
		for _, line := range r.Header["Cookie"] {
			cookies = append(cookies, fmt.Sprint(len(line)))
		}
		_, _ = io.WriteString(w, "cookies: "+strings.Join(cookies, ","))
	})
	refuse := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) })
	server := &http.Server{Handler: g.Handler(handler, refuse), ConnContext: ConnContext, ConnState: g.ConnState, MaxHeaderBytes: 1 << 20}
	go func() { _ = server.Serve(g.Listen(inner)) }()
	t.Cleanup(func() { server.Close() })
	return g
}

// client is a connection to the server.
type client struct {
	net.Conn
	t      *testing.T
	reader *bufio.Reader
}

// dial connects from a local address.
func (g *testGate) dial(t *testing.T, from string) client {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.Dial("tcp", g.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(kubetest.Patience))
	return client{conn, t, bufio.NewReader(conn)}
}

// ask sends a request over a new connection.
func (g *testGate) ask(t *testing.T, from string) client {
	t.Helper()
	c := g.dial(t, from)
	c.send("/")
	return c
}

func (c client) send(path string, lines ...string) {
	c.t.Helper()
	_, _ = io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: a\r\n"+strings.Join(append(lines, ""), "\r\n")+"\r\n")
}

// want reads an answer.
func (c client) want(code int, says string) {
	c.t.Helper()
	res, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		c.t.Fatalf("want %d: %v", code, err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != code || !strings.Contains(string(body), says) {
		c.t.Errorf("got %d %q, %v, want %d and %q", res.StatusCode, body, err, code, says)
	}
	if code >= 429 && code != 431 && says != "" && res.Header.Get("Retry-After") != "5" {
		c.t.Errorf("%d has Retry-After %q", code, res.Header.Get("Retry-After"))
	}
}

// wantClosed checks that the server closes the connection.
func (c client) wantClosed() {
	c.t.Helper()
	if n, err := c.reader.Read(make([]byte, 1)); n > 0 || err == nil {
		c.t.Errorf("the connection is open")
	}
}

// awaitIdle waits until the server has noted that n connections are idle.
func (g *testGate) awaitIdle(t *testing.T, n int) {
	t.Helper()
	kubetest.Eventually(t, "the connections are idle", func() bool {
		g.Gate.mu.Lock()
		defer g.Gate.mu.Unlock()
		return g.idle.Len() == n
	})
}

func TestConnectionsInAll(t *testing.T) {
	g := start(t, Limits{All: 3, PerClient: 2, PerInstance: 1, Heads: 1 << 20})
	one, two, three := g.dial(t, "127.0.0.1"), g.dial(t, "127.0.0.1"), g.dial(t, "127.0.0.2")
	for _, c := range []client{one, two, three} {
		c.send("/wait")
	}
	kubetest.Eventually(t, "three are open", g.isOpen(3))
	g.ask(t, "127.0.0.3").want(503, "too many connections")
	g.ask(t, "127.1.0.3").want(503, "too many connections") // a trusted proxy is no exception
	g.ask(t, "127.0.0.1").want(429, "Your address")
	if g.of(limitAll) != 2 || g.of(limitPerClient) != 1 {
		t.Errorf("refused: %v", g.refused)
	}
	close(g.wait)
	one.want(200, "")
	two.want(200, "")
	three.want(200, "")
	g.awaitIdle(t, 3)

	// Idle connections make room, the longest idle first: of the client that has its share,
	// and otherwise of all.
	two.send("/")
	two.want(200, "") // now one is idle for the longest
	g.awaitIdle(t, 3)
	four := g.dial(t, "127.0.0.1")
	four.send("/")
	four.want(200, "")
	one.wantClosed()
	g.awaitIdle(t, 3)
	five := g.dial(t, "127.0.0.4")
	five.send("/")
	five.want(200, "")
	three.wantClosed()
	two.send("/")
	two.want(200, "")
	for _, c := range []client{two, four, five} {
		c.Close()
	}
	kubetest.Eventually(t, "none is open", g.isOpen(0))
	if len(g.clients) != 0 || g.idle.Len() != 0 {
		t.Errorf("still counted: %v, and %d idle", g.clients, g.idle.Len())
	}
}

// Connections of a trusted proxy carry the requests of many clients, which count one by one.
func TestRequestsByATrustedProxy(t *testing.T) {
	g := start(t, Limits{All: 100, PerClient: 2, PerInstance: 1, Heads: 1 << 20})
	var waiting []client
	for range 2 {
		c := g.dial(t, "127.1.0.1")
		c.send("/wait", "X-Forwarded-For: 203.0.113.1")
		waiting = append(waiting, c)
	}
	kubetest.Eventually(t, "both are under way", func() bool {
		g.Gate.mu.Lock()
		defer g.Gate.mu.Unlock()
		return g.clients[netip.MustParsePrefix("203.0.113.1/32")] == 2
	})
	c := g.dial(t, "127.1.0.1")
	c.send("/", "X-Forwarded-For: 203.0.113.1")
	c.want(429, "")
	c.send("/", "X-Forwarded-For: 203.0.113.2")
	c.want(200, "")
	d := g.dial(t, "127.0.0.1") // whose header nobody believes
	d.send("/", "X-Forwarded-For: 203.0.113.1")
	d.want(200, "")
	close(g.wait)
	for _, w := range waiting {
		w.want(200, "")
	}
	c.send("/", "X-Forwarded-For: 203.0.113.1")
	c.want(200, "")
}

func TestEnter(t *testing.T) {
	g := New(Deps{Limits: Limits{PerInstance: 2}, Metrics: &counts{refused: map[string]int{}}})
	leave, ok := g.Enter("a")
	_, again := g.Enter("a")
	_, third := g.Enter("a")
	_, other := g.Enter("b")
	if !ok || !again || third || !other {
		t.Errorf("got %t, %t, %t at one, and %t at another", ok, again, third, other)
	}
	leave()
	if _, ok = g.Enter("a"); !ok {
		t.Error("a place that was left is not free")
	}
}

// The heads of all requests together take a bounded part of the memory: while they arrive,
// and while their requests are under way.
func TestHeads(t *testing.T) {
	long := "A: " + strings.Repeat("x", 60<<10)
	lines := strings.TrimSuffix(strings.Repeat("A: b\r\n", 5000), "\r\n")
	for _, row := range []struct {
		name  string
		line  string
		limit int64 // has room for one of them, and not for two
		under bool  // the first is under way
	}{
		{"a long line that arrives", long, 300 << 10, false},
		{"many short lines that arrive", lines, 700 << 10, false},
		{"a long line under way", long, 230 << 10, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := start(t, Limits{All: 100, PerClient: 100, Heads: row.limit})
			first := g.dial(t, "127.0.0.1")
			if row.under {
				first.send("/wait", row.line)
				kubetest.Eventually(t, "the first is under way", func() bool { return g.heads.Load() > 0 && g.heads.Load() < 100<<10 })
			} else {
				head := "GET / HTTP/1.1\r\nHost: a\r\n" + row.line
				cost := int64(len(head)*costPerByte + strings.Count(head, "\n")*costPerLine - freeHead)
				_, _ = io.WriteString(first, head)
				kubetest.Eventually(t, "all of the first has arrived", func() bool { return g.heads.Load() == cost })
			}
			small := g.dial(t, "127.0.0.1")
			small.send("/", "A: b")
			small.want(200, "")
			second := g.dial(t, "127.0.0.1")
			second.send("/", row.line)
			second.want(503, "large header fields")
			if g.of(limitHeads) != 1 {
				t.Errorf("refused: %v", g.refused)
			}
			close(g.wait)
			if !row.under {
				_, _ = io.WriteString(first, "\r\n\r\n")
			}
			first.want(200, "")
			kubetest.Eventually(t, "nothing is charged", func() bool { return g.heads.Load() == 0 })
			third := g.dial(t, "127.0.0.1")
			third.send("/", row.line)
			third.want(200, "")
			third.Close()
			kubetest.Eventually(t, "nothing is charged", func() bool { return g.heads.Load() == 0 })
		})
	}
}

// The body of a request is not charged as a head, even if nobody reads it, and nothing stays
// charged of it.
func TestBodiesAreNoHeads(t *testing.T) {
	g := start(t, Limits{All: 100, PerClient: 100, Heads: 100 << 10})
	for range 3 {
		c := g.dial(t, "127.0.0.1")
		body := strings.Repeat("x", 200<<10) // less than net/http reads of what nobody wants
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"+body)
		c.want(200, "")
		g.awaitIdle(t, 1)
		if charged := g.heads.Load(); charged != 0 || g.of(limitHeads) != 0 {
			t.Errorf("%d bytes are charged, %d requests refused", charged, g.of(limitHeads))
		}
		c.send("/", "A: b")
		c.want(200, "")
		c.Close()
		g.awaitIdle(t, 0)
	}
}

func TestCookiesAreCut(t *testing.T) {
	g := start(t, Limits{All: 100, PerClient: 100, Heads: 16 << 20})
	c := g.dial(t, "127.0.0.1")
	pair := strings.Repeat("x", 999) // with its semicolon 1000
	for _, row := range []struct {
		lines []string
		want  string
	}{
		{nil, ""},
		{[]string{"a=b"}, "3"},
		{[]string{strings.Repeat("x", 32<<10)}, "32768"},
		{[]string{strings.Repeat("x", 32<<10+1)}, "0"},
		{[]string{strings.Repeat(pair+";", 50)}, "31999"},
		{[]string{pair, strings.Repeat(pair+";", 50)}, "999,30999"},
		{[]string{strings.Repeat("x", 32<<10), "a=b"}, "32768"},
		{slices.Repeat([]string{"a=b"}, 70), strings.TrimSuffix(strings.Repeat("3,", 64), ",")},
	} {
		lines := slices.Clone(row.lines)
		for i := range lines {
			lines[i] = "Cookie: " + lines[i]
		}
		c.send("/", lines...)
		c.want(200, "cookies: "+row.want)
	}
}

// A request in chunks is the last of its connection if it may have a length as well.
func TestLengthAndChunks(t *testing.T) {
	const chunks, length = "Transfer-Encoding: chunked", "Content-Length: 3"
	for _, row := range []struct {
		rest   string // of the first request, and what follows it
		closed bool
	}{
		{chunks + "\r\n\r\n0\r\n\r\n", false},
		{length + "\r\n\r\nabc", false},
		{chunks + "\r\n" + length + "\r\n\r\n0\r\n\r\n", true},
		{"content-length: 3\r\n" + chunks + "\r\n\r\n0\r\n\r\n", true},
		{chunks + "\nCONTENT-LENGTH:3\n\n0\r\n\r\n", true},
		{"X-Content-Length: 3\r\n" + chunks + "\r\n\r\n0\r\n\r\n", false},
		{length + "\r\n\r\nabcPOST / HTTP/1.1\r\nHost: a\r\n" + chunks + "\r\n" + length + "\r\n\r\n0\r\n\r\n", true}, // behind another
	} {
		g := start(t, Limits{All: 100, PerClient: 100, Heads: 16 << 20})
		c := g.dial(t, "127.0.0.1")
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\n")
		_, _ = io.WriteString(c, row.rest)
		for range 1 + strings.Count(row.rest, "POST") {
			c.want(200, "")
		}
		if row.closed {
			c.wantClosed()
			continue
		}
		c.send("/")
		c.want(200, "")
	}
}

// It does not matter how a line is split over reads.
func TestLengthScanOfPieces(t *testing.T) {
	for text, want := range map[string]bool{
		"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n": true, "X-Content-Length: 3\r\n": false, "a\ncontent-length:3": true, "Content-Lengt\nh: 3": false,
	} {
		for cut := range len(text) {
			var s lengthScan
			s.scan([]byte(text[:cut]))
			s.scan([]byte(text[cut:]))
			if got := s.seen.Load(); got != want {
				t.Errorf("%q, cut at %d: seen %t, want %t", text, cut, got, want)
			}
		}
	}
}

func TestSized(t *testing.T) {
	for _, row := range []struct {
		given         Limits
		memory, files int64
		want          Limits
	}{
		{Limits{}, 450 << 20, 1 << 20, Limits{2400, 150, 150, 450 << 17}},
		{Limits{}, 8 << 30, 1 << 20, Limits{43690, 2730, 2730, 1 << 30}},
		{Limits{}, 450 << 20, 7000, Limits{1000, 64, 64, 450 << 17}},
		{Limits{}, 1 << 20, 100, Limits{64, 64, 64, 1 << 17}},
		{Limits{All: 10}, 450 << 20, 1 << 20, Limits{10, 10, 10, 450 << 17}},
		{Limits{1, 2, 3, 4}, 450 << 20, 1 << 20, Limits{1, 2, 3, 4}},
	} {
		if got := Sized(row.given, row.memory, row.files); got != row.want {
			t.Errorf("%+v with %d bytes and %d files: got %+v, want %+v", row.given, row.memory, row.files, got, row.want)
		}
	}
}
