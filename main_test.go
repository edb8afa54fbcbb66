package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/binder-project/binder-deploy-kubernetes/internal/config"
	"github.com/binder-project/binder-deploy-kubernetes/internal/keys"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func TestRunPrints(t *testing.T) {
	if err := run(t.Context(), []string{"start"}, emptyHost(), io.Discard, io.Discard); err == nil {
		t.Error("got no error for an argument")
	}
	for flag, texts := range map[string][]string{
		"--version": {version + "\n"},
		"--help":    {"Usage:", "--api-address address", "[$BINDER_API_KEY]", "(default 1h0m0s)"},
		"-h":        {"Usage:"},
	} {
		var stdout, stderr bytes.Buffer
		if err := run(t.Context(), []string{flag}, emptyHost(), &stdout, &stderr); err != nil || stderr.Len() > 0 {
			t.Errorf("%s: got %v, and %q on stderr", flag, err, &stderr)
		}
		for _, want := range texts {
			if !strings.Contains(stdout.String(), want) {
				t.Errorf("%s: printed %q, want %q in it", flag, &stdout, want)
			}
		}
	}
}

// asTheService makes the test binary run the service.
const asTheService = "BINDER_TEST_AS_THE_SERVICE"

// TestMain calls the service's main in processes that tests start. Tests of signals and of
// client-go's global logger need a process.
func TestMain(m *testing.M) {
	if os.Getenv(asTheService) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// service returns a command that runs the service. Its environment is empty.
func service(t testing.TB, args ...string) (cmd *exec.Cmd, stdout, stderr *kubetest.LogBuffer) {
	t.Helper()
	binary, err := os.Executable()
	noError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), kubetest.Patience)
	t.Cleanup(cancel)
	cmd = exec.CommandContext(ctx, binary, args...)
	cmd.Env = []string{asTheService + "=1"}
	stdout, stderr = &kubetest.LogBuffer{}, &kubetest.LogBuffer{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd, stdout, stderr
}

func TestMainRefuses(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	noError(t, err)
	defer listener.Close()
	missing := filepath.Join(t.TempDir(), "kubeconfig")
	for _, row := range []struct {
		name string
		args []string
		says []string
	}{
		{"unknown flag", []string{"--pool-size=3"}, []string{"pool-size", "--help"}},
		{"bad value", []string{"--cull-timeout=1"}, []string{"cull-timeout", "--help"}},
		{"argument", []string{"start"}, []string{`"start"`}},
		{"several mistakes", []string{"--cull-timeout=-1s", "--log-format=xml"}, []string{"--cull-timeout", "--log-format"}},
		{"no cluster", nil, []string{"--kubeconfig"}},
		{"missing kubeconfig", []string{"--kubeconfig=" + missing}, []string{missing}},
		{
			"port in use", []string{"--kubeconfig=" + kubeconfigFor(t, "http://127.0.0.1:1"), "--proxy-address=" + listener.Addr().String()},
			[]string{"--proxy-address", "in use"},
		},
	} {
		cmd, stdout, stderr := service(t, append(row.args, "--api-key=x")...)
		var exit *exec.ExitError
		if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 || stdout.String() != "" {
			t.Errorf("%s: ended with %v and printed %q, want exit code 1 and nothing", row.name, err, stdout)
		}
		for _, want := range row.says {
			if !strings.Contains(stderr.String(), want) {
				t.Errorf("%s: said %q, want %q in it", row.name, stderr, want)
			}
		}
	}
}

