package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/upstream"
)

// closeTimeout is how long one side has to end a WebSocket that the other has ended.
const closeTimeout = 5 * time.Second

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
	v.deps.Metrics.Answered(v.inst.Template, answer.StatusCode, v.now().Sub(v.began))
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
	client, ahead := conn, readAhead(buffered.Reader)
	application, answered := x.Tunnel()
	toClient := io.Writer(client)
	fromClient, fromApplication := anyByte, anyByte
	ended := func(string, error) {}
	webSocket := strings.EqualFold(protocol, "websocket")
	if webSocket {
		counted := v.idle.counted(v.inst, v.r)
		sent, received := frameScanner{counted: counted}, frameScanner{counted: counted} // each for one goroutine
		fromClient, fromApplication = sent.scan, received.scan
		side := &visitorSide{id: v.inst.ID, opened: v.now(), client: client, application: application, now: v.now}
		defer v.sockets.add(side)()
		toClient = side
		var end func()
		ended, end = v.countWebSocket(side)
		defer end()
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		v.toApplication(application, v.source(client, ahead), fromClient, webSocket, ended)
	})
	v.toClient(toClient, client, v.source(application, answered), fromApplication, webSocket, ended)
	sending.Wait()
}

// countWebSocket counts a WebSocket as open until end is called. ended is told of each side
// that ends, and how; the first has ended the WebSocket, unless this service has.
func (v *visit) countWebSocket(side *visitorSide) (ended func(by string, how error), end func()) {
	type ending struct {
		by  string
		how error
	}
	v.deps.Metrics.WebSocketOpened()
	var first atomic.Pointer[ending]
	ended = func(by string, how error) {
		if side.isAsked() {
			by = endedByService
		}
		first.CompareAndSwap(nil, &ending{by, how})
	}
	return ended, func() {
		e := first.Load()
		v.deps.Metrics.WebSocketEnded(e.by)
		v.deps.Log.DebugContext(v.r.Context(), "a WebSocket has ended", "pod", instance.PodName(v.inst.ID),
			"by", e.by, "error", v.forLog(e.how), "age", v.now().Sub(side.opened))
	}
}

// toApplication passes on what the client sends, and then ends that direction.
func (v *visit) toApplication(application net.Conn, client *source, counts func(p []byte) bool, webSocket bool, ended func(by string, how error)) {
	readErr, writeErr := v.pump(application, client, counts, v.deps.Metrics.SentToInstance)
	if writeErr != nil {
		ended(endedByInstance, writeErr)
	} else {
		ended(endedByVisitor, readErr)
	}
	switch {
	case writeErr != nil: // the application has ended
		v.drop(client.conn)
	case !errors.Is(readErr, io.EOF) || closeWrite(application) != nil:
		application.Close()
	case webSocket:
		_ = application.SetReadDeadline(v.now().Add(closeTimeout)) // fails only once it is closed
	}
}

// toClient passes on what the application sends, and then ends that direction. A
// WebSocket connection ends as a whole (RFC 6455, section 7.1.1).
func (v *visit) toClient(to io.Writer, client net.Conn, application *source, counts func(p []byte) bool, webSocket bool, ended func(by string, how error)) {
	readErr, writeErr := v.pump(to, application, counts, v.deps.Metrics.SentToVisitor)
	if writeErr != nil {
		ended(endedByVisitor, writeErr)
	} else {
		ended(endedByInstance, readErr)
	}
	if writeErr != nil || !errors.Is(readErr, io.EOF) || closeWrite(client) != nil {
		client.Close()
		application.conn.Close()
		return
	}
	if webSocket {
		application.conn.Close()
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
// that counts accepts are use of the instance. passed counts all of them.
func (v *visit) pump(to io.Writer, from *source, counts func(p []byte) bool, passed func(n int)) (readErr, writeErr error) {
	defer from.release()
	for {
		p, err := from.next()
		if counts(p) {
			v.touch()
		}
		if len(p) > 0 {
			if _, err := to.Write(p); err != nil {
				return nil, err
			}
			passed(len(p))
		}
		if err != nil {
			return err, nil
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
