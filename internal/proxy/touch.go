package proxy

import (
	"errors"
	"io"
	"net/http"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// toucher returns the function to call when a request, or a part of its body or
// its answer, is use of an instance.
func (p *Proxy) toucher(inst instance.Instance, r *http.Request) (touch func()) {
	if p.idle.match(inst, r) {
		return func() {}
	}
	source := instance.SourceHTTP
	if isWebSocket(r.Header) {
		source = instance.SourceWebSocket
	}
	return func() { p.deps.Touch(inst.ID, source) }
}

// watchResponse counts an answer as use. It counts all later bytes too, but of a
// WebSocket only data frames. Only the application's answer makes a request count: a
// forgotten page keeps asking for what is broken. For the same reason a refused
// WebSocket does not count: a forgotten page keeps trying to open it.
func watchResponse(res *http.Response, touch func()) {
	tunnel, upgraded := res.Body.(io.ReadWriteCloser)
	upgraded = upgraded && res.StatusCode == http.StatusSwitchingProtocols
	if !upgraded && isWebSocket(res.Request.Header) {
		return
	}
	touch()
	switch {
	case !upgraded:
		res.Body = watchBody(res.Body, touch)
	case isWebSocket(res.Header):
		var toBrowser, toPod frameScanner // each is used by one goroutine
		res.Body = &stream{
			ReadCloser: tunnel, Writer: tunnel, touch: touch,
			readCounts: toBrowser.scan, writeCounts: toPod.scan, endsWhole: true,
		}
	default: // nothing is known about another protocol's bytes
		res.Body = &stream{ReadCloser: tunnel, Writer: tunnel, touch: touch, readCounts: anyByte, writeCounts: anyByte}
	}
}

// watchBody counts every byte of a body as use.
func watchBody(body io.ReadCloser, touch func()) io.ReadCloser {
	return &stream{ReadCloser: body, touch: touch, readCounts: anyByte}
}

func anyByte(p []byte) bool { return len(p) > 0 }

// stream is a body, or the pod's side of an upgraded connection. It calls touch
// for the data that counts as use.
type stream struct {
	io.ReadCloser
	io.Writer // nil for a body: nobody writes to it
	touch     func()
	// readCounts and writeCounts report whether data counts as use.
	readCounts, writeCounts func(p []byte) bool
	// endsWhole says that neither direction goes on without the other.
	endsWhole bool
}

// Read returns an error that is not io.EOF when the pod's side of a WebSocket ends:
// after an io.EOF, ReverseProxy keeps the browser's side open for as long as the
// browser likes. A WebSocket connection ends as a whole (RFC 6455, section 7.1.1).
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if s.readCounts(p[:n]) {
		s.touch()
	}
	if s.endsWhole && errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (s *stream) Write(p []byte) (int, error) {
	n, err := s.Writer.Write(p)
	if s.writeCounts(p[:n]) {
		s.touch()
	}
	return n, err
}
