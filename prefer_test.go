package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

func TestPreferredWait(t *testing.T) {
	for _, row := range []struct {
		headers []string
		want    time.Duration
		given   bool
	}{
		{nil, 0, false},
		{[]string{""}, 0, false},
		{[]string{"wait=10"}, 10 * time.Second, true},
		{[]string{"WAIT = 10"}, 10 * time.Second, true},
		{[]string{`wait="10"`}, 10 * time.Second, true},
		{[]string{`wait="1\0"`}, 10 * time.Second, true},
		{[]string{"wait=0"}, 0, true},
		{[]string{"wait=60"}, time.Minute, true},
		{[]string{"wait=61"}, time.Minute, true},
		{[]string{"wait=99999999999999999999999999"}, time.Minute, true},
		{[]string{"wait=10; why=not"}, 10 * time.Second, true},
		{[]string{"respond-async, wait=10"}, 10 * time.Second, true},
		{[]string{"respond-async", "return=minimal , wait=10"}, 10 * time.Second, true},
		{[]string{`foo="a, wait=1", wait=2`}, 2 * time.Second, true},
		{[]string{`foo="a\", wait=1", wait=2`}, 2 * time.Second, true},
		{[]string{`foo; wait=1, wait=2`}, 2 * time.Second, true},
		{[]string{`foo; bar="x;y, wait=1"; wait=3, wait=2`}, 2 * time.Second, true},
		{[]string{"wait=1, wait=2"}, time.Second, true},
		{[]string{",, wait=1"}, time.Second, true},
		{[]string{`foo="bar, wait=1`, "wait=2"}, 2 * time.Second, true},
		{[]string{"wait=soon, wait=2"}, 0, false}, // the first one counts
		{[]string{"wait"}, 0, false},
		{[]string{"wait="}, 0, false},
		{[]string{`wait=""`}, 0, false},
		{[]string{"wait=-1"}, 0, false},
		{[]string{"wait=+1"}, 0, false},
		{[]string{"wait=1.5"}, 0, false},
		{[]string{"wait=1 2"}, 0, false},
		{[]string{"wait=10s"}, 0, false},
		{[]string{`wait="10`}, 0, false},
		{[]string{`wait="10"0`}, 0, false},
		{[]string{`wait="\`}, 0, false},
		{[]string{"waiting=10, xwait=10"}, 0, false},
	} {
		if got, given := protocol.PreferredWait(row.headers); got != row.want || given != row.given {
			t.Errorf("%q is read as %s, %t; want %s, %t", row.headers, got, given, row.want, row.given)
		}
	}
}

// TestWait: an answer is held until there is something to tell.
func TestWait(t *testing.T) {
	const statusPath = "/applications/echo/" + waitID
	for _, row := range []struct {
		name         string
		method, path string
		after        func(*corev1.Pod) // what becomes of the pod meanwhile
		want         statusResponse
	}{
		{"GET until deployed", http.MethodGet, statusPath, waitReady,
			statusResponse{Status: instance.StatusDeployed, Location: "binder.example/user/" + waitID}},
		{"GET until failed", http.MethodGet, statusPath, waitFailed, statusResponse{Status: instance.StatusFailed, Reason: "Evicted"}},
		{"GET until deleted", http.MethodGet, statusPath, waitDeleting,
			statusResponse{Status: instance.StatusDeleted, Reason: "Deleting", Message: "the instance is being deleted"}},
		{"POST until deployed", http.MethodPost, "/applications/echo", waitReady,
			statusResponse{Status: instance.StatusDeployed, Location: "binder.example/user/" + waitID}},
	} {
		t.Run(row.name, func(t *testing.T) {
			cluster := startWaitCluster(t, fake.NewClientset(waitPod("1")))
			api, _ := waitAPI(t, cluster)
			answered := make(chan *httptest.ResponseRecorder, 1)
			go func() { answered <- waitAsk(api, row.method, row.path, "Prefer", "respond-async, wait=90") }()
			waitUntil(t, "the request waits", func() bool { return cluster.waiters.any(waitID) })
			cluster.put(t, waitPod("2", row.after))
			res := <-answered
			if got := res.Header().Get("Preference-Applied"); res.Code != http.StatusOK || got != "wait=60" {
				t.Errorf("answered %d, Preference-Applied: %q; want 200 and wait=60", res.Code, got)
			}
			row.want.ID, row.want.TemplateName = waitID, "echo"
			var got statusResponse
			if err := json.Unmarshal(res.Body.Bytes(), &got); err != nil || got != row.want {
				t.Errorf("answered %s, want %+v", res.Body, row.want)
			}
			if !strings.HasPrefix(res.Body.String(), `{"id":"`) {
				t.Errorf("the id is not first: %s", res.Body)
			}
		})
	}
}

