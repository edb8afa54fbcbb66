package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/upstream"
)

const (
	// smallBuffer is how many bytes of a tunnel are read at once while little moves:
	// most WebSockets are idle most of the time, and there are many of them.
	smallBuffer = 2 << 10
	// copyBuffer is how many bytes are copied at once otherwise.
	copyBuffer = 32 << 10
	// closeTimeout is how long the application has to end a WebSocket whose client has
	// closed its side.
	closeTimeout = 10 * time.Second
)

var errNotAsked = errors.New("the application changed to a protocol that it was not asked for")

// tunnel joins a client and an application that have changed to another protocol,
// until both have ended.
func (v *visit) tunnel(x *upstream.Exchange, answer *http.Response) {
	protocol := upgradeOf(answer.Header)
	if wanted := upgradeOf(v.r.Header); wanted == "" || !strings.EqualFold(wanted, protocol) {
		v.fail(errNotAsked)
		return
	}
	v.touch()
	h := v.w.Header()
	v.copyHeader(answer.Header)
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", protocol)
	v.w.WriteHeader(http.StatusSwitchingProtocols)
	conn, buffered, err := v.control.Hijack()
	if err != nil {
		v.abort(http.StatusBadGateway)
	}
	defer conn.Close()
	if err := buffered.Flush(); err != nil {
		return
	}
	client, application := duplex{conn, buffered.Reader}, x.Tunnel()
	fromClient, fromApplication := anyByte, anyByte
	webSocket := strings.EqualFold(protocol, "websocket")
	if webSocket {
		counted := v.idle.counted(v.inst, v.r)
		toApplication, toClient := frameScanner{counted: counted}, frameScanner{counted: counted} // each for one goroutine
		fromClient, fromApplication = toApplication.scan, toClient.scan
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		v.pump(application, client, fromClient)
		if webSocket {
			_ = application.SetReadDeadline(v.now().Add(closeTimeout))
		}
		closeWrite(application)
	})
	v.pump(client, application, fromApplication)
	if webSocket {
		// A WebSocket connection ends as a whole (RFC 6455, section 7.1.1).
		conn.Close()
	}
	closeWrite(conn)
	sending.Wait()
}

// pump copies until from ends or to fails. It counts what the bytes are.
func (v *visit) pump(to io.Writer, from io.Reader, counts func(p []byte) bool) {
	var small [smallBuffer]byte
	var large *[copyBuffer]byte // borrowed while much moves
	defer func() { v.buffers.put(large) }()
	for {
		p := small[:]
		if large != nil {
			p = large[:]
		}
		n, err := from.Read(p)
		if counts(p[:n]) {
			v.touch()
		}
		if n > 0 {
			if _, err := to.Write(p[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
		switch {
		case large == nil && n == len(small):
			large = v.buffers.get()
		case large != nil && n < len(small):
			v.buffers.put(large)
			large = nil
		}
	}
}

// closeWrite ends one direction. If that cannot be done alone, both end.
func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		c.Close()
	}
}

// duplex is a connection with what has been read ahead of it.
type duplex struct {
	net.Conn
	reader io.Reader
}

func (d duplex) Read(p []byte) (int, error) { return d.reader.Read(p) }

// bufferPool lends the buffers that bodies are copied with.
type bufferPool struct{ pool sync.Pool }

func (b *bufferPool) get() *[copyBuffer]byte {
	if buffer, ok := b.pool.Get().(*[copyBuffer]byte); ok {
		return buffer
	}
	return new([copyBuffer]byte)
}

// put takes a buffer back; nil is none.
func (b *bufferPool) put(buffer *[copyBuffer]byte) {
	if buffer != nil {
		b.pool.Put(buffer)
	}
}
