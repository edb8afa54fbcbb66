package peer

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/coder/websocket"

	"github.com/binder-project/binder-deploy-kubernetes/bench/process"
)

// The paths of the backend, below any prefix.
const (
	SmallPath  = ""
	BigPath    = "big"    // answers as many bytes as ?bytes= says, and reads any body
	SocketPath = "socket" // a WebSocket that sends back what it gets
)

const (
	smallAnswer = 200 // bytes
	chunk       = 256 << 10
	frameLimit  = 1 << 20
)

// StartBackend starts an application that answers at a port of all loopback addresses, so
// that many instances can have an address each.
func StartBackend(ctx context.Context) (*Peer, error) {
	address, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	return startSelf(ctx, "backend", address, address)
}

func runBackend(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("read the address: %w", err)
	}
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return http.Serve(loopbackOnly{listener}, http.HandlerFunc(serveBackend))
}

// loopbackOnly closes connections that come from another machine.
type loopbackOnly struct{ net.Listener }

func (l loopbackOnly) Accept() (net.Conn, error) {
	for {
		connection, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if remote, ok := connection.RemoteAddr().(*net.TCPAddr); ok && remote.IP.IsLoopback() {
			return connection, nil
		}
		_ = connection.Close()
	}
}

func serveBackend(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/"+BigPath):
		serveBig(w, r)
	case strings.HasSuffix(r.URL.Path, "/"+SocketPath):
		serveSocket(w, r)
	default:
		_, _ = io.WriteString(w, strings.Repeat("a", smallAnswer)) // the client is the benchmark's own
	}
}

func serveBig(w http.ResponseWriter, r *http.Request) {
	if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{r.Body}, make([]byte, chunk)); err != nil {
		return
	}
	left, _ := strconv.Atoi(r.FormValue("bytes")) // none if there is no number
	w.Header().Set("Content-Length", strconv.Itoa(left))
	data := make([]byte, chunk)
	for left > 0 {
		n, err := w.Write(data[:min(left, chunk)])
		if err != nil {
			return
		}
		left -= n
	}
}

func serveSocket(w http.ResponseWriter, r *http.Request) {
	socket, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return
	}
	defer socket.CloseNow()
	socket.SetReadLimit(frameLimit)
	for {
		kind, data, err := socket.Read(r.Context())
		if err != nil {
			return
		}
		if err := socket.Write(r.Context(), kind, data); err != nil {
			return
		}
	}
}
