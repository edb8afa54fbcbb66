package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/origin"
	"github.com/binder-project/binder-deploy-kubernetes/internal/pages"
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
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur < floodConns+3000 {
		t.Fatalf("it needs %d open files: the limit is %d, %v. Raise it with ulimit -n", floodConns+3000, files.Cur, err)
	}
	const bound, perClient = 1000, 100
	application := startRecordingApp(t)
	a := startHostile(t, application.Addr(), fmt.Sprint("--max-connections=", bound), fmt.Sprint("--max-connections-per-client=", perClient))
	public := a.servers[proxyServer].addr()
	base := instance.BaseURL(kubetest.ID(1))
	before := held(t)
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
		if took := held(t) - before; took > bound*32<<10+floodConns*3<<10 {
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

// A request to one of our own pages ends, whatever it asks for and however much of its body
// never comes. Those that nobody reads are answered at once.
func TestBodiesOfOwnPages(t *testing.T) {
	long, fields := strings.Repeat("x", 70<<10), strings.Repeat("a: b\r\n", 300)
	for _, row := range []struct {
		name, request string
		code          string // the beginning of the answer; "" for none
		within        time.Duration
	}{
		{"a form", "POST /launch/jupyter HTTP/1.1\r\nHost: hub.example\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 10\r\n\r\nhalf", "HTTP/1.1 400", formTimeout},
		{"a form that is too long", "POST /launch/jupyter HTTP/1.1\r\nHost: hub.example\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 200000\r\n\r\n" + long, "HTTP/1.1 413", formTimeout},
		{"a body that nobody reads", "POST /progress/x HTTP/1.1\r\nHost: hub.example\r\nContent-Length: 10\r\n\r\nhalf", "HTTP/1.1 404", formTimeout},
		{"in chunks", "POST /progress/x HTTP/1.1\r\nHost: hub.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal", "HTTP/1.1 404", formTimeout},
		{"another host", "POST /launch/jupyter HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 10\r\n\r\nhalf", "HTTP/1.1 421", 0},
		{"too many fields", "POST /launch/jupyter HTTP/1.1\r\nHost: hub.example\r\n" + fields + "Content-Length: 10\r\n\r\nhalf", "HTTP/1.1 431", 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			reader := &oneInstance{}
			own := pages.New(pages.Deps{Instances: reader, Launcher: &fakeLauncher{}, Templates: reader, Client: func(*http.Request) string { return "" }, Draining: t.Context(), Log: kubetest.NoLog()})
			layout := origin.Layout{Public: []string{"hub.example"}}
			listener := newPipeListener()
			server := newServer("proxy", listener, routePublic(newTestMetrics(), pages.OrOwn(nil), map[string]http.Handler{pages.LaunchPrefix: own.Launch(), pages.ProgressPrefix: own.Progress()}, layout, http.NotFoundHandler()), longRequests(), kubetest.NoLog())
			served := make(chan error, 1)
			go func() { served <- server.serve() }()
			client, accepted := net.Pipe()
			listener.conns <- accepted
			go func() { _, _ = io.WriteString(client, row.request) }()
			began := time.Now()
			_ = client.SetReadDeadline(began.Add(5 * time.Minute))
			answer, err := io.ReadAll(client)
			if took := time.Since(began); err != nil || !strings.HasPrefix(string(answer), row.code) || took > row.within+time.Second {
				t.Errorf("%s: got %.60q, %v, after %s; want %s and the end within %s", row.name, answer, err, took, row.code, row.within)
			}
			client.Close()
			server.shutdown(time.Second)
			noError(t, receive(t, served))
		})
	}
}

// held returns the bytes that the process holds in its heap and stacks, once that is steady: for
// as long as a few looks at it.
func held(t testing.TB) (bytes int) {
	t.Helper()
	const looks = 20
	steady := 0
	kubetest.Eventually(t, "the memory is steady", func() bool {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // sync.Pool keeps its things for one
		runtime.ReadMemStats(&m)
		now := int(m.HeapAlloc + m.StackInuse)
		if change := now - bytes; change <= -64<<10 || change >= 64<<10 {
			steady = 0
		}
		bytes = now
		steady++
		return steady > looks
	})
	return bytes
}
