package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/config"
)

// testConfig is a configuration as its parser makes it: on free ports of this
// machine, with no wait at the end, and with flags beside that.
func testConfig(t testing.TB, flags ...string) *config.Config {
	t.Helper()
	nowhere := config.Environment{
		Env:      func(string) (string, bool) { return "", false },
		ReadFile: func(string) ([]byte, error) { return nil, errors.New("there are no files") },
		Hostname: func() (string, error) { return "test", nil },
		Random:   rand.Reader,
	}
	args := []string{
		"--api-address=127.0.0.1:0", "--proxy-address=127.0.0.1:0", "--metrics-address=127.0.0.1:0",
		"--api-key=" + testAPIKey, "--shutdown-delay=0s",
	}
	config, err := config.Parse(append(args, flags...), nowhere, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func newTestApp(t testing.TB, config *config.Config, client kubernetes.Interface, log *slog.Logger) *app {
	t.Helper()
	a, err := newApp(config, client, log, time.Now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// runApp runs an app and returns what ends it, and gives its error.
func runApp(t testing.TB, a *app) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.run(ctx) }()
	t.Cleanup(cancel)
	return func() error {
		cancel()
		return receive(t, ended)
	}
}

// call sends a request with the API key to one of an app's servers, and returns
// the code and the body; 0 when there is no answer.
func call(t testing.TB, address, method, path string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", testAPIKey)
	r.Close = true
	client := &http.Client{Timeout: kubetest.Patience}
	res, err := client.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Error(err)
	}
	return res.StatusCode, string(body)
}

// podAt is the pod of an instance that listens at an address of this machine.
func podAt(t testing.TB, id string, listener net.Addr) *corev1.Pod {
	t.Helper()
	ip, port, err := net.SplitHostPort(listener.String())
	if err != nil {
		t.Fatal(err)
	}
	pod := kubetest.Pod(id, time.Now().Add(-time.Minute), kubetest.WithAnnotation(instance.PortAnnotation, port))
	pod.Status.PodIP = ip
	return pod
}

// TestAppServes goes the way of a visitor through the whole service: list,
// launch, status, use, stop; and looks for the API key in every line it logs.
func TestAppServes(t *testing.T) {
	notebook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s with %q", r.URL.Path, r.Header.Get("Authorization"))
	}))
	defer notebook.Close()
	server := kubetest.NewServer(time.Now, podAt(t, kubetest.ID(1), notebook.Listener.Addr()), kubetest.Template("jupyter"))
	log, out := kubetest.RecordLog()
	a := newTestApp(t, testConfig(t), server.Client, log)
	metrics, api, proxy := a.servers[0].addr(), a.servers[1].addr(), a.servers[2].addr()
	stop := runApp(t, a)
	kubetest.Eventually(t, "it is ready", func() bool {
		code, _ := call(t, metrics, "GET", "/readyz")
		return code == http.StatusOK
	})

	_, proxyPort, _ := net.SplitHostPort(proxy)
	location := "127.0.0.1:" + proxyPort + "/user/" + kubetest.ID(1)
	if code, body := call(t, api, "GET", "/applications/"); code != 200 || !strings.Contains(body, location) {
		t.Errorf("list: got %d %s, want %s in it", code, body, location)
	}
	code, body := call(t, api, "POST", "/applications/jupyter")
	var launched struct{ ID string }
	if err := json.Unmarshal([]byte(body), &launched); code != 200 || err != nil || !instance.ValidID(launched.ID) {
		t.Errorf("deploy: got %d %s, want an id", code, body)
	}
	if code, body := call(t, api, "GET", "/applications/jupyter/"+launched.ID); code != 200 || !strings.Contains(body, "pending") {
		t.Errorf("status: got %d %s, want pending", code, body)
	}
	if code, body := call(t, api, "POST", "/applications/rstudio"); code != 404 {
		t.Errorf("deploy of an unknown template: got %d %s, want 404", code, body)
	}
	want := "/user/" + kubetest.ID(1) + `/tree with ""`
	if code, body := call(t, proxy, "GET", "/user/"+kubetest.ID(1)+"/tree?token="+testAPIKey); code != 200 || body != want {
		t.Errorf("the notebook: got %d %q, want %q", code, body, want)
	}
	if code, body := call(t, proxy, "GET", "/applications"); code != 404 {
		t.Errorf("the API on the proxy's port: got %d %s, want 404", code, body)
	}
	if code, body := call(t, api, "DELETE", "/applications/jupyter/"+launched.ID); code != 200 || !strings.Contains(body, "Stopped") {
		t.Errorf("stop: got %d %s", code, body)
	}
	server.FailOn("create", "pods", errors.New("the API server is away"))
	if code, body := call(t, api, "POST", "/applications/jupyter"); code != 503 {
		t.Errorf("deploy while the API server is away: got %d %s, want 503", code, body)
	}
	if code, body := call(t, metrics, "GET", "/metrics"); code != 200 || !strings.Contains(body, `binder_launches_total{result="ok"} 1`) ||
		!strings.Contains(body, "binder_cache_synced 1") {
		t.Errorf("metrics: got %d %s", code, body)
	}
	notebook.Close()
	if code, body := call(t, proxy, "GET", "/user/"+kubetest.ID(1)+"/tree"); code != 502 {
		t.Errorf("a notebook that does not answer: got %d %s, want 502", code, body)
	}

	if err := stop(); err != nil {
		t.Errorf("ended with %v", err)
	}
	for _, want := range []string{"msg=ready", "msg=launched", "msg=stopped", "request failed", "did not answer", "msg=stopping"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in the log", want)
		}
	}
	if strings.Contains(out.String(), testAPIKey) {
		t.Errorf("the API key is in the log:\n%s", out)
	}
	for _, address := range []string{metrics, api, proxy} {
		if code, _ := call(t, address, "GET", "/"); code != 0 {
			t.Errorf("%s still answers, with %d", address, code)
		}
	}
	if !slices.ContainsFunc(server.Writes(), isActivityPatch(kubetest.ID(1))) {
		t.Error("the activity was not written at the end")
	}
}

