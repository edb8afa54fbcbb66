package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// Each line arrives before the next is sent, in both directions, and counts as use
// in both: the application begins to answer while it still reads.
func TestStreamsBothWays(t *testing.T) {
	for _, kind := range []string{"text/plain", "text/event-stream"} {
		arrived, answer := make(chan string), make(chan string)
		p := startProxy(t, application(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			control := http.NewResponseController(w)
			if err := control.EnableFullDuplex(); err != nil {
				t.Error(err)
			}
			for lines := bufio.NewScanner(r.Body); lines.Scan(); {
				arrived <- lines.Text()
				_, _ = io.WriteString(w, <-answer+"\n")
				_ = control.Flush()
			}
		}))
		body, upload := io.Pipe()
		t.Cleanup(func() { body.CloseWithError(io.ErrUnexpectedEOF) }) // so that no server waits for it
		answers := make(chan *http.Response, 1)
		go func() {
			if res, err := p.Client().Post(p.URL+base+"talk", "text/plain", body); err == nil {
				answers <- res
			}
		}()
		used := 0
		wantMore := func(what string) {
			t.Helper()
			now := p.touched(1)
			if now <= used {
				t.Errorf("%s: %s moved and the instance was not touched", kind, what)
			}
			used = now
		}
		var res *http.Response
		var lines *bufio.Scanner
		for _, line := range []string{"one", "two", "three"} {
			go func() { _, _ = io.WriteString(upload, line+"\n") }()
			if got := receive(t, arrived); got != line {
				t.Fatalf("%s: the application got %q, want %q", kind, got, line)
			}
			wantMore("the request")
			answer <- "got " + line
			if res == nil {
				res = receive(t, answers)
				defer res.Body.Close()
				lines = bufio.NewScanner(res.Body)
			}
			if !lines.Scan() || lines.Text() != "got "+line {
				t.Fatalf("%s: the browser got %q, %v after %q", kind, lines.Text(), lines.Err(), line)
			}
			wantMore("the answer")
		}
		upload.Close()
		if lines.Scan() || lines.Err() != nil {
			t.Errorf("%s: got %q, %v, want the end", kind, lines.Text(), lines.Err())
		}
	}
}

// A request counts once when it is answered. After that only bytes count, and none
// move. What an application asks of another instance is use of the other one.
func TestTouchesOncePerRequestOfNoBytes(t *testing.T) {
	var p *testProxy
	other := application(t, func(http.ResponseWriter, *http.Request) {}, func(inst *instance.Instance) { inst.ID = kubetest.ID(2) })
	p = startProxy(t, other, application(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == base+"ask" {
			p.get(t, instance.BaseURL(other.ID))
		}
	}))
	for n, rest := range []string{"", "tree", "ask"} {
		p.get(t, base+rest)
		if got := p.touched(1); got != n+1 {
			t.Errorf("touched %d times after %d requests", got, n+1)
		}
	}
	if got := p.touched(2); got != 1 || p.source != instance.SourceHTTP {
		t.Errorf("the other instance was touched %d times, by %s, want once", got, p.source)
	}
}

// Requests of idle paths reach the application and are not use of it, and neither
// are the bytes of their answers.
func TestIdlePathsAreNotUse(t *testing.T) {
	jupyter := jupyterIdlePaths(t)
	for _, row := range []struct {
		name, method, rest, upgrade, paths string
		counts                             bool
	}{
		{"a poll", "GET", "api/kernels", "", jupyter, false},
		{"a poll with a query", "GET", "api/sessions?_=1700000000000", "", jupyter, false},
		{"a poll of the header", "HEAD", "api/status", "", jupyter, false},
		{"an escaped poll", "GET", "api/kern%65ls", "", jupyter, false},
		{"a POST", "POST", "api/kernels", "", jupyter, true},
		{"a DELETE", "DELETE", "api/kernels/1", "", jupyter, true},
		{"another path", "GET", "tree", "", jupyter, true},
		{"a part of an idle path", "GET", "api/status/x", "", jupyter, true},
		{"another protocol that is not accepted", "GET", "tree", "h2c", jupyter, true},
		{"a WebSocket that is refused", "GET", "api/kernels/1/channels", "websocket", jupyter, false},
		{"a path that is too long to be matched", "GET", strings.Repeat("a", maxIdlePath+1), "", "a+", true},
		{"the base URL", "GET", "", "", jupyter, true},
		{"the base URL, if the template says so", "GET", "", "", "|poll", false},
		{"no expression", "GET", "api/kernels", "", "", true},
		{"an expression that is not valid", "GET", "api/kernels", "", "(", true},
	} {
		for _, strip := range []bool{false, true} {
			p := startProxy(t, application(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Method", r.Method)
				_, _ = io.WriteString(w, strings.Repeat("[]", 1<<16))
			}, func(inst *instance.Instance) { inst.StripPrefix, inst.IdlePaths = strip, row.paths }))
			var headers []string
			if row.upgrade != "" {
				headers = []string{"Connection", "Upgrade", "Upgrade", row.upgrade}
			}
			res, body := p.do(t, row.method, base+row.rest, nil, headers...)
			if res.Header.Get("X-Method") != row.method || (len(body) == 1<<17) != (row.method != "HEAD") {
				t.Errorf("%s: got %d %v and %d bytes, want the application's answer", row.name, res.StatusCode, res.Header, len(body))
			}
			if used := p.touched(1) > 0; used != row.counts {
				t.Errorf("%s, strip-prefix %t: counts is %t, want %t", row.name, strip, used, row.counts)
			}
		}
	}
}

