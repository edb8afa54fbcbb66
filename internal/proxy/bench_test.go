package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/origin"
)

const browserHead = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n" +
	"Referer: http://hub.example/user/x/lab\r\nCookie: a=b; _xsrf=2|1234|abcdef|1700000000"

// answersAll answers every request on a connection in the same way, and allocates nothing
// for it: so what a benchmark counts is the proxy's.
func answersAll(b *testing.B, answer string) instance.Instance {
	return rawApplication(b, func(c wire) {
		head := make([]byte, 0, 4<<10)
		for {
			line, err := c.reader.ReadSlice('\n')
			if err != nil {
				return
			}
			if head = append(head, line...); len(line) > len("\r\n") {
				continue
			}
			head = head[:0]
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	})
}

// BenchmarkSmallGet is a small GET through the whole of the proxy, over loopback.
func BenchmarkSmallGet(b *testing.B) {
	p := startProxy(b, answersAll(b, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Sat, 28 Nov 2026 00:00:00 GMT\r\nContent-Length: 200\r\n\r\n"+strings.Repeat("x", 200)))
	conn, err := net.Dial("tcp", p.Listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	request := "GET " + base + "api/status HTTP/1.1\r\nHost: hub.example\r\n" + browserHead + "\r\n\r\n"
	answer := make([]byte, 4<<10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.WriteString(conn, request); err != nil {
			b.Fatal(err)
		}
		if _, err := conn.Read(answer); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBulk is a download of 16 MiB.
func BenchmarkBulk(b *testing.B) {
	const size = 16 << 20
	p := startProxy(b, answersAll(b, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)+strings.Repeat("x", size)))
	conn, err := net.Dial("tcp", p.Listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	reader, part := bufio.NewReader(conn), make([]byte, 256<<10)
	b.SetBytes(size)
	for b.Loop() {
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: hub.example\r\n\r\n", base)
		res, err := http.ReadResponse(reader, nil)
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, res.Body, part); n != size || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkFrames(b *testing.B) {
	for _, size := range []int{20, 1 << 10, 30 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			piece := maskedFrame(size)
			for len(piece) < smallPiece {
				piece = append(piece, maskedFrame(size)...)
			}
			scanner := frameScanner{}
			b.SetBytes(int64(len(piece)))
			for b.Loop() {
				scanner.scan(piece)
			}
		})
	}
}

const smallPiece = 32 << 10

// maskedFrame is a binary message of a client.
func maskedFrame(size int) []byte {
	head := []byte{finBit | 2, maskBit | 126, byte(size >> 8), byte(size), 1, 2, 3, 4}
	if size < 126 {
		head = []byte{finBit | 2, maskBit | byte(size), 1, 2, 3, 4}
	}
	return append(head, make([]byte, size)...)
}

// BenchmarkConfine is what becomes of the header fields of a request and of its answer.
func BenchmarkConfine(b *testing.B) {
	for name, layout := range map[string]origin.Layout{
		"one host": {}, "own host": {Public: []string{"hub.example"}, Domain: "users.example"},
	} {
		b.Run(name, func(b *testing.B) {
			p := New(Deps{Layout: layout, HideCookies: []string{"session*"}, IsAPIKey: func(string) bool { return false }})
			r := httptest.NewRequest("GET", base+"lab", nil)
			for line := range strings.SplitSeq(browserHead, "\r\n") {
				name, value, _ := strings.Cut(line, ": ")
				r.Header.Set(name, value)
			}
			inst := instance.Instance{ID: kubetest.ID(1), Address: "10.0.0.7:8888"}
			v := &visit{Proxy: p, r: r, inst: inst, mapping: newMapping(r, inst).within(layout)}
			b.ReportAllocs()
			for b.Loop() {
				v.request()
				v.confine(http.Header{
					"Content-Type": {"text/html"}, "Content-Length": {"200"}, "Date": {"Sat, 28 Nov 2026 00:00:00 GMT"}, "Server": {"TornadoServer/6"},
					"Etag": {`"abc"`}, "Set-Cookie": {"_xsrf=2|1234; Path=" + base}, "Location": {base + "lab"},
				})
			}
		})
	}
}