// isActivityPatch tells a write of an instance's last activity.
func isActivityPatch(id string) func(k8stesting.Action) bool {
	return func(action k8stesting.Action) bool {
		patch, ok := action.(k8stesting.PatchAction)
		return ok && patch.GetName() == instance.PodName(id) && strings.Contains(string(patch.GetPatch()), instance.LastActivityAnnotation)
	}
}

// Before the first read of the cluster an absent instance may only be one that
// has not been read yet.
func TestAppIsReadyOnlyAfterTheFirstRead(t *testing.T) {
	server := kubetest.NewServer(time.Now)
	mend := server.FailOn("list", "pods", errors.New("not yet"))
	tried := make(chan struct{}, 1)
	server.React("list", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
		select {
		case tried <- struct{}{}:
		default:
		}
		return false, nil, nil
	})
	log, out := kubetest.RecordLog()
	a := newTestApp(t, testConfig(t), server.Client, log)
	metrics := a.servers[0].addr()
	stop := runApp(t, a)
	receive(t, tried)
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 503, "/metrics": 200} {
		if code, body := call(t, metrics, "GET", path); code != want {
			t.Errorf("before the first read: %s: got %d %q, want %d", path, code, body, want)
		}
	}
	if strings.Contains(out.String(), "msg=ready") {
		t.Errorf("it serves before the first read: %s", out)
	}
	mend()
	kubetest.Eventually(t, "it is ready", func() bool {
		code, _ := call(t, metrics, "GET", "/readyz")
		return code == http.StatusOK
	})
	if code, body := call(t, a.servers[1].addr(), "GET", "/applications"); code != 200 || body != "[]\n" {
		t.Errorf("list: got %d %q, want 200 []", code, body)
	}
	if err := stop(); err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestAppEndsBeforeTheFirstRead(t *testing.T) {
	server := kubetest.NewServer(time.Now)
	server.FailOn("list", "*", errors.New("the API server is away"))
	a := newTestApp(t, testConfig(t), server.Client, kubetest.NoLog())
	stop := runApp(t, a)
	kubetest.Eventually(t, "it is alive", func() bool {
		code, _ := call(t, a.servers[0].addr(), "GET", "/healthz")
		return code == http.StatusOK
	})
	if err := stop(); err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestAppNamesTheFlagOfAPortThatIsTaken(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for _, flag := range []string{"--api-address", "--proxy-address", "--metrics-address"} {
		config := testConfig(t, flag+"="+listener.Addr().String())
		_, err := newApp(config, kubetest.NewServer(time.Now).Client, kubetest.NoLog(), time.Now, rand.Reader)
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.HasPrefix(err.Error(), flag+": ") {
			t.Errorf("%s taken: got %v, want the flag and that it is in use", flag, err)
		}
	}
}

// One server that breaks ends the process, for the kubelet to start it anew.
func TestAppEndsWhenAServerBreaks(t *testing.T) {
	for i, name := range []string{"metrics", "api", "proxy"} {
		a := newTestApp(t, testConfig(t), kubetest.NewServer(time.Now).Client, kubetest.NoLog())
		a.servers[i].listener.Close()
		ended := make(chan error, 1)
		go func() { ended <- a.run(t.Context()) }()
		if err := receive(t, ended); !errors.Is(err, net.ErrClosed) || !strings.HasPrefix(err.Error(), "serve "+name+": ") {
			t.Errorf("the listener of %s is closed: ended with %v, want to hear of it", name, err)
		}
	}
}

// What flags and parts say reaches the culler, and what templates have wrong the
// operator.
func TestAppIsWiredForActivity(t *testing.T) {
	old := kubetest.Pod(kubetest.ID(1), time.Now().Add(-time.Minute), kubetest.LastUsed(time.Now()))
	server := kubetest.NewServer(time.Now, old, kubetest.Template("jupyter", kubetest.WithTemplateAnnotation(instance.IdlePathsAnnotation, "(")))
	log, out := kubetest.RecordLog()
	a := newTestApp(t, testConfig(t, "--cull-timeout=1s", "--max-age=30s", "--cull-interval=50ms"), server.Client, log)
	stop := runApp(t, a)
	kubetest.Eventually(t, "the pod has expired", func() bool {
		inst, _ := a.cache.Instance(kubetest.ID(1))
		return inst.Reason == string(instance.EndExpired)
	})
	kubetest.Eventually(t, "the template's Event is there", func() bool {
		events, err := server.Client.CoreV1().Events(kubetest.Namespace).List(t.Context(), metav1.ListOptions{})
		return err == nil && slices.ContainsFunc(events.Items, func(event corev1.Event) bool { return event.Reason == "InvalidAnnotation" })
	})
	if !strings.Contains(out.String(), instance.IdlePathsAnnotation) {
		t.Errorf("the log is\n%s", out)
	}
	if _, cause := a.hold.State(time.Now().Add(time.Minute)); cause != lifetime.CauseContactLost {
		t.Errorf("a minute after the last write of the Lease the hold has the cause %q", cause)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
