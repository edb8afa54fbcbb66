package rawapp

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

var errEnd = errors.New("the script has closed the connection")

// request is a request that is being answered.
type request struct {
	conn     net.Conn
	reader   *bufio.Reader
	head     []byte
	recorder *recorder // nil for requests that are not recorded
	consumed bool      // whether the body has been read, in part or whole
}

// answer reads the body and sends an answer of the application's own.
func (r *request) answer(status, body string) (keep bool) {
	if r.readBody() != nil {
		return false
	}
	_, err := fmt.Fprintf(r.conn, "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
	return err == nil
}

func (r *request) perform(p *play, step Step) error {
	_ = r.conn.SetDeadline(time.Now().Add(idleTimeout))
	switch step.Op {
	case OpSend:
		for range max(step.N, 1) {
			_ = r.conn.SetDeadline(time.Now().Add(idleTimeout))
			if _, err := r.conn.Write(step.Data); err != nil {
				return err
			}
		}
		return nil
	case OpRead:
		if step.N == 0 {
			return r.readBody()
		}
		r.consumed = true
		_, err := io.CopyN(r.recorder.wire(true), r.reader, step.N)
		return err
	case OpEcho:
		if err := r.readBody(); err != nil {
			return err
		}
		record := r.recorder.record()
		_, err := fmt.Fprintf(r.conn, "HTTP/1.1 200 OK\r\nContent-Type: message/http\r\nContent-Length: %d\r\n\r\n%s%s",
			len(record.Head)+len(record.Body), record.Head, record.Body)
		return err
	case OpWait:
		return wait(p.gate(step.Gate), idleTimeout)
	case OpPause:
		time.Sleep(time.Duration(step.N) * time.Millisecond)
		return nil
	case OpWebSocket:
		return r.webSocket(step.N)
	}
	return r.end(step.Op)
}

func wait(gate <-chan struct{}, limit time.Duration) error {
	select {
	case <-gate:
		return nil
	case <-time.After(limit):
		return errors.New("nobody has opened the gate")
	}
}

// end closes the connection in one of the ways that a script can ask for.
func (r *request) end(how Op) error {
	switch how {
	case OpReset:
		if tcp, ok := r.conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
	case OpLinger:
		if half, ok := r.conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
		_, _ = io.Copy(io.Discard, r.reader)
	case OpHold:
		_, _ = io.Copy(r.recorder.wire(true), r.reader)
		r.recorder.finish(nil)
	}
	_ = r.conn.Close()
	return errEnd
}

// readBody reads the whole body, once.
func (r *request) readBody() error {
	if r.consumed {
		return nil
	}
	r.consumed = true
	header := fields(r.head)
	var err error
	switch {
	case strings.EqualFold(header.Get("Transfer-Encoding"), "chunked"):
		err = r.readChunks()
	case header.Get("Content-Length") != "":
		var length int64
		if length, err = strconv.ParseInt(header.Get("Content-Length"), 10, 64); err == nil {
			_, err = io.CopyN(r.recorder.wire(true), r.reader, length)
		}
	}
	r.recorder.finish(err)
	return err
}

// readChunks reads a chunked body with its trailers (RFC 9112, section 7.1).
func (r *request) readChunks() error {
	wire, content := r.recorder.wire(false), r.recorder.wire(true)
	for last := false; ; {
		line, err := r.reader.ReadSlice('\n')
		if err != nil {
			return err
		}
		_, _ = wire.Write(line)
		text := strings.TrimRight(string(line), "\r\n")
		if last {
			if text == "" {
				return nil
			}
			continue // a trailer field
		}
		size, err := strconv.ParseInt(strings.TrimSpace(strings.Split(text, ";")[0]), 16, 63)
		if err != nil {
			return err
		}
		if last = size == 0; last {
			continue
		}
		if _, err := io.CopyN(content, r.reader, size); err != nil {
			return err
		}
		if line, err = r.reader.ReadSlice('\n'); err != nil {
			return err
		}
		_, _ = wire.Write(line)
	}
}

// fields returns the header fields of a head. It skips what it cannot read.
func fields(head []byte) http.Header {
	header := http.Header{}
	for line := range strings.SplitSeq(string(head), "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			header.Add(name, strings.TrimSpace(value))
		}
	}
	return header
}

// recorder makes a Record while a body arrives. The methods of a nil recorder
// record nothing.
type recorder struct {
	mu     sync.Mutex
	kept   Record
	digest hash.Hash
}

func newRecorder(head []byte) *recorder {
	return &recorder{kept: Record{Head: head}, digest: sha256.New()}
}

// wire returns a writer for bytes as they arrive. content says that they are part of
// the body's content.
func (r *recorder) wire(content bool) io.Writer {
	if r == nil {
		return io.Discard
	}
	return recordWriter{r, content}
}

type recordWriter struct {
	*recorder
	content bool
}

func (w recordWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept.Body = append(w.kept.Body, p[:min(len(p), maxKept-len(w.kept.Body))]...)
	if w.content {
		w.kept.Size += int64(len(p))
		w.digest.Write(p)
	}
	return len(p), nil
}

func (r *recorder) finish(err error) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept.Whole = err == nil
}

func (r *recorder) done() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept.Done = true
}

func (r *recorder) record() Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := r.kept
	kept.Body = append([]byte(nil), kept.Body...)
	kept.SHA256 = hex.EncodeToString(r.digest.Sum(nil))
	return kept
}
