package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// recordingApp is an application that notes the request line of every request, reads what
// follows it as HTTP/1.1 says, and answers 200.
type recordingApp struct {
	net.Listener
	mu    sync.Mutex
	lines []string
}

func startRecordingApp(t testing.TB) *recordingApp {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	noError(t, err)
	t.Cleanup(func() { listener.Close() })
	a := &recordingApp{Listener: listener}
	go func() {
		_ = http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			a.mu.Lock()
			defer a.mu.Unlock()
			path := strings.TrimPrefix(r.RequestURI, instance.BaseURL(kubetest.ID(1)))
			w.Header().Set("X-Path", path)
			line := fmt.Sprintf("%s %.50s %s", r.Method, path, r.Host)
			if len(body) > 0 || err != nil {
				line += fmt.Sprintf(" %q", body)
			}
			if err != nil {
				line += " broken"
			}
			a.lines = append(a.lines, line)
		}))
	}()
	return a
}

// take returns what the application has seen since the last time.
func (a *recordingApp) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	lines := a.lines
	a.lines = nil
	return lines
}

// startHostile starts the service with instance 1, whose application is at an address.
func startHostile(t testing.TB, address net.Addr, flags ...string) *app {
	t.Helper()
	pod := kubetest.Pod(kubetest.ID(1), time.Now().Add(-time.Minute), listensAt(t, address))
	a := newTestApp(t, kubetest.NewServer(time.Now, pod, kubetest.Template("jupyter")).Client, kubetest.NoLog(), flags...)
	stop := runApp(t, a)
	t.Cleanup(func() { noError(t, stop()) })
	awaitCode(t, a.url(metricsServer, "/readyz"), 200)
	return a
}

// rawConn is a connection to the public port.
type rawConn struct {
	net.Conn
	reader *bufio.Reader
}

func (a *app) dialRaw(t testing.TB) rawConn {
	t.Helper()
	conn, err := net.Dial("tcp", a.servers[proxyServer].addr())
	noError(t, err)
	t.Cleanup(func() { conn.Close() })
	noError(t, conn.SetDeadline(time.Now().Add(3*kubetest.Patience)))
	return rawConn{conn, bufio.NewReader(conn)}
}

// outcome reads answers until the connection ends, or the answer to the request with the
// path last has come. It returns their codes, and "closed" or "open".
func (c rawConn) outcome(last string) string {
	var seen []string
	for {
		res, err := http.ReadResponse(c.reader, nil)
		if err != nil {
			return strings.Join(append(seen, "closed"), " ")
		}
		if res.StatusCode >= 200 {
			_, _ = io.Copy(io.Discard, res.Body)
		}
		if res.Header.Get("X-Path") == last {
			return strings.Join(append(seen, "open"), " ")
		}
		seen = append(seen, fmt.Sprint(res.StatusCode))
	}
}

// TestHostileRequests sends each hostile request, and a good one behind it, and closes the
// sending side. Nothing reaches the application but what the row says.
func TestHostileRequests(t *testing.T) {
	application := startRecordingApp(t)
	a := startHostile(t, application.Addr())
	for _, row := range hostileRows() {
		c := a.dialRaw(t)
		go func() {
			_, _ = io.WriteString(c, row.send)
			_, _ = io.WriteString(c, "GET "+instance.BaseURL(kubetest.ID(1))+"last HTTP/1.1\r\nHost: hub.example\r\n\r\n")
			_ = c.Conn.(*net.TCPConn).CloseWrite()
		}()
		got := c.outcome("last")
		c.Close()
		kubetest.Eventually(t, "the proxy is done", func() bool { return metric(t, a.metrics, "binder_proxy_requests_in_flight") == 0 })
		want, seen := row.want, row.seen
		if strings.HasSuffix(want, "open") {
			seen = append(slices.Clone(seen), "GET last hub.example")
		}
		// A request whose body is malformed has begun before that shows. The application may
		// see the broken rest of it late.
		all := slices.DeleteFunc(application.take(), func(line string) bool {
			return strings.HasPrefix(line, "POST x hub.example ") && strings.HasSuffix(line, " broken")
		})
		if got != want || !slices.Equal(all, seen) {
			t.Errorf("%s: got %s, and the application saw %q; want %s and %q", row.name, got, all, want, seen)
		}
	}
}
