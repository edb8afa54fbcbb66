package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"k8s.io/klog/v2"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/config"
)

// testHost is a machine with environment variables, given as name, value, and
// no files.
func testHost(env ...string) config.Environment {
	h := config.OSEnvironment()
	h.Env = func(name string) (string, bool) {
		for i := 0; i < len(env); i += 2 {
			if env[i] == name {
				return env[i+1], true
			}
		}
		return "", false
	}
	h.ReadFile = func(string) ([]byte, error) { return nil, os.ErrNotExist }
	return h
}

func TestRunSaysItsVersion(t *testing.T) {
	var stdout, stderr bytes.Buffer
	err := run(t.Context(), []string{"--version"}, testHost(), &stdout, &stderr)
	if err != nil || stdout.String() != version+"\n" || stderr.Len() > 0 {
		t.Errorf("got %q, %q, %v, want the version", &stdout, &stderr, err)
	}
}

func TestRunHelps(t *testing.T) {
	for _, flag := range []string{"--help", "-h"} {
		var stdout, stderr bytes.Buffer
		if err := run(t.Context(), []string{flag}, testHost(), &stdout, &stderr); err != nil || stderr.Len() > 0 {
			t.Errorf("%s: got %v, %q, want neither an error nor a word on stderr", flag, err, &stderr)
		}
		for _, want := range []string{"Usage:", "--api-address address", "[$BINDER_API_KEY]", "(default 1h0m0s)"} {
			if !strings.Contains(stdout.String(), want) {
				t.Errorf("%s does not say %q: %s", flag, want, &stdout)
			}
		}
	}
}

func TestRunRefuses(t *testing.T) {
	for _, row := range []struct {
		name string
		args []string
		from config.Environment
		says []string
	}{
		{"an unknown flag", []string{"--pool-size=3"}, testHost(), []string{"pool-size", "--help"}},
		{"a bad value", []string{"--cull-timeout=1"}, testHost(), []string{"cull-timeout", "--help"}},
		{"an argument", []string{"start"}, testHost(), []string{`"start"`}},
		{
			"every mistake at once", []string{"--cull-timeout=-1s", "--log-format=xml"}, testHost("BINDER_LOG_LEVEL", "loud"),
			[]string{"--cull-timeout", "--log-format", "BINDER_LOG_LEVEL"},
		},
	} {
		var stdout bytes.Buffer
		err := run(t.Context(), row.args, row.from, &stdout, io.Discard)
		if stdout.Len() > 0 {
			t.Errorf("%s: %d bytes on stdout, where nothing was asked for", row.name, stdout.Len())
		}
		if err == nil {
			t.Errorf("%s: it ran", row.name)
			continue
		}
		for _, want := range row.says {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %q, want %q in it", row.name, err, want)
			}
		}
	}
}

// asTheService makes this test's binary be the service.
const asTheService = "BINDER_TEST_AS_THE_SERVICE"

// TestMain is the service's main in processes that tests start. They are
// processes for the sake of signals, and because client-go has one logger only.
func TestMain(m *testing.M) {
	if os.Getenv(asTheService) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// service is the command of the service with an environment of its own.
func service(t testing.TB, args ...string) (cmd *exec.Cmd, stdout, stderr *kubetest.LogBuffer) {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), kubetest.Patience)
	t.Cleanup(cancel)
	cmd = exec.CommandContext(ctx, binary, args...)
	cmd.Env = []string{asTheService + "=1"}
	stdout, stderr = &kubetest.LogBuffer{}, &kubetest.LogBuffer{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd, stdout, stderr
}

func TestMainSaysWhatIsWrong(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	missing := filepath.Join(t.TempDir(), "kubeconfig")
	for _, row := range []struct {
		name string
		args []string
		says []string
	}{
		{"an unknown flag", []string{"--pool-size=3"}, []string{"pool-size", "--help"}},
		{"no cluster", nil, []string{"not in a cluster", "--kubeconfig"}},
		{"a kubeconfig that is not there", []string{"--kubeconfig=" + missing}, []string{missing}},
		{
			"a port that is taken", []string{"--kubeconfig=" + kubeconfigFor(t, "http://127.0.0.1:1"), "--proxy-address=" + listener.Addr().String()},
			[]string{"--proxy-address: ", "in use"},
		},
	} {
		cmd, _, stderr := service(t, append(row.args, "--api-key=x")...)
		var exit *exec.ExitError
		if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("%s: ended with %v, want exit code 1", row.name, err)
		}
		for _, want := range append(row.says, "binder-deploy-kubernetes: ") {
			if !strings.Contains(stderr.String(), want) {
				t.Errorf("%s: said %q, want %q in it", row.name, stderr, want)
			}
		}
	}
}

// kubeconfigFor writes a kubeconfig for an API server.
func kubeconfigFor(t testing.TB, server string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "it",
		"contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
		"clusters": [{"name": "it", "cluster": {"server": %q}}],
		"users": [{"name": "it", "user": {}}]}`, server)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNewClient(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := newClient(kubeconfigFor(t, "http://127.0.0.1:1")); err != nil {
		t.Errorf("got %v, want a client", err)
	}
	for kubeconfig, want := range map[string]string{
		"":                                 "not in a cluster: --kubeconfig must name a kubeconfig file",
		filepath.Join(t.TempDir(), "none"): "read the cluster's configuration: ",
		kubeconfigFor(t, "http://a b"):     "make a client for the cluster: ",
	} {
		if _, err := newClient(kubeconfig); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("with kubeconfig %q: got %v, want %s", kubeconfig, err, want)
		}
	}
	// In a cluster whose kubelet gave the pod no token.
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")
	if _, err := newClient(""); err == nil || !strings.HasPrefix(err.Error(), "read the cluster's configuration: ") {
		t.Errorf("without a token: got %v, want that it cannot be read", err)
	}
}

// It goes all the way to the API server, as whom it should, and ends well when
// the kubelet asks it to. The API key that it makes is told once, and to no log.
func TestMainEndsOnSIGTERM(t *testing.T) {
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
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if got, want := receive(t, agents), "binder-deploy-kubernetes/"+version; got != want {
			t.Errorf("it calls itself %q, want %q", got, want)
		}
		kubetest.Eventually(t, "client-go's lines are in the log", func() bool { return strings.Contains(stderr.String(), `"logger":"client-go"`) })
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: ended with %v: %s", signal, err, stderr)
		}
		server.Close()

		told, log, _ := strings.Cut(stderr.String(), "\n")
		key := regexp.MustCompile(`: ([0-9a-f]{64})$`).FindStringSubmatch(told)
		if key == nil {
			t.Fatalf("the first line is %q, want the key that was made", told)
		}
		if strings.Contains(log+stdout.String(), key[1]) {
			t.Errorf("the API key is in the log:\n%s", log)
		}
	}
}

// The warning is in the log, whatever becomes of the process afterwards.
func TestSettingsFileWarningIsLogged(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	t.Cleanup(klog.ClearLogger)
	host := testHost()
	host.ReadFile = func(string) ([]byte, error) { return []byte(`{"db": {}, "kube": {}}`), nil }
	var stderr bytes.Buffer
	args := []string{"--config=deploy.conf", "--api-key=x"}
	if err := run(t.Context(), args, host, io.Discard, &stderr); err == nil {
		t.Error("it ran without a cluster")
	}
	if strings.Count(stderr.String(), `"level":"WARN"`) != 1 || !strings.Contains(stderr.String(), "db, kube") {
		t.Errorf("got log %s, want one warning", &stderr)
	}
}
