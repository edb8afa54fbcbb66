package proxy

import (
	"bufio"
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
	// closeTimeout is how long one side has to end a WebSocket that the other has ended.
	closeTimeout = 5 * time.Second
)

var errNotAsked = errors.New("the application changed to a protocol that it was not asked for")

// tunnel joins a client and an application that have changed to another protocol,
// until both have ended.
func (v *visit) tunnel(x *upstream.Exchange, answer *http.Response) {
	protocol := upgradeOf(answer.Header)
	if wanted := upgradeOf(v.r.Header); wanted == "" || v.body != nil || !strings.EqualFold(wanted, protocol) {
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
	v.visitor.settle() // the connection's ends are seen here now
	if err := buffered.Flush(); err != nil {
		return
	}
	client, application := &duplex{conn, buffered.Reader}, x.Tunnel()
	toClient := io.Writer(client)
	fromClient, fromApplication := anyByte, anyByte
	webSocket := strings.EqualFold(protocol, "websocket")
	if webSocket {
		counted := v.idle.counted(v.inst, v.r)
		sent, received := frameScanner{counted: counted}, frameScanner{counted: counted} // each for one goroutine
		fromClient, fromApplication = sent.scan, received.scan
		side := &visitorSide{id: v.inst.ID, opened: v.now(), client: client, application: application, now: v.now}
		defer v.sockets.add(side)()
		toClient = side
	}
	var sending sync.WaitGroup
	sending.Go(func() { v.toApplication(application, client, fromClient, webSocket) })
	v.toClient(toClient, client, application, fromApplication, webSocket)
	sending.Wait()
}

// toApplication passes on what the client sends, and then ends that direction.
func (v *visit) toApplication(application, client net.Conn, counts func(p []byte) bool, webSocket bool) {
	readErr, writeErr := v.pump(application, client, counts)
	switch {
	case writeErr != nil: // the application has ended
		v.drop(client)
	case !errors.Is(readErr, io.EOF) || closeWrite(application) != nil:
		application.Close()
	case webSocket:
		_ = application.SetReadDeadline(v.now().Add(closeTimeout)) // fails only once it is closed
	}
}

// toClient passes on what the application sends, and then ends that direction. A
// WebSocket connection ends as a whole (RFC 6455, section 7.1.1).
func (v *visit) toClient(to io.Writer, client, application net.Conn, counts func(p []byte) bool, webSocket bool) {
	readErr, writeErr := v.pump(to, application, counts)
	if writeErr != nil || !errors.Is(readErr, io.EOF) || closeWrite(client) != nil {
		client.Close()
		application.Close()
		return
	}
	if webSocket {
		application.Close()
		_ = client.SetReadDeadline(v.now().Add(closeTimeout)) // fails only once it is closed
	}
}

// drop reads what a client still sends, for a while: if it were left unread, closing the
// connection would reset it, and the client could lose the end of what it was sent.
func (v *visit) drop(client net.Conn) {
	_ = client.SetReadDeadline(v.now().Add(closeTimeout)) // fails only once it is closed
	_, _ = io.Copy(io.Discard, struct{ io.Reader }{client})
}

// pump copies until from ends, or to takes no more; one of the errors is not nil. Bytes
// that counts accepts are use of the instance.
func (v *visit) pump(to io.Writer, from io.Reader, counts func(p []byte) bool) (readErr, writeErr error) {
	var small [smallBuffer]byte
	var large *[upstream.BufferSize]byte // borrowed while much moves
	defer func() { v.buffers.Put(large) }()
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
				return nil, err
			}
		}
		if err != nil {
			return err, nil
		}
		switch {
		case large == nil && n == len(small):
			large = v.buffers.Get()
		case large != nil && n < len(small):
			v.buffers.Put(large)
			large = nil
		}
	}
}

// closeWrite ends the direction to a peer.
func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// duplex is a connection with what has been read ahead of it.
type duplex struct {
	net.Conn
	ahead *bufio.Reader // nil once nothing is left of it
}

// Read reads first what has been read ahead.
func (d *duplex) Read(p []byte) (int, error) {
	if d.ahead != nil && d.ahead.Buffered() > 0 {
		return d.ahead.Read(p)
	}
	d.ahead = nil
	return d.Conn.Read(p)
}

// CloseWrite ends the direction to the client.
func (d *duplex) CloseWrite() error { return closeWrite(d.Conn) }
