package conformance

import (
	"context"
	"flag"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/rawapp"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"
	"github.com/binder-project/binder-deploy-kubernetes/internal/pages"
	"github.com/binder-project/binder-deploy-kubernetes/internal/proxy"
)

const (
	testID  = "0123456789abcdef0123456789abcdef"
	testKey = "0f1e2d3c4b5a"

	idleTimeout = 5 * time.Minute // the default
)

// TestMain lets many cases run at the same time, because most of them wait.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", "32"); err != nil {
			panic(err) // the flag is package testing's
		}
	}
	os.Exit(m.Run())
}

// oneInstance is a read model with one instance.
type oneInstance instance.Instance

func (o oneInstance) Instance(id string) (instance.Instance, bool) {
	return instance.Instance(o), id == o.ID
}

func (o oneInstance) Await(_ context.Context, id string, _ func(instance.Instance, bool) bool) (instance.Instance, bool) {
	return o.Instance(id)
}

// logBuffer holds the log. It is safe for concurrent use.
type logBuffer struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// startTarget starts an application and a proxy in this process. The server has the
// settings of the service's public port. The test fails if a handler panics.
func startTarget(t *testing.T) Target {
	t.Helper()
	app, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = rawapp.New().Serve(t.Context(), app) }()
	target, _ := startProxy(t, app.Addr())
	return target
}

// startProxy starts a proxy in front of an application.
func startProxy(t *testing.T, app net.Addr) (Target, *proxy.Proxy) {
	t.Helper()
	log := &logBuffer{}
	logger := slog.New(slog.NewTextHandler(log, nil))
	t.Cleanup(func() { assert.NotContains(t, log.String(), "panic") })
	handler := proxy.New(proxy.Deps{
		Instances:   oneInstance{ID: testID, Template: "raw", Status: instance.StatusDeployed, Address: app.String()},
		Touch:       func(string, instance.Source) {},
		IdleTimeout: idleTimeout,
		IsAPIKey:    func(value string) bool { return strings.Contains(value, testKey) },
		Log:         logger,
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{
		Handler:           metrics.New("test", metrics.Values{}).InstrumentProxy(instance.UserPrefix, handler),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    pages.MaxHeader,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelError),
		ConnContext:       proxy.ConnContext,
	}
	go func() { _ = server.Serve(proxy.Listen(listener, idleTimeout)) }()
	t.Cleanup(func() { _ = server.Close() })
	base := strings.TrimSuffix(instance.BaseURL(testID), "/")
	return Target{
		Direct: app.String(), Proxy: listener.Addr().String(), Base: base,
		Control: rawapp.NewClient("http://" + app.String() + base), APIKey: testKey,
	}, handler
}

// TestConformance sends each case's requests to the application directly and through
// the proxy. Most cases wait most of the time.
func TestConformance(t *testing.T) {
	RunAll(t, "HTTP, in process", startTarget(t), 16*runtime.GOMAXPROCS(0), true, Cases())
}

// TestWebSocketConformance sends streams of frames through the proxy.
func TestWebSocketConformance(t *testing.T) {
	RunAll(t, "WebSocket, in process", startTarget(t), 2*runtime.GOMAXPROCS(0), true, WebSocketCases())
}
