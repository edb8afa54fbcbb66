//go:build !race

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// frugalApp is an application that costs little memory in the test's process: it accepts
// one connection after the other, reads the head of a request, and answers with what the
// path names.
func startFrugalApp(t testing.TB) net.Addr {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	noError(t, err)
	t.Cleanup(func() { listener.Close() })
	answers := map[string]string{
		"websocket": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"silent":    "",
		"lines":     "HTTP/1.1 200 OK\r\n" + shortLines(990),
		"long":      "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 63<<10),
		"events":    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n",
		"download":  "HTTP/1.1 200 OK\r\n\r\n",
	}
	go func() {
		head := make([]byte, 64<<10)
		var open []net.Conn // never closed, but by the end of the process
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			n, _ := c.Read(head)
			open = append(open, c)
			path := strings.TrimPrefix(strings.Fields(string(head[:n]))[1], instance.BaseURL(kubetest.ID(1)))
			_, _ = io.WriteString(c, answers[path])
			if path == "download" {
				_ = c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
				for err == nil {
					_, err = c.Write(head)
				}
			}
			_ = open
		}
	}()
	return listener.Addr()
}

// shortLines are n different header fields that are as short as possible.
func shortLines(n int) string {
	var lines strings.Builder
	for i := range n {
		fmt.Fprintf(&lines, "%s:\r\n", strconv.FormatInt(int64(i+36), 36))
	}
	return lines.String()
}

// unread returns how many bytes have arrived at a TCP port of this machine that nobody has read
// yet, and how many connections nobody has accepted: the column rx_queue of
// https://docs.kernel.org/networking/proc_net_tcp.html.
func unread(t testing.TB, address string) (n int64) {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	noError(t, err)
	number, err := strconv.Atoi(port)
	noError(t, err)
	suffix := fmt.Sprintf(":%04X", number)
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		for line := range strings.Lines(readDoc(t, file)) {
			fields := strings.Fields(line)
			if !strings.HasSuffix(fields[1], suffix) {
				continue
			}
			_, received, _ := strings.Cut(fields[4], ":")
			waiting, err := strconv.ParseInt(received, 16, 64)
			noError(t, err)
			n += waiting
		}
	}
	return n
}

// TestBytesHeld measures what each connection of a kind holds while it makes no progress.
// docs/security.md has the figures; package gate sizes its limits by the bound that is
// checked here. It does not run under the race detector, whose frames are larger than those
// of the service, and so are the stacks.
func TestBytesHeld(t *testing.T) {
	const n = 200
	base := instance.BaseURL(kubetest.ID(1))
	get := func(path, more string) string {
		return "GET " + base + path + " HTTP/1.1\r\nHost: hub.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\nAccept: */*\r\n" + more
	}
	for _, row := range []struct {
		name, send string
		answered   bool // by a whole head
		most       int  // bytes
	}{
		{"idle, after a page", "GET /nowhere HTTP/1.1\r\nHost: hub.example\r\n\r\n", true, 32 << 10},
		{"nothing sent", "", false, 32 << 10},
		{"half a head", get("silent", "A: b\r\n"), false, 32 << 10},
		{"half a head of short lines", get("silent", shortLines(240)), false, 64 << 10},
		{"a long poll", get("silent", "\r\n"), false, 64 << 10},
		{"a long poll with 64 KiB of head", get("silent", "A: "+strings.Repeat("x", 63<<10)+"\r\n\r\n"), false, 160 << 10},
		{"half a body", "PUT " + base + "silent HTTP/1.1\r\nHost: hub.example\r\nContent-Length: 1000\r\n\r\nhalf", false, 96 << 10},
		{"an answer with half a head of 990 lines", get("lines", "\r\n"), false, 256 << 10},
		{"an answer with half a head of one line", get("long", "\r\n"), false, 256 << 10},
		{"a silent event stream", get("events", "\r\n"), true, 96 << 10},
		{"an unread download", get("download", "\r\n"), false, 96 << 10},
		{"an idle WebSocket", get("websocket", "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), true, 56 << 10},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := startHostile(t, startFrugalApp(t), "--drain-timeout=0s", "--max-connections=1000", "--max-connections-per-client=1000",
				"--max-connections-per-instance=1000")
			open := func(n int) {
				for range n {
					c := a.dialRaw(t)
					_, _ = io.WriteString(c, row.send)
					if row.answered {
						res, err := http.ReadResponse(c.reader, nil)
						noError(t, err)
						if res.StatusCode == http.StatusNotFound {
							_, _ = io.Copy(io.Discard, res.Body)
						}
					}
					c.reader = nil
				}
				kubetest.Eventually(t, "the proxy has read all that was sent", func() bool { return unread(t, a.servers[proxyServer].addr()) == 0 })
			}
			open(20)
			before := held(t)
			open(n)
			each := (held(t) - before) / n
			t.Logf("%-42s %4d KiB", row.name, each>>10)
			if each > row.most {
				t.Errorf("%s: each holds %d KiB, want at most %d", row.name, each>>10, row.most>>10)
			}
		})
	}
}
