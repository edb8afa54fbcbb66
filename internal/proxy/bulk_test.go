package proxy

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// bulkBody is a body that is longer than what buffers on its way hold.
func bulkBody() []byte {
	body := make([]byte, 1<<20+12345)
	_, _ = rand.NewChaCha8([32]byte{}).Read(body)
	return body
}

// Long answers arrive as they are, and the connections of both sides carry more requests.
func TestBulkArrivesWhole(t *testing.T) {
	body := bulkBody()
	const end = 100 // bytes that the application sends once the client has all others
	received := make(chan struct{})
	var connections atomic.Int64
	p := startProxy(t,
		rawApplication(t, func(c wire) {
			connections.Add(1)
			for {
				if _, err := http.ReadRequest(c.reader); err != nil {
					return
				}
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body))
				_, _ = c.Write(body[:len(body)-end])
				select {
				case <-received:
				case <-t.Context().Done():
					return
				}
				_, _ = c.Write(body[len(body)-end:])
			}
		}))
	c := p.dial(t)
	for range 3 {
		c.request(t, "GET", base, "A: b")
		res, err := http.ReadResponse(c.reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(body)-end)
		if _, err := io.ReadFull(res.Body, got); err != nil {
			t.Fatal(err)
		}
		received <- struct{}{}
		rest, err := io.ReadAll(res.Body)
		if got = append(got, rest...); err != nil || !bytes.Equal(got, body) {
			t.Fatalf("got %d bytes, %v, want %d", len(got), err, len(body))
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections to the application, want 1", n)
	}
}

// A long answer that breaks off, and one whose client goes, are told apart.
func TestBulkBreaksOff(t *testing.T) {
	body := bulkBody()
	for _, row := range []struct {
		name    string
		app     func(c wire)
		leaves  bool // the client
		counted int
		blamed  string
	}{
		{"the application closes", func(c wire) {}, false, 502, "broke off its answer"},
		{"the application is silent", func(c wire) { _, _ = io.Copy(io.Discard, c) }, false, 502, "broke off its answer"},
		{"the client goes", func(c wire) {
			for {
				if _, err := c.Write(body); err != nil {
					return
				}
			}
		}, true, 499, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			p := startImpatient(t, func(c wire) {
				c.readHead()
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", 100*len(body))
				_, _ = c.Write(body)
				row.app(c)
			})
			counted := &codeCounter{}
			p.Config.Handler = counted.count(p.Config.Handler)
			c := p.dial(t)
			c.request(t, "GET", base, "A: b")
			res, err := http.ReadResponse(c.reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			if row.leaves {
				_, _ = io.CopyN(io.Discard, res.Body, int64(len(body)))
				c.Close()
			} else if n, err := io.Copy(io.Discard, res.Body); err == nil || n != int64(len(body)) {
				t.Errorf("got %d bytes, %v, want %d and an error", n, err, len(body))
			}
			kubetest.Eventually(t, "the handler has ended", func() bool { return p.inFlight.Load() == 0 })
			if got := counted.code.Load(); got != int64(row.counted) {
				t.Errorf("counted as %d, want %d", got, row.counted)
			}
			if log := p.log.String(); (row.blamed == "") != (log == "") || !strings.Contains(log, row.blamed) {
				t.Errorf("logged %q, want %q", log, row.blamed)
			}
		})
	}
}

// A client that becomes slow in the middle of a long answer gets all of it, although it
// takes longer for what is written at once than it may be silent for.
func TestBulkToASlowClient(t *testing.T) {
	body := bulkBody()
	const times = 4
	p := startImpatient(t, func(c wire) {
		c.readHead()
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", times*len(body))
		for range times {
			_, _ = c.Write(body)
		}
		c.readHead()
	})
	c := p.dial(t)
	c.request(t, "GET", base, "A: b")
	res, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, part := 0, make([]byte, 1<<20)
	for err == nil {
		var n int
		n, err = io.ReadFull(res.Body, part)
		if end := got % len(body); n > 0 && !bytes.Equal(part[:min(n, len(body)-end)], body[end:min(end+n, len(body))]) {
			t.Fatalf("the bytes after %d differ", got)
		}
		got += n
		time.Sleep(impatience / 2) // how slow the client is
	}
	if got != times*len(body) {
		t.Errorf("got %d bytes, want %d", got, times*len(body))
	}
}
