package proxy

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// The close frame of a restart comes between two frames, however the application's stream
// is cut, and nothing follows it. The client's answer reaches the application.
func TestCloseFrameAtTheEnd(t *testing.T) {
	text, big := wsFrame(opText, false, []byte("hello")), wsFrame(opBinary, false, bytes.Repeat([]byte{0x88, 2, 3, 0xf4}, 30<<10))
	part := append([]byte{opText}, wsFrame(opText, false, []byte("part"))[1:]...)
	reply := wsFrame(opClose, true, []byte{3, 0xf4})
	for _, row := range []struct {
		name          string
		before, after []byte // what the application sends, before the end and once it has begun
		want          []byte // of that, before the close frame
	}{
		{"an idle one", nil, nil, nil},
		{"between two messages", text, nil, text},
		{"between the parts of a message", part, wsFrame(opContinuation, false, nil), part},
		{"in a message", text[:3], append(text[3:], text...), text},
		{"in the first byte of a header", text[:1], text[1:], text},
		{"in the length of a message", big[:5], big[5:], big},
		{"in a long message, with more behind it", big[:9000], bytes.Join([][]byte{big[9000:], text}, nil), big},
	} {
		t.Run(row.name, func(t *testing.T) {
			goOn, got := make(chan struct{}), make(chan []byte, 1)
			p := startProxy(t, rawApplication(t, func(c wire) {
				c.readHead()
				_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
				_, _ = c.Write(row.before)
				<-goOn
				_, _ = c.Write(row.after)
				answer := make([]byte, len(reply))
				_, _ = io.ReadFull(c.reader, answer)
				got <- answer
			}))
			c := p.dial(t)
			c.upgrade(t)
			before := make([]byte, len(row.before))
			if _, err := io.ReadFull(c.reader, before); err != nil {
				t.Fatal(err)
			}
			awaitOpen(t, p, 1)
			ended := make(chan struct{})
			go func() { p.handler.EndWebSockets(kubetest.Patience); close(ended) }()
			kubetest.Eventually(t, "the end has begun", func() bool {
				for side := range openSides(p.handler) {
					side.mu.Lock()
					defer side.mu.Unlock()
					return side.asked
				}
				return false
			})
			close(goOn)
			rest := make([]byte, len(row.want)-len(row.before)+4)
			if _, err := io.ReadFull(c.reader, rest); err != nil {
				t.Fatal(err)
			}
			if all, want := append(before, rest...), append(bytes.Clone(row.want), 0x88, 2, 3, 0xf4); !bytes.Equal(all, want) {
				t.Errorf("got %d bytes that end with %x, want %d", len(all), all[max(0, len(all)-9):], len(want))
			}
			_, _ = c.Write(reply)
			if answer := receive(t, got); !bytes.Equal(answer, reply) {
				t.Errorf("the application got %x, want the client's close frame", answer)
			}
			c.wantClosed(t)
			c.Close()
			receive(t, ended)
		})
	}
}

// A replica that cannot write the use of some instances sends their clients away, a few at
// a time and each once.
func TestEndSomeWebSockets(t *testing.T) {
	p := startProxy(t, rawApplication(t, func(c wire) {
		c.readHead()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(io.Discard, c.reader)
	}))
	for range 3 {
		p.dial(t).upgrade(t)
	}
	awaitOpen(t, p, 3)
	end := func(most int, which bool) int {
		return p.handler.EndSomeWebSockets(most, func(id string, opened time.Time) bool { return !opened.IsZero() && which && id == kubetest.ID(1) })
	}
	for i, row := range []struct {
		most  int
		which bool
		want  int
	}{{5, false, 0}, {2, true, 2}, {5, true, 1}, {5, true, 0}} {
		if got := end(row.most, row.which); got != row.want {
			t.Errorf("step %d: %d are told to end, want %d", i, got, row.want)
		}
	}
	kubetest.Eventually(t, "all are told to end", func() bool {
		for side := range openSides(p.handler) {
			side.mu.Lock()
			ended := side.ended
			side.mu.Unlock()
			if !ended {
				return false
			}
		}
		return true
	})
}

func awaitOpen(t testing.TB, p *testProxy, n int) {
	t.Helper()
	kubetest.Eventually(t, "the WebSockets are open", func() bool { return len(openSides(p.handler)) == n })
}

func openSides(p *Proxy) map[*visitorSide]struct{} {
	p.sockets.mu.Lock()
	defer p.sockets.mu.Unlock()
	sides := map[*visitorSide]struct{}{}
	for side := range p.sockets.open {
		sides[side] = struct{}{}
	}
	return sides
}

// An application that has closed by itself is not contradicted: its frame is the only one.
func TestNoSecondCloseFrame(t *testing.T) {
	own := wsFrame(opClose, false, []byte{3, 232})
	p := startProxy(t, rawApplication(t, func(c wire) {
		c.readHead()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"+string(own))
		_, _ = io.Copy(io.Discard, c)
	}))
	c := p.dial(t)
	c.upgrade(t)
	if _, err := io.ReadFull(c.reader, make([]byte, len(own))); err != nil {
		t.Fatal(err)
	}
	awaitOpen(t, p, 1)
	go p.handler.EndWebSockets(100 * time.Millisecond)
	c.wantClosed(t)
}

// Browsers do not come back all at once, and the drain time is kept: by clients that answer
// nothing or read nothing, and by applications that stop in the middle of a frame.
func TestWebSocketsEndOneAfterTheOther(t *testing.T) {
	const open = 6
	p := startProxy(t, rawApplication(t, echoWebSocket))
	times := make(chan time.Time, open)
	for range open {
		c := p.dial(t)
		c.upgrade(t)
		go func() {
			frame := make([]byte, 4)
			if _, err := io.ReadFull(c.reader, frame); err == nil && frame[3] == 0xf4 {
				times <- time.Now()
				c.Close()
			}
		}()
	}
	awaitOpen(t, p, open)
	p.handler.EndWebSockets(kubetest.Patience)
	first, last := receive(t, times), time.Time{}
	for range open - 1 {
		last = receive(t, times)
	}
	if took := last.Sub(first); took < (open-2)*endPause || took > kubetest.Patience/2 {
		t.Errorf("the first and the last ended within %s", took)
	}

	for name, app := range map[string]func(c wire){
		"silent": echoWebSocket,
		"in the middle of a frame": func(c wire) {
			c.readHead()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x82\x7f")
			_, _ = io.Copy(io.Discard, c)
		},
		"a client that reads nothing": func(c wire) {
			c.readHead()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			for err := error(nil); err == nil; {
				_, err = c.Write(bytes.Repeat(wsFrame(opBinary, false, []byte(strings.Repeat("x", 1000))), 10))
			}
		},
	} {
		p := startProxy(t, rawApplication(t, app))
		p.dial(t).upgrade(t)
		awaitOpen(t, p, 1)
		began := time.Now()
		p.handler.EndWebSockets(300 * time.Millisecond)
		kubetest.Eventually(t, name+": it has ended", func() bool { return p.inFlight.Load() == 0 })
		if took := time.Since(began); took > kubetest.Patience/2 {
			t.Errorf("%s: it took %s", name, took)
		}
		late := p.dial(t)
		late.upgrade(t)
		if frame, err := io.ReadAll(io.LimitReader(late.reader, 4)); name == "silent" && !bytes.Equal(frame, restartFrame()) {
			t.Errorf("a WebSocket that comes later got %x, %v", frame, err)
		}
	}
}
