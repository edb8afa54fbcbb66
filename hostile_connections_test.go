package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// floodConns is how many connections a flood opens.
const floodConns = 10_000

// flood opens connections from some local addresses, one after the other at each, and sends
// something on each. If that is a request, it waits for the answer, and returns how often
// each code came.
func flood(t *testing.T, address string, hosts, each int, send string) (conns []net.Conn, codes map[int]int) {
	t.Helper()
	codes = map[int]int{}
	var mu sync.Mutex
	var opening sync.WaitGroup
	for host := range hosts {
		opening.Go(func() {
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(host+1))}, Timeout: kubetest.Patience}
			for range each {
				c, err := dialer.Dial("tcp", address)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.WriteString(c, send)
				code := 0
				if strings.Contains(send, "\r\n\r\n") {
					_ = c.SetReadDeadline(time.Now().Add(kubetest.Patience))
					if res, err := http.ReadResponse(bufio.NewReaderSize(c, 256), nil); err == nil {
						code = res.StatusCode
					}
				}
				mu.Lock()
				conns = append(conns, c)
				codes[code]++
				mu.Unlock()
			}
		})
	}
	opening.Wait()
	return conns, codes
}

// Ten thousand connections of strangers, that are idle or send nothing, take a bounded part
// of the memory, and keep neither operators nor visitors out.
func TestTenThousandConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("it opens ten thousand connections")
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur < floodConns+3000 {
		t.Skipf("it needs %d open files: the limit is %d, %v", floodConns+3000, files.Cur, err)
	}
	const bound, perClient = 1000, 100
	application := startRecordingApp(t)
	a := startHostile(t, application.Addr(), fmt.Sprint("--max-connections=", bound), fmt.Sprint("--max-connections-per-client=", perClient))
	public := a.servers[proxyServer].addr()
	base := instance.BaseURL(kubetest.ID(1))
	before := held()
	closeAll := func(conns []net.Conn) {
		for _, c := range conns {
			c.Close()
		}
		kubetest.Eventually(t, "the connections are closed", func() bool { return metric(t, a.metrics, "binder_proxy_connections") == 0 })
	}
	check := func(name string) {
		t.Helper()
		if open := metric(t, a.metrics, "binder_proxy_connections"); open > bound {
			t.Errorf("%s: %g connections are open, want at most %d", name, open, bound)
		}
		wantEqual(t, name+": the API answers", call(t, "GET", a.url(apiServer, "/applications/"), "").code, 200)
		wantEqual(t, name+": the kubelet's probe", call(t, "GET", a.url(metricsServer, "/readyz"), "").code, 200)
		// Each connection of the flood takes about 2 KiB in this process as well.
		if took := held() - before; took > bound*32<<10+floodConns*3<<10 {
			t.Errorf("%s: %d MiB are held", name, took>>20)
		} else {
			t.Logf("%s: %d MiB are held, half of it by this test", name, took>>20)
		}
	}

	refused := func(limit string) float64 {
		return metric(t, a.metrics, "binder_proxy_connections_refused_total", limit)
	}

	// Each asks and then is idle. Those that are idle for the longest make room.
	conns, codes := flood(t, public, 20, floodConns/20, "GET "+base+"x HTTP/1.1\r\nHost: hub.example\r\n\r\n")
	wantEqual(t, "idle: answers", fmt.Sprint(codes), fmt.Sprint(map[int]int{200: floodConns}))
	check("idle")
	wantEqual(t, "idle: a visitor", call(t, "GET", a.url(proxyServer, base), "").code, 200)
	wantEqual(t, "idle: refused", refused("max_connections")+refused("max_connections_per_client"), 0)
	closeAll(conns)

	// Each sends nothing, or a byte. A client gets its share, and is refused beyond that;
	// when all clients together have everything, visitors are told to come back.
	for _, send := range []string{"", "G"} {
		began := time.Now()
		before := refused("max_connections_per_client")
		conns, _ = flood(t, public, 1, perClient+20, send)
		kubetest.Eventually(t, "the client's share is used up", func() bool { return refused("max_connections_per_client")-before >= 20 })
		all, _ := flood(t, public, 20, perClient, send)
		conns = append(conns, all...)
		kubetest.Eventually(t, "all are used up", func() bool {
			got := call(t, "GET", a.url(proxyServer, base), "")
			return got.code == 503 && got.header.Get("Retry-After") == "5"
		})
		check("silent")
		kubetest.Eventually(t, "heads that do not come in time make room", func() bool {
			for _, c := range conns {
				_, _ = c.Write([]byte(send)) // which does not help them
			}
			return time.Since(began) > kubetest.Patience/2 && call(t, "GET", a.url(proxyServer, base), "").code == 200
		})
		closeAll(conns)
	}
}

// A request to one of our own pages must come as a whole: net/http would wait for its body
// for as long as the client likes.
func TestBodiesOfOwnPages(t *testing.T) {
	for _, row := range []struct {
		name   string
		handle http.HandlerFunc
	}{
		{"read", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.ReadAll(r.Body) }},
		{"not read", func(http.ResponseWriter, *http.Request) {}},
	} {
		t.Run(row.name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			noError(t, err)
			server := &http.Server{Handler: ownPage(row.handle, 100*time.Millisecond)}
			go func() { _ = server.Serve(listener) }()
			defer server.Close()
			c, err := net.Dial("tcp", listener.Addr().String())
			noError(t, err)
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(kubetest.Patience))
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
			answer, err := io.ReadAll(c)
			if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 200")) {
				t.Errorf("got %q, %v, want an answer, and the end", answer, err)
			}
		})
	}
}
