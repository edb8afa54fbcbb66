package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// rawApplication starts an application that handles connections as it likes, and
// returns its instance, which is instance 1. A connection is closed when handle
// returns.
func rawApplication(t testing.TB, handle func(c wire), changes ...func(*instance.Instance)) instance.Instance {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(3 * kubetest.Patience))
				handle(wire{conn, bufio.NewReader(conn)})
			}()
		}
	}()
	return application(t, nil, append(changes, func(inst *instance.Instance) { inst.Address = listener.Addr().String() })...)
}

// answering is a rawApplication that reads the head of each request and answers with
// the same bytes.
func answering(t testing.TB, answer string, changes ...func(*instance.Instance)) instance.Instance {
	return rawApplication(t, func(c wire) {
		for c.readHead() != "" {
			_, _ = io.WriteString(c, answer)
		}
	}, changes...)
}

// stripPrefix makes an instance expect paths without its base URL.
func stripPrefix(inst *instance.Instance) { inst.StripPrefix = true }

// readHead reads up to an empty line. It returns "" if the connection ends first.
func (w wire) readHead() string {
	var head strings.Builder
	for {
		line, err := w.reader.ReadString('\n')
		if err != nil {
			return ""
		}
		head.WriteString(line)
		if line == "\r\n" {
			return head.String()
		}
	}
}

// dial opens a connection to the proxy.
func (p *testProxy) dial(t testing.TB) wire {
	t.Helper()
	conn, err := net.Dial("tcp", p.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(kubetest.Patience)); err != nil {
		t.Fatal(err)
	}
	return wire{conn, bufio.NewReader(conn)}
}

// request writes the head of a request with the given header lines.
func (w wire) request(t testing.TB, method, target string, header ...string) {
	t.Helper()
	lines := append([]string{method + " " + target + " HTTP/1.1"}, header...)
	if !slices.ContainsFunc(header, func(line string) bool { return strings.HasPrefix(line, "Host: ") }) {
		lines = append(lines, "Host: hub.example")
	}
	if _, err := io.WriteString(w, strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
}

// closeWrite ends what the client sends.
func (w wire) closeWrite(t testing.TB) {
	t.Helper()
	if err := w.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// answer reads one whole answer.
func (w wire) answer(t testing.TB) (*http.Response, string) {
	t.Helper()
	res, err := http.ReadResponse(w.reader, nil)
	if err != nil {
		t.Fatalf("read an answer: %v", err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("read the body of an answer with code %d: %v", res.StatusCode, err)
	}
	return res, string(body)
}

// wantAnswer reads one answer and checks its code and what its body has.
func (w wire) wantAnswer(t testing.TB, code int, says string) *http.Response {
	t.Helper()
	res, body := w.answer(t)
	if res.StatusCode != code || !strings.Contains(body, says) {
		t.Errorf("got %d %.200q, want %d and %q", res.StatusCode, body, code, says)
	}
	return res
}

// wantClosed checks that the proxy has closed the connection.
func (w wire) wantClosed(t testing.TB) {
	t.Helper()
	if rest, err := io.ReadAll(w.reader); err != nil || len(rest) > 0 {
		t.Errorf("got %.200q, %v, want the end of the connection", rest, err)
	}
}
