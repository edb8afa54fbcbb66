package rawapp

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// webSocket answers a handshake and echoes messages until the connection ends.
func (r *request) webSocket(compression int64) error {
	parsed, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(r.head)))
	if err != nil {
		return fmt.Errorf("read the handshake: %w", err)
	}
	mode := []websocket.CompressionMode{websocket.CompressionDisabled, websocket.CompressionContextTakeover, websocket.CompressionNoContextTakeover}[compression]
	connection, err := websocket.Accept(&hijacked{request: r, header: http.Header{}}, parsed, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // the proxy, which is under test, checks the origin
		CompressionMode:    mode,
	})
	if err != nil {
		return err
	}
	defer connection.CloseNow()
	connection.SetReadLimit(maxMessage)
	ctx, cancel := context.WithTimeout(context.Background(), idleTimeout)
	defer cancel()
	for {
		// Read the whole message first: a client may not read while it sends.
		kind, message, err := connection.Read(ctx)
		if err != nil {
			return err
		}
		if err := connection.Write(ctx, kind, message); err != nil {
			return err
		}
	}
}

// hijacked is the http.ResponseWriter that websocket.Accept needs.
type hijacked struct {
	*request
	header http.Header
}

func (h *hijacked) Header() http.Header { return h.header }

func (h *hijacked) Write(p []byte) (int, error) { return h.conn.Write(p) }

func (h *hijacked) WriteHeader(code int) {
	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 %d %s\r\n", code, http.StatusText(code))
	_ = h.header.Write(&head) // a bytes.Buffer takes everything
	head.WriteString("\r\n")
	_, _ = h.conn.Write(head.Bytes()) // a broken connection shows at the next read
}

func (h *hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	_ = h.conn.SetDeadline(time.Time{})
	return h.conn, bufio.NewReadWriter(h.reader, bufio.NewWriter(h.conn)), nil
}
