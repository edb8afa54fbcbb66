package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// pipeListener is a listener in memory, so that time can be synctest's.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (l *pipeListener) dial() (net.Conn, error) {
	browser, server := net.Pipe()
	select {
	case l.conns <- server:
		return browser, nil
	case <-l.closed:
		return nil, errRefused
	}
}

// errRefused stands for what the system says when nobody listens.
var errRefused = errors.New("connection refused")

// inMemory gives an app listeners in memory in place of those it opened.
func inMemory(a *app) (metrics, api *pipeListener) {
	listeners := make([]*pipeListener, len(a.servers))
	for i, s := range a.servers {
		s.listener.Close()
		listeners[i] = newPipeListener()
		s.listener = listeners[i]
	}
	return listeners[0], listeners[1]
}

// pipeRequest is a request whose body is sent bit by bit.
type pipeRequest struct {
	conn net.Conn
}

// begin sends a request's header and returns; its body is of a size.
func begin(t testing.TB, l *pipeListener, method, path string, size int) pipeRequest {
	t.Helper()
	conn, err := l.dial()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: binder.example\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", method, path, size); err != nil {
		t.Fatal(err)
	}
	synctest.Wait() // until the handler waits for the body
	return pipeRequest{conn}
}

// end sends the body and returns the answer; the code is 0 when there is none.
func (r pipeRequest) end(t testing.TB, body string) (int, string) {
	t.Helper()
	defer r.conn.Close()
	if _, err := io.WriteString(r.conn, body); err != nil {
		return 0, err.Error()
	}
	res, err := http.ReadResponse(bufio.NewReader(r.conn), nil)
	if err != nil {
		return 0, err.Error()
	}
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Error(err)
	}
	return res.StatusCode, string(answer)
}

// runAppInMemory runs an app with listeners in memory until ctx is done, and
// returns when it serves.
func runAppInMemory(ctx context.Context, a *app) (metrics, api *pipeListener, ended <-chan error) {
	metrics, api = inMemory(a)
	end := make(chan error, 1)
	go func() { end <- a.run(ctx) }()
	time.Sleep(time.Second) // no time at all, and enough for everything to have begun
	return metrics, api, end
}

// TestAppEndsInOrder: unready first while it still serves; then the requests
// under way; then the activity; and no error.
func TestAppEndsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := kubetest.NewServer(time.Now, kubetest.Pod(kubetest.ID(1), time.Now()), kubetest.Template("jupyter"))
		a := newTestApp(t, testConfig(t, "--shutdown-delay=5s", "--drain-timeout=20s"), server.Client, kubetest.NoLog())
		ctx, cancel := context.WithCancel(t.Context())
		metrics, api, ended := runAppInMemory(ctx, a)
		get := func(l *pipeListener, path string) int {
			code, _ := begin(t, l, "GET", path, 0).end(t, "")
			return code
		}
		if got := get(metrics, "/readyz"); got != 200 {
			t.Fatalf("not ready: %d", got)
		}
		const body = `{"template-name": "jupyter"}`
		launch := begin(t, api, "POST", "/applications", len(body))

		began := time.Now()
		cancel()
		synctest.Wait()
		if got := get(metrics, "/readyz"); got != 503 {
			t.Errorf("asked to end, and readiness is %d, want 503", got)
		}
		time.Sleep(4 * time.Second) // until the load balancers have noticed, visitors come
		if got := get(api, "/applications/jupyter/"+kubetest.ID(1)); got != 200 {
			t.Errorf("during the delay a request is answered with %d, want 200", got)
		}
		a.activity.Touch(kubetest.ID(1), instance.SourceHTTP)

		time.Sleep(10 * time.Second) // now it drains
		if _, err := api.dial(); !errors.Is(err, errRefused) {
			t.Errorf("a new visitor comes in while it drains: %v", err)
		}
		if len(ended) > 0 {
			t.Fatal("it has ended, with a request under way")
		}
		code, answer := launch.end(t, body)
		if code != 200 || !strings.Contains(answer, `"id"`) {
			t.Errorf("the request under way got %d %s, want 200 and an id", code, answer)
		}
		if err := receive(t, ended); err != nil {
			t.Errorf("ended with %v", err)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("ended %s after it was asked to, though the last request ended after 14s", took)
		}
		writes := server.Writes()
		created := slices.IndexFunc(writes, func(action k8stesting.Action) bool { return action.Matches("create", "pods") })
		flushed := slices.IndexFunc(writes, isActivityPatch(kubetest.ID(1)))
		if created < 0 || flushed < created {
			t.Errorf("the launch was write %d and the activity write %d, want the activity after it", created, flushed)
		}
	})
}

func TestAppCutsOffWhatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, out := kubetest.RecordLog()
		a := newTestApp(t, testConfig(t, "--drain-timeout=3s"), kubetest.NewServer(time.Now, kubetest.Template("jupyter")).Client, log)
		ctx, cancel := context.WithCancel(t.Context())
		_, api, ended := runAppInMemory(ctx, a)
		launch := begin(t, api, "POST", "/applications", 100)
		defer launch.conn.Close()

		began := time.Now()
		cancel()
		if err := receive(t, ended); err != nil {
			t.Errorf("ended with %v", err)
		}
		if took := time.Since(began); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("ended after %s, want the drain timeout of 3s", took)
		}
		if !strings.Contains(out.String(), "cut off") {
			t.Errorf("nothing is said of the request that was cut off: %s", out)
		}
	})
}

// What keeps the service from being ready is in its log, again and again.
func TestAppSaysWhatItWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, out := kubetest.RecordLog()
		a := newTestApp(t, testConfig(t), kubetest.NewServer(time.Now).Client, log)
		inMemory(a)
		ctx, cancel := context.WithCancelCause(t.Context())
		waited := make(chan error, 1)
		go func() { waited <- a.awaitSync(ctx) }() // and nobody reads
		for _, row := range []struct {
			after time.Duration
			said  int
		}{{9 * time.Second, 0}, {2 * time.Second, 1}, {20 * time.Second, 3}} {
			time.Sleep(row.after)
			synctest.Wait()
			if got := strings.Count(out.String(), "still waiting for the first read"); got != row.said {
				t.Errorf("%s later it is said %d times in all, want %d", row.after, got, row.said)
			}
		}
		broken := errors.New("a server broke")
		cancel(broken)
		if err := receive(t, waited); !errors.Is(err, broken) {
			t.Errorf("ended with %v, want what ended it", err)
		}
	})
}