// wire is one end of a connection, with what has been read ahead of it.
type wire struct {
	net.Conn
	reader *bufio.Reader
}

func (w wire) Read(p []byte) (int, error) { return w.reader.Read(p) }

// send writes at one end and checks that the same arrives at the other.
func (w wire) send(t testing.TB, to wire, what []byte) {
	t.Helper()
	written := make(chan error, 1)
	go func() { // it may be more than the buffers in between hold
		_, err := w.Write(what)
		written <- err
	}()
	got := make([]byte, len(what))
	if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, what) {
		t.Fatalf("sent %.40x…, got %.40x…, %v", what, got, err)
	}
	if err := receive(t, written); err != nil {
		t.Fatal(err)
	}
}

// hijack takes a connection over and upgrades it to a protocol.
func hijack(t testing.TB, w http.ResponseWriter, protocol string) wire {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return wire{}
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol)
	return wire{conn, buffered.Reader}
}

// upgrade opens a connection of another protocol through a proxy, and returns both
// its ends.
func upgrade(t testing.TB, protocol, rest string, changes ...func(*instance.Instance)) (p *testProxy, browser, pod wire) {
	t.Helper()
	pods := make(chan wire, 1)
	p = startProxy(t, application(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != protocol || !strings.EqualFold(r.Header.Get("Connection"), "upgrade") {
			t.Errorf("the application is asked to upgrade to %q by Connection: %q", r.Header.Get("Upgrade"), r.Header.Get("Connection"))
		}
		pods <- hijack(t, w, protocol)
	}, append(changes, func(inst *instance.Instance) { inst.IdlePaths = jupyterIdlePaths(t) })...))
	conn, err := net.Dial("tcp", p.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	browser = wire{conn, bufio.NewReader(conn)}
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: hub.example\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", base+rest, protocol)
	res, err := http.ReadResponse(browser.reader, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Upgrade") != protocol {
		t.Fatalf("got %v, %v, want 101 to %s", res, err, protocol)
	}
	pod = receive(t, pods)
	for _, end := range []wire{browser, pod} {
		if err := end.SetDeadline(time.Now().Add(kubetest.Patience)); err != nil {
			t.Fatal(err)
		}
	}
	return p, browser, pod
}

// A template names requests by method, and small messages as heartbeats.
func TestIdleRequests(t *testing.T) {
	for _, row := range []struct {
		method, rest string
		counts       bool
	}{
		{"POST", "events/get_events", false}, {"POST", "events/get_events?x=1", false}, {"POST", "events/get", true}, {"GET", "events/get_events", true},
		{"PUT", "events/get_events", true}, {"POST", "xevents/get_events", true}, {"POST", "_dash-update-component", false}, {"POST", "", true},
	} {
		p := startProxy(t, application(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "[]") },
			func(inst *instance.Instance) { inst.IdleRequests = "POST (events/get_events|_dash-update-component)" }))
		p.do(t, row.method, base+row.rest, strings.NewReader("{}"))
		if used := p.touched(1) > 0; used != row.counts {
			t.Errorf("%s %s: counts is %t, want %t", row.method, row.rest, used, row.counts)
		}
	}
}

func TestHeartbeats(t *testing.T) {
	for _, row := range []struct {
		name, value string
		frame       []byte
		counts      bool
	}{
		{"a heartbeat", "1 ws", wsFrame(opText, true, []byte("2")), false},
		{"an empty message", "0 ws", wsFrame(opBinary, true, nil), false},
		{"a message that is larger", "1 ws", wsFrame(opText, true, []byte("42")), true},
		{"a part of a message", "1 ws", wsFrame(opContinuation, true, []byte("2")), true},
		{"the first part of a message", "1 ws", append([]byte{opText}, wsFrame(opText, true, []byte("2"))[1:]...), true},
		{"another path", "1 socket", wsFrame(opText, true, []byte("2")), true},
		{"no annotation", "", wsFrame(opText, true, nil), true},
		{"an invalid annotation", "x ws", wsFrame(opText, true, nil), true},
	} {
		p, browser, pod := upgrade(t, "websocket", "ws", func(inst *instance.Instance) { inst.HeartbeatFrames = row.value })
		before := p.touched(1)
		browser.send(t, pod, row.frame)
		browser.send(t, pod, wsFrame(opPing, true, nil)) // once it has arrived, the frame before has been counted
		if counts := p.touched(1) > before; counts != row.counts {
			t.Errorf("%s: counts is %t, want %t", row.name, counts, row.counts)
		}
	}
}

