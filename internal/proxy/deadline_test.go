package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

const impatience = 500 * time.Millisecond

// startImpatient starts a proxy whose clients and applications may be silent for impatience.
func startImpatient(t testing.TB, handle func(c wire)) *testProxy {
	t.Helper()
	return startProxyWith(t, func(d *Deps) { d.IdleTimeout = impatience }, rawApplication(t, handle))
}

// What makes no progress ends; it says so where an answer is still possible.
func TestSilenceEnds(t *testing.T) {
	hold := func(c wire) { _, _ = io.Copy(io.Discard, c) }
	after := func(answer string) func(c wire) {
		return func(c wire) {
			c.readHead()
			_, _ = io.WriteString(c, answer)
			hold(c)
		}
	}
	for _, row := range []struct {
		name    string
		app     func(c wire)
		method  string
		header  string
		body    string
		code    int // 0: the answer has begun, and breaks off
		counted int
		blamed  string // what the log says of the instance
	}{
		{"an application that never answers", hold, "GET", "A: b", "", 504, 504, "did not answer"},
		{"half a head", after("HTTP/1.1 200 OK\r\nA: b\r\n"), "GET", "A: b", "", 504, 504, "did not answer"},
		{"an interim answer, and no other", after("HTTP/1.1 102 Processing\r\n\r\n"), "GET", "A: b", "", 504, 504, "did not answer"},
		{"half an answer", after("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), "GET", "A: b", "", 0, 502, "broke off its answer"},
		{"half a chunk", after("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf"), "GET", "A: b", "", 0, 502, "broke off its answer"},
		{"half a trailer", after("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n"), "GET", "A: b", "", 0, 502, "broke off its answer"},
		{"an application that never says to continue", hold, "PUT", "Content-Length: 5\r\nExpect: 100-continue", "", 504, 504, "did not answer"},
		{"a body that never comes", hold, "PUT", "Content-Length: 5", "", 408, 408, ""},
		{"half a body", hold, "PUT", "Content-Length: 5", "hi", 408, 408, ""},
		{"a chunked body that never comes", hold, "PUT", "Transfer-Encoding: chunked", "", 408, 408, ""},
		{"half a chunk of a body", hold, "PUT", "Transfer-Encoding: chunked", "5\r\nhi", 408, 408, ""},
		{"a body without its trailer", hold, "PUT", "Transfer-Encoding: chunked", "0\r\n", 400, 400, ""}, // net/http does not say why
		{"half a body during the answer", after("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), "PUT", "Content-Length: 5", "hi", 0, 499, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			p := startImpatient(t, row.app)
			counted := &codeCounter{}
			p.Config.Handler = counted.count(p.Config.Handler)
			c := p.dial(t)
			began := time.Now()
			c.request(t, row.method, base, row.header)
			_, _ = io.WriteString(c, row.body)
			res, err := http.ReadResponse(c.reader, nil)
			for err == nil && res.StatusCode < 200 {
				res, err = http.ReadResponse(c.reader, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.ReadAll(res.Body)
			if broken := row.code == 0; broken != (err != nil) || !broken && res.StatusCode != row.code {
				t.Errorf("got %d, %v, want %d (0: broken off)", res.StatusCode, err, row.code)
			}
			if took := time.Since(began); took < impatience || took > kubetest.Patience/2 {
				t.Errorf("it took %s", took)
			}
			kubetest.Eventually(t, "the handler has ended", func() bool { return p.inFlight.Load() == 0 })
			if got := counted.code.Load(); got != int64(row.counted) {
				t.Errorf("counted as %d, want %d", got, row.counted)
			}
			if log := p.log.String(); (row.blamed == "") != (log == "") || !strings.Contains(log, row.blamed) {
				t.Errorf("logged %q, want %q", log, row.blamed)
			}
		})
	}
}

// Whatever makes progress goes on, for longer than either side may be silent.
func TestSlowButSteady(t *testing.T) {
	const parts = 9
	pause := func() { time.Sleep(impatience / 6) } // several make more than that
	t.Run("a slow download", func(t *testing.T) {
		c := startImpatient(t, func(c wire) {
			c.readHead()
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", parts)
			for range parts {
				pause()
				_, _ = io.WriteString(c, "x")
			}
		}).dial(t)
		c.get(t, 200, "xxxxxxxxx")
	})
	t.Run("a slow upload", func(t *testing.T) {
		c := startImpatient(t, func(c wire) { // which says nothing before its end
			c.readHead()
			if _, err := io.ReadFull(c, make([]byte, parts)); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
			c.readHead()
			pause() // and a next request that takes a while
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain")
		}).dial(t)
		c.request(t, "PUT", base, fmt.Sprintf("Content-Length: %d", parts))
		for range parts {
			pause()
			_, _ = io.WriteString(c, "x")
		}
		c.wantAnswer(t, 200, "ok")
		pause() // idle connections are not requests
		pause()
		pause()
		pause()
		c.get(t, 200, "again")
	})
	t.Run("a client that waits after its body", func(t *testing.T) {
		c := startImpatient(t, func(c wire) {
			c.readHead()
			_, _ = io.ReadFull(c, make([]byte, 2))
			for range parts {
				pause()
				_, _ = io.WriteString(c, "HTTP/1.1 102 Processing\r\n\r\n")
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}).dial(t)
		c.request(t, "PUT", base, "Content-Length: 2")
		_, _ = io.WriteString(c, "hi")
		for range parts {
			if head := c.readHead(); !strings.HasPrefix(head, "HTTP/1.1 102") {
				t.Fatalf("got %q", head)
			}
		}
		c.wantAnswer(t, 200, "ok")
	})
	t.Run("an idle WebSocket", func(t *testing.T) {
		c := startImpatient(t, echoWebSocket).dial(t)
		c.upgrade(t)
		for range 3 {
			for range 6 {
				pause()
			}
			_, _ = c.Write(wsFrame(opText, true, []byte("hi")))
			if _, err := io.ReadFull(c.reader, make([]byte, len(wsFrame(opText, true, []byte("hi"))))); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// echoWebSocket is an application that sends back every byte of a WebSocket.
func echoWebSocket(c wire) {
	c.readHead()
	_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	_, _ = io.Copy(c, c.reader)
}

// upgrade opens a WebSocket.
func (w wire) upgrade(t testing.TB) {
	t.Helper()
	w.request(t, "GET", base, "Connection: Upgrade", "Upgrade: websocket")
	if head := w.readHead(); !strings.HasPrefix(head, "HTTP/1.1 101") {
		t.Fatalf("got %q", head)
	}
}

// A peer that takes nothing of what is sent to it is let go: a client of an endless
// download or WebSocket, and an application of an endless upload or WebSocket.
func TestUnreadEnds(t *testing.T) {
	endless := func(c io.Writer, head string) {
		_, _ = io.WriteString(c, head)
		for err := error(nil); err == nil; {
			_, err = c.Write(make([]byte, 64<<10))
		}
	}
	over := make(chan struct{}) // until then, a silent application takes nothing
	defer close(over)
	silent := func(c wire) {
		c.readHead()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		<-over
	}
	for _, row := range []struct {
		name   string
		app    func(c wire)
		client func(c wire)
	}{
		{"a download", func(c wire) { c.readHead(); endless(c, "HTTP/1.1 200 OK\r\n\r\n") },
			func(c wire) { c.request(t, "GET", base) }},
		{"a chunked download", func(c wire) {
			c.readHead()
			endless(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n")
		}, func(c wire) { c.request(t, "GET", base) }},
		{"a WebSocket to the client", func(c wire) {
			c.readHead()
			endless(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		}, func(c wire) { c.upgrade(t) }},
		{"an upload", func(wire) { <-over },
			func(c wire) {
				c.request(t, "PUT", base, "Content-Length: 9999999999")
				go endless(c, "")
			}},
		{"a WebSocket to the application", silent, func(c wire) { c.upgrade(t); go endless(c, "") }},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := startImpatient(t, row.app)
			c := p.dial(t)
			began := time.Now()
			row.client(c)
			kubetest.Eventually(t, "the handler has begun", func() bool { return p.inFlight.Load() == 1 })
			kubetest.Eventually(t, "the handler has ended", func() bool { return p.inFlight.Load() == 0 })
			if took := time.Since(began); took > kubetest.Patience/2 {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// The kernel holds a bounded part of what a client does not read.
func TestUnsentIsBounded(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener := Listen(inner, 100*time.Millisecond)
	defer listener.Close()
	client, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := 0
	for n := 0; err == nil; sent += n {
		n, err = c.Write(make([]byte, 16<<10))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) || sent > 1<<20 {
		t.Errorf("%d KiB were sent to a client that reads nothing, and then %v, want at most 1 MiB", sent>>10, err)
	}
	t.Logf("%d KiB were sent", sent>>10)
}

// An instance has as many requests and WebSockets as Enter allows.
func TestEnter(t *testing.T) {
	left := make(chan string, 1)
	free := true
	p := startProxyWith(t, func(d *Deps) {
		d.Enter = func(id string) (func(), bool) { return func() { left <- id }, free }
	}, answering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	c := p.dial(t)
	c.get(t, 200, "ok")
	if got := receive(t, left); got != kubetest.ID(1) {
		t.Errorf("%s was left", got)
	}
	free = false
	if res := c.get(t, 503, "too many connections"); res.Header.Get("Retry-After") != "5" {
		t.Errorf("Retry-After is %q", res.Header.Get("Retry-After"))
	}
	if len(left) > 0 {
		t.Error("a request that was refused has left")
	}
}
