package upstream

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"reflect"
	"testing"
	"time"
)

// scriptedConn is a connection to an application that has sent its answer already. Each
// Read returns at most as much as the next of the sizes says.
type scriptedConn struct {
	net.Conn // nil
	answer   *bytes.Reader
	sizes    []byte
	reads    int
}

func (c *scriptedConn) Read(p []byte) (int, error) {
	if len(c.sizes) > 0 {
		p = p[:min(len(p), 1+int(c.sizes[c.reads%len(c.sizes)]))]
		c.reads++
	}
	return c.answer.Read(p)
}

func (c *scriptedConn) Write(p []byte) (int, error)      { return len(p), nil }
func (c *scriptedConn) Close() error                     { return nil }
func (c *scriptedConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptedConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptedConn) SetWriteDeadline(time.Time) error { return nil }

// FuzzAnswer reads answers as net/http does. Where both accept one, they agree on it, and
// on where it ends: a connection is used again only there. What this package accepts alone
// is not more than what has arrived.
func FuzzAnswer(f *testing.F) {
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore", "HTTP/1.0 200 OK\r\n\r\nok",
		chunked + "\r\n2\r\nok\r\n0\r\n\r\n", chunked + "Trailer: A, B\r\n\r\n2;x=\"y\"\r\nok\r\n0000\r\nA: b\r\nC: d\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
		chunked + "\r\n2 \t\r\nok\n0\n\n", chunked + "\r\n+2\r\nok\r\n0\r\n\r\n", chunked + "\r\n2\r\nokay\r\n0\r\n\r\n", chunked + "\r\nffffffffffffffff\r\nx",
		chunked + "\r\n00000000000000002\r\nok\r\n0\r\n\r\n", chunked + "\r\n0x2\r\nok\r\n0\r\n\r\n", chunked + "\r\n2\r\nok\r\n0\r\nbad trailer\r\n\r\n",
		chunked + "Content-Length: 3\r\n\r\n2\r\nok\r\n0\r\n\r\n", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "HTTP/1.1 099 x\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nabc", "HTTP/1.1 200 OK\r\nA : b\r\n c\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
	} {
		f.Add([]byte(seed), "GET", []byte{})
		f.Add([]byte(seed), "HEAD", []byte{0, 3})
	}
	f.Fuzz(func(t *testing.T, answer []byte, method string, sizes []byte) {
		conn := &scriptedConn{answer: bytes.NewReader(answer), sizes: sizes}
		p := NewPool(func(context.Context, string) (net.Conn, error) { return conn, nil }, time.Now, time.Minute)
		x, err := p.Start(t.Context(), "app:80", &Request{Method: method, Target: "/", Host: "app", Header: http.Header{}, ContentLength: -1})
		if err != nil {
			return // the method has a line break
		}
		defer x.Close()
		res, err := x.Answer()
		if err != nil {
			return
		}
		if res.StatusCode == http.StatusSwitchingProtocols {
			return // what follows is no answer
		}
		body, err := io.ReadAll(x)
		if err != nil {
			return
		}
		if len(body) > len(answer) {
			t.Fatalf("%q has a body of %d bytes", answer, len(body))
		}
		kept := x.isReusable()
		reader := bufio.NewReader(bytes.NewReader(answer))
		theirs, theirBody, err := readByNetHTTP(reader, method)
		if err != nil {
			return
		}
		if !bytes.Equal(body, theirBody) {
			t.Errorf("%q: got the body %q, and net/http %q", answer, body, theirBody)
		}
		if res.StatusCode != theirs.StatusCode || !reflect.DeepEqual(res.Header, theirs.Header) {
			t.Errorf("%q: got %d %v, and net/http %d %v", answer, res.StatusCode, res.Header, theirs.StatusCode, theirs.Header)
		}
		if len(res.Trailer)+len(theirs.Trailer) > 0 && !reflect.DeepEqual(res.Trailer, theirs.Trailer) {
			t.Errorf("%q: got the trailer %v, and net/http %v", answer, res.Trailer, theirs.Trailer)
		}
		if rest, _ := io.ReadAll(reader); kept && conn.answer.Len() != len(rest) {
			t.Errorf("%q: the connection is used again before %d bytes, and net/http before %q", answer, conn.answer.Len(), rest)
		}
	})
}

// readByNetHTTP reads the final answer and its body.
func readByNetHTTP(r *bufio.Reader, method string) (*http.Response, []byte, error) {
	for {
		res, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return nil, nil, err
		}
		if res.StatusCode >= 200 {
			body, err := io.ReadAll(res.Body)
			return res, body, err
		}
	}
}