// TestWaitEnds: nobody is held longer than asked for, or than there is somebody
// to answer.
func TestWaitEnds(t *testing.T) {
	for _, row := range []struct {
		name string
		end  time.Duration // when it is ended; 0: never
		want time.Duration
		how  func(goAway, drain context.CancelFunc)
	}{
		{"when the time is up", 0, 7 * time.Second, nil},
		{"when the server ends", time.Second, time.Second, func(_, drain context.CancelFunc) { drain() }},
		{"when the client goes", 2 * time.Second, 2 * time.Second, func(goAway, _ context.CancelFunc) { goAway() }},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := startWaitCluster(t, fake.NewClientset(waitPod("1")))
				api, drain := waitAPI(t, cluster)
				ctx, goAway := context.WithCancel(t.Context())
				defer goAway()
				if row.how != nil {
					time.AfterFunc(row.end, func() { row.how(goAway, drain) })
				}
				began := time.Now()
				res := waitAskAs(ctx, api, http.MethodGet, "/applications/echo/"+waitID, "Prefer", "wait=7")
				if took := time.Since(began); took != row.want {
					t.Errorf("answered after %s, want %s", took, row.want)
				}
				if !strings.Contains(res.Body.String(), `"status":"deploying"`) {
					t.Errorf("answered %s", res.Body)
				}
			})
		})
	}
}

// TestWaitNoticesStartTimeout: no change of the pod tells of it.
func TestWaitNoticesStartTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := startWaitCluster(t, fake.NewClientset(waitPod("1")))
		api, _ := waitAPI(t, cluster)
		time.Sleep(waitStartTimeout - 20*time.Second)
		began := time.Now()
		res := waitAsk(api, http.MethodGet, "/applications/echo/"+waitID, "Prefer", "wait=60")
		if took := time.Since(began); took < 19*time.Second || took > 20*time.Second+awaitPulse || !strings.Contains(res.Body.String(), instance.ReasonStartTimeout) {
			t.Errorf("answered after %s: %s", took, res.Body)
		}
	})
}

// TestNoWait: who does not ask to wait is answered as ever.
func TestNoWait(t *testing.T) {
	cluster := startWaitCluster(t, fake.NewClientset(waitPod("1")))
	api, _ := waitAPI(t, cluster)
	for _, prefer := range []string{"", "respond-async", "wait=soon"} {
		res := waitAsk(api, http.MethodPost, "/applications/echo", "Prefer", prefer)
		if want := `{"id":"` + waitID + `"}`; strings.TrimSpace(res.Body.String()) != want || res.Header().Get("Preference-Applied") != "" {
			t.Errorf("with Prefer: %q answered %s, %v; want %s", prefer, res.Body, res.Header(), want)
		}
	}
	res := waitAsk(api, http.MethodPost, "/applications/echo", "Prefer", "wait=0")
	if !strings.Contains(res.Body.String(), `"status":"deploying"`) || res.Header().Get("Preference-Applied") != "wait=0" {
		t.Errorf("with wait=0 answered %s, %v; want the full status", res.Body, res.Header())
	}
}

// TestLaunchedButNotKnown: the watch may be late, and the launch is still one.
func TestLaunchedButNotKnown(t *testing.T) {
	api, _ := waitAPI(t, startWaitCluster(t, fake.NewClientset()))
	res := waitAsk(api, http.MethodPost, "/applications/echo", "Prefer", "wait=0")
	if want := `{"id":"` + waitID + `","template-name":"echo","status":"pending"}`; strings.TrimSpace(res.Body.String()) != want {
		t.Errorf("answered %s, want %s", res.Body, want)
	}
}

// TestHeldOpen: the time for reading a request does not limit the wait for its
// answer, neither one answer nor a stream.
func TestHeldOpen(t *testing.T) {
	cluster := startWaitCluster(t, fake.NewClientset(waitPod("1")))
	api, _ := waitAPI(t, cluster)
	server := httptest.NewUnstartedServer(api.Routes())
	server.Config.ReadTimeout = 100 * time.Millisecond
	server.Start()
	defer server.Close()

	ask := func(name, value string) *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/applications/echo/"+waitID, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(name, value)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	began := time.Now()
	res := ask("Prefer", "wait=1")
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	if took := time.Since(began); took < time.Second {
		t.Errorf("answered after %s and not after a second", took)
	}

	stream := ask("Accept", "text/event-stream")
	defer stream.Body.Close()
	lines := bufio.NewScanner(stream.Body)
	if !lines.Scan() {
		t.Fatal("no event")
	}
	time.Sleep(2 * server.Config.ReadTimeout) // what must not end it
	cluster.put(t, waitPod("2", waitReady))
	var rest []string
	for lines.Scan() {
		rest = append(rest, lines.Text())
	}
	if !slices.ContainsFunc(rest, func(line string) bool { return strings.Contains(line, `"phase":"deployed"`) }) {
		t.Errorf("the stream ended with %q", rest)
	}
}
