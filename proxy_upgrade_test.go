package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/registry"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"

	"github.com/binder-project/binder-deploy-kubernetes/internal/proxy"
)

// wire is one end of a connection; what is read ahead belongs to it too.
type wire struct {
	net.Conn
	reader *bufio.Reader
}

func (w wire) Read(p []byte) (int, error) { return w.reader.Read(p) }

// send writes at one end and checks that the same arrives at the other.
func (w wire) send(t testing.TB, to wire, what []byte) {
	t.Helper()
	written := make(chan error, 1)
	go func() { // more than the buffers between may hold
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

// upgrade opens a connection of another protocol through a proxy, and returns
// both its ends. The instance is instanceID(1).
func upgrade(t testing.TB, protocol string) (p *testProxy, browser, pod wire) {
	t.Helper()
	return upgradeAt(t, protocol, "api/kernels/1/channels")
}

func upgradeAt(t testing.TB, protocol, rest string) (p *testProxy, browser, pod wire) {
	t.Helper()
	pods := make(chan wire, 1)
	inst := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != protocol || !strings.EqualFold(r.Header.Get("Connection"), "upgrade") {
			t.Errorf("the application is asked to upgrade to %q by Connection: %q", r.Header.Get("Upgrade"), r.Header.Get("Connection"))
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol)
		pods <- wire{conn, buffered.Reader}
	}, func(inst *instance.Instance) { inst.IdlePaths = registry.JupyterIdlePaths })
	p = startProxy(t, inst)
	conn, err := net.Dial("tcp", p.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	browser = wire{conn, bufio.NewReader(conn)}
	fmt.Fprintf(conn, "GET %s%s HTTP/1.1\r\nHost: hub.example\r\nConnection: Upgrade\r\nUpgrade: %s\r\n"+
		"Authorization: token %s\r\n\r\n", instance.BaseURL(inst.ID), rest, protocol, testAPIKey)
	res, err := http.ReadResponse(browser.reader, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Upgrade") != protocol {
		t.Fatalf("got %v, %v, want 101 to %s", res, err, protocol)
	}
	pod = receive(t, pods)
	for _, end := range []wire{browser, pod} {
		if err := end.SetDeadline(time.Now().Add(kubetest.Patience)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { end.Close() })
	}
	return p, browser, pod
}

func TestWebSocketFramesThatCount(t *testing.T) {
	likeText := wsFrame(opText, false, []byte("6*7"))
	for _, masked := range []bool{true, false} { // a browser masks what it sends, an application does not
		p, from, to := upgrade(t, "websocket")
		if !masked {
			from, to = to, from
		}
		if got := p.touches.of(kubetest.ID(1)); got != 1 {
			t.Errorf("touched %d times by the opening, want once", got)
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
			before := p.touches.of(kubetest.ID(1))
			from.send(t, to, row.frame)
			// When the next frame is there, the one before has been counted.
			from.send(t, to, ping)
			if after := p.touches.of(kubetest.ID(1)); (after > before) != row.counted {
				t.Errorf("masked %v: %s: touched %d times, want it counted: %v", masked, row.name, after-before, row.counted)
			}
		}
	}
}

// What a page opens by itself, and all that comes by it, is no use.
func TestWebSocketOfAnIdlePath(t *testing.T) {
	p, browser, pod := upgradeAt(t, "websocket", "api/events/subscribe")
	for range 3 {
		pod.send(t, browser, wsFrame(opText, false, []byte(`{"action": "get", "path": ""}`)))
		browser.send(t, pod, wsFrame(opBinary, true, make([]byte, 200)))
	}
	if got := p.touches.of(kubetest.ID(1)); got != 0 {
		t.Errorf("touched %d times, want never", got)
	}
}

// Also where the browser does nothing about it.
func TestWebSocketTunnelEndsWithTheApplication(t *testing.T) {
	const inFlight = "binder_proxy_requests_in_flight"
	p, browser, pod := upgrade(t, "websocket")
	pod.Close()
	if _, err := browser.Read(make([]byte, 1)); err == nil {
		t.Error("something came")
	}
	kubetest.Eventually(t, "no connection is in flight", func() bool { return scrape(t, p.metrics, inFlight) == inFlight+" 0" })
}

func TestWebSocketTunnelEnds(t *testing.T) {
	const inFlight = "binder_proxy_requests_in_flight"
	for _, closing := range []string{"the browser", "the application"} {
		p, first, second := upgrade(t, "websocket")
		wantMetrics(t, p.metrics, inFlight, inFlight+" 1")
		if closing == "the application" {
			first, second = second, first
		}
		first.Close()
		if n, err := second.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s closed, and %d bytes came", closing, n)
		} else if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			t.Errorf("%s closed, and the other end stays open", closing)
		}
		second.Close()
		kubetest.Eventually(t, "no connection is in flight", func() bool { return scrape(t, p.metrics, inFlight) == inFlight+" 0" })
	}
}

// Nothing is known of another protocol's bytes: all of them count.
func TestOtherUpgradesCountEveryByte(t *testing.T) {
	p, browser, pod := upgrade(t, "tcp")
	for range 3 {
		for _, way := range [][2]wire{{browser, pod}, {pod, browser}} {
			before := p.touches.of(kubetest.ID(1))
			way[0].send(t, way[1], []byte{0x89, 0x00}) // which would be a ping
			kubetest.Eventually(t, "the bytes have been counted", func() bool { return p.touches.of(kubetest.ID(1)) > before })
		}
	}
}

// An application that refuses to upgrade gives an answer like any other.
func TestRefusedUpgrade(t *testing.T) {
	inst := newBackend(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not this origin", http.StatusForbidden) })
	res, body := startProxy(t, inst).get(t, "/user/"+inst.ID+"/api", "Connection", "Upgrade", "Upgrade", "websocket")
	if res.StatusCode != http.StatusForbidden || !strings.Contains(body, "not this origin") {
		t.Errorf("got %d %q, want the application's answer", res.StatusCode, body)
	}
}

func TestUpgradeNobodyAskedFor(t *testing.T) {
	inst := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	})
	res := httptest.NewRecorder()
	proxy := proxy.New(fakeReader{inst}, func(string, instance.Source) {}, protocol.NewAPIKey(testAPIKey).Opens, kubetest.NoLog())
	proxy.ServeHTTP(res, httptest.NewRequest("GET", "/user/"+inst.ID+"/", nil))
	if res.Code != http.StatusBadGateway {
		t.Errorf("got %d, want 502", res.Code)
	}
}