func TestWebSocketFramesThatCount(t *testing.T) {
	likeText := wsFrame(opText, false, []byte("6*7"))
	for _, masked := range []bool{true, false} { // a browser masks what it sends, an application does not
		p, from, to := upgrade(t, "websocket", "api/kernels/1/channels")
		if !masked {
			from, to = to, from
		}
		if got := p.touched(1); got != 1 || p.source != instance.SourceWebSocket {
			t.Errorf("touched %d times by the opening, by %s, want once", got, p.source)
		}
		ping := wsFrame(opPing, masked, []byte("still there?"))
		for _, row := range []struct {
			name    string
			frame   []byte
			counted bool
		}{
			{"ping", ping, false},
			{"pong", wsFrame(opPong, masked, nil), false},
			{"ping that holds what looks like text", wsFrame(opPing, masked, bytes.Repeat(likeText, 20)), false},
			{"text", wsFrame(opText, masked, []byte("6*7")), true},
			{"ping after text", ping, false},
			{"empty text", wsFrame(opText, masked, nil), true},
			{"binary of 200 bytes", wsFrame(opBinary, masked, make([]byte, 200)), true},
			{"binary of a MiB", wsFrame(opBinary, masked, make([]byte, 1<<20)), true},
			{"continuation", wsFrame(opContinuation, masked, []byte("more")), true},
			{"frame of a reserved opcode", wsFrame(0xb, masked, []byte("?")), false},
			{"close", wsFrame(opClose, masked, []byte{3, 232}), false},
		} {
			before := p.touched(1)
			from.send(t, to, row.frame)
			from.send(t, to, ping) // once it has arrived, the frame before has been counted
			if after := p.touched(1); (after > before) != row.counted {
				t.Errorf("masked %v: %s: touched %d times, want it counted: %v", masked, row.name, after-before, row.counted)
			}
		}
	}
}

// A WebSocket that a page opens by itself is not use, and neither is what it carries.
func TestWebSocketOfAnIdlePath(t *testing.T) {
	p, browser, pod := upgrade(t, "websocket", "api/events/subscribe")
	for range 3 {
		pod.send(t, browser, wsFrame(opText, false, []byte(`{"action": "get", "path": ""}`)))
		browser.send(t, pod, wsFrame(opBinary, true, make([]byte, 200)))
	}
	if got := p.touched(1); got != 0 {
		t.Errorf("touched %d times, want never", got)
	}
}

// Nothing is known about another protocol's bytes, so all of them count.
func TestOtherUpgradesCountEveryByte(t *testing.T) {
	p, browser, pod := upgrade(t, "tcp", "tunnel")
	for range 3 {
		for _, ends := range [][2]wire{{browser, pod}, {pod, browser}} {
			before := p.touched(1)
			ends[0].send(t, ends[1], wsFrame(opPing, false, nil))
			kubetest.Eventually(t, "the bytes have been counted", func() bool { return p.touched(1) > before })
		}
	}
}

// When one end closes a WebSocket, the other end's connection ends too, and the
// request with it, even if the other end does nothing about it.
func TestWebSocketEndsAsAWhole(t *testing.T) {
	for _, closing := range []string{"the browser", "the application"} {
		p, first, second := upgrade(t, "websocket", "api/kernels/1/channels")
		if got := p.inFlight.Load(); got != 1 {
			t.Errorf("%d requests are in flight, want 1", got)
		}
		if closing == "the application" {
			first, second = second, first
		}
		first.Close()
		if n, err := second.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s closed, and %d bytes came", closing, n)
		} else if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			t.Errorf("%s closed, and the other end stays open", closing)
		}
		kubetest.Eventually(t, "no connection is in flight", func() bool { return p.inFlight.Load() == 0 })
	}
}

// An application that refuses to upgrade gives an answer like any other, but that is
// not use: a forgotten page tries again and again.
func TestRefusedUpgrade(t *testing.T) {
	p := startProxy(t, application(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not this origin", http.StatusForbidden) }))
	res, body := p.get(t, base+"api", "Connection", "Upgrade", "Upgrade", "websocket")
	if res.StatusCode != http.StatusForbidden || !strings.Contains(body, "not this origin") || p.touched(1) != 0 {
		t.Errorf("got %d %q and %d touches, want the application's answer and none", res.StatusCode, body, p.touched(1))
	}
}