// kubeconfigFor writes a kubeconfig for an API server and returns its path.
func kubeconfigFor(t testing.TB, server string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "it",
		"contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
		"clusters": [{"name": "it", "cluster": {"server": %q}}],
		"users": [{"name": "it", "user": {}}]}`, server)
	noError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestNewCluster(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := newCluster(kubeconfigFor(t, "http://127.0.0.1:1"), nil); err != nil {
		t.Errorf("got %v, want a client", err)
	}
	for kubeconfig, want := range map[string]string{
		"":                                 "--kubeconfig",
		filepath.Join(t.TempDir(), "none"): "none",
		kubeconfigFor(t, "http://a b"):     "a b",
	} {
		if _, err := newCluster(kubeconfig, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with kubeconfig %q: got %v, want %q in it", kubeconfig, err, want)
		}
	}
	// In a cluster, in a pod without a token.
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")
	if _, err := newCluster("", nil); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("without a token: got %v", err)
	}
}

// The Lease and the culler have a connection and a rate of their own.
func TestLeadingHasItsOwnConnection(t *testing.T) {
	var mu sync.Mutex
	connections := map[string]map[string]bool{} // by user agent
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if connections[r.UserAgent()] == nil {
			connections[r.UserAgent()] = map[string]bool{}
		}
		connections[r.UserAgent()][r.Proto+" "+r.RemoteAddr] = true
		http.Error(w, "{}", http.StatusNotFound)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	path := kubeconfigFor(t, server.URL)
	text, err := os.ReadFile(path)
	noError(t, err)
	text = bytes.Replace(text, []byte(`{"server"`), []byte(`{"insecure-skip-tls-verify": true, "server"`), 1)
	noError(t, os.WriteFile(path, text, 0o600))
	c, err := newCluster(path, nil)
	noError(t, err)
	for range 3 {
		_, _ = c.client.CoreV1().Pods("x").Get(t.Context(), "x", metav1.GetOptions{})
		_, _ = c.leading.CoordinationV1().Leases("x").Get(t.Context(), "x", metav1.GetOptions{})
		_, _ = c.leading.CoreV1().Pods("x").Get(t.Context(), "x", metav1.GetOptions{})
	}
	mu.Lock()
	defer mu.Unlock()
	visitors, leading := connections[userAgent()], connections[userAgent()+" (leader)"]
	if len(visitors) != 1 || len(leading) != 1 || maps.Equal(visitors, leading) || !strings.HasPrefix(strings.Join(slices.Collect(maps.Keys(leading)), ""), "HTTP/2") {
		t.Errorf("the connections are %v", connections)
	}
	if limiter := c.leading.CoreV1().RESTClient().GetRateLimiter(); limiter == nil || limiter.QPS() != leadingRate {
		t.Errorf("the leader's rate is limited by %v", limiter)
	}
	if limiter := c.client.CoreV1().RESTClient().GetRateLimiter(); limiter != nil {
		t.Error("launches are limited")
	}
}

// The service reaches the API server with its own user agent, and ends without an error
// on a signal. It prints the API key that it generates once, and never logs it.
func TestMainEndsOnSignals(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		agents := make(chan string, 1)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case agents <- r.UserAgent():
			default:
			}
			http.Error(w, "not now", http.StatusInternalServerError)
		}))
		cmd, stdout, stderr := service(t, "--kubeconfig="+kubeconfigFor(t, server.URL), "--log-level=debug",
			"--api-address=127.0.0.1:0", "--proxy-address=127.0.0.1:0", "--metrics-address=127.0.0.1:0")
		noError(t, cmd.Start())
		wantEqual(t, "the user agent", receive(t, agents), "binder-deploy-kubernetes/"+version)
		kubetest.Eventually(t, "client-go logs through the service's logger", func() bool { return strings.Contains(stderr.String(), `"logger":"client-go"`) })
		noError(t, cmd.Process.Signal(signal))
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: ended with %v: %s", signal, err, stderr)
		}
		server.Close()

		first, log, _ := strings.Cut(stderr.String(), "\n")
		key := regexp.MustCompile(`: ([0-9a-f]{64})$`).FindStringSubmatch(first)
		if key == nil {
			t.Fatalf("the first line is %q, want the generated key", first)
		}
		if strings.Contains(log+stdout.String(), key[1]) {
			t.Errorf("the API key is in the log:\n%s", log)
		}
	}
}

// TestMainWritesOnlyJSON: with JSON as its format, the log has no other lines, whatever
// client-go and Go's own packages write. The API server here says things that nobody asked
// for, which net/http's client reports to Go's default logger.
func TestMainWritesOnlyJSON(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		connection, buffer, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer connection.Close()
		_, _ = buffer.WriteString("HTTP/1.1 500 Nope\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n\x1b[31m\xff\nnot JSON\n")
		_ = buffer.Flush()
		_, _ = io.Copy(io.Discard, connection) // until the client closes it
	}))
	defer server.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	noError(t, err)
	defer listener.Close()
	taken := listener.Addr().String()
	for name, row := range map[string]struct {
		args []string
		says string
		ends bool // by itself
	}{
		"a strange API server": {[]string{"--kubeconfig=" + kubeconfigFor(t, server.URL), "--proxy-address=127.0.0.1:0"}, "Unsolicited response", false},
		"a port in use":        {[]string{"--kubeconfig=" + kubeconfigFor(t, server.URL), "--proxy-address=" + taken}, "in use", true},
		"no cluster":           {nil, "--kubeconfig", true},
	} {
		cmd, stdout, stderr := service(t, append(row.args, "--log-format=json", "--log-level=debug", "--api-key=x",
			"--api-address=127.0.0.1:0", "--metrics-address=127.0.0.1:0")...)
		noError(t, cmd.Start())
		if !row.ends {
			kubetest.Eventually(t, "the log says "+row.says, func() bool { return strings.Contains(stderr.String(), row.says) })
			noError(t, cmd.Process.Signal(os.Interrupt))
		}
		if err := cmd.Wait(); (err != nil) != row.ends {
			t.Errorf("%s: ended with %v", name, err)
		}
		if !strings.Contains(stderr.String(), row.says) || stdout.String() != "" {
			t.Errorf("%s: got log %q and output %q, want %q in the log", name, stderr, stdout, row.says)
		}
		for line := range strings.Lines(stderr.String()) {
			if !json.Valid([]byte(line)) {
				t.Errorf("%s: not JSON: %q", name, line)
			}
		}
	}
}

func TestSettingsFileWarningIsLogged(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	t.Cleanup(klog.ClearLogger)
	host := emptyHost()
	host.ReadFile = func(string) ([]byte, error) { return []byte(`{"db": {}, "kube": {}}`), nil }
	var stderr bytes.Buffer
	if err := run(t.Context(), []string{"--config=deploy.conf", "--api-key=x"}, host, io.Discard, &stderr); err == nil {
		t.Error("it ran without a cluster")
	}
	if strings.Count(stderr.String(), `"level":"WARN"`) != 1 || !strings.Contains(stderr.String(), "db, kube") {
		t.Errorf("got log %s, want one warning", &stderr)
	}
}

// The service opens for the keys that the file holds now, and for no others.
func TestAPIKeyFileIsReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	write := func(keys string) { noError(t, os.WriteFile(file, []byte(keys), 0o600)) }
	write("one")
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		a := &app{config: &config.Config{APIKeyFile: file, InCluster: true}, keys: keys.New("one"), log: kubetest.NoLog()}
		go a.watchKeys(ctx)
		write("0123456789abcdef\nfedcba9876543210\n")
		time.Sleep(time.Minute)
		for key, want := range map[string]bool{"0123456789abcdef": true, "fedcba9876543210": true, "one": false} {
			wantEqual(t, "key "+key+" opens", a.keys.Opens(key), want)
		}
		write("too short")
		time.Sleep(time.Minute)
		wantEqual(t, "the former key opens after a mistake", a.keys.Opens("0123456789abcdef"), true)
	})
	without := &app{config: &config.Config{}, keys: keys.New("one"), log: kubetest.NoLog()}
	without.watchKeys(t.Context()) // returns: there is nothing to watch
}
