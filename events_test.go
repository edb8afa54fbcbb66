package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// eventStream is a stream that a client reads from a real server.
type eventStream struct {
	*bufio.Scanner
	res *http.Response
}

// openEvents asks a real server for the events of the instance.
func openEvents(t testing.TB, server *httptest.Server, id string) eventStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitPatience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/applications/echo/"+id, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/html;q=0.1, Text/Event-Stream")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return eventStream{bufio.NewScanner(res.Body), res}
}

// next reads one event; false at the end of the stream.
func (s eventStream) next(t testing.TB) (protocol.ProgressEvent, bool) {
	t.Helper()
	var event protocol.ProgressEvent
	kind := ""
	for s.Scan() {
		switch line := s.Text(); {
		case strings.HasPrefix(line, "event: "):
			kind = strings.TrimPrefix(line, "event: ")
		case strings.HasPrefix(line, "data: "):
			if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), &event); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		case line == "" && kind != "":
			if kind != "progress" {
				t.Fatalf("an event of type %q", kind)
			}
			return event, true
		}
	}
	return protocol.ProgressEvent{}, false
}

func (s eventStream) want(t testing.TB, want protocol.ProgressEvent) {
	t.Helper()
	if got, ok := s.next(t); !ok || got != want {
		t.Fatalf("got %+v, %t; want %+v", got, ok, want)
	}
}

func (s eventStream) wantEnd(t testing.TB) {
	t.Helper()
	if got, ok := s.next(t); ok || s.Err() != nil {
		t.Fatalf("got %+v, %v; want the end", got, s.Err())
	}
}

// serveEvents is the API as it is served, with the metrics around it.
func serveEvents(t testing.TB, cluster *waitCluster) (server *httptest.Server, api *API, drain context.CancelFunc) {
	t.Helper()
	api, drain = waitAPI(t, cluster)
	server = httptest.NewServer(api.Routes())
	t.Cleanup(server.Close)
	return server, api, drain
}

// TestEvents reads each event before it makes the next: none is held back.
func TestEvents(t *testing.T) {
	unscheduled := func(pod *corev1.Pod) { pod.Spec.NodeName, pod.Status.ContainerStatuses = "", nil }
	preparing := func(pod *corev1.Pod) { pod.Status.ContainerStatuses = nil }
	cluster := startWaitCluster(t, fake.NewClientset(waitPod("1", unscheduled)))
	server, api, _ := serveEvents(t, cluster)
	stream := openEvents(t, server, waitID)
	if got := stream.res.Header.Get("Content-Type"); stream.res.StatusCode != http.StatusOK || got != "text/event-stream" {
		t.Errorf("answered %s of type %q", stream.res.Status, got)
	}
	stream.want(t, protocol.ProgressEvent{Phase: instance.StatusPending, Message: "waiting for a node"})
	cluster.put(t, waitPod("2", preparing))
	stream.want(t, protocol.ProgressEvent{Phase: instance.StatusDeploying, Message: "preparing the pod on its node"})
	cluster.put(t, waitPod("3", preparing, func(pod *corev1.Pod) { pod.Labels["more"] = "of no interest" }))
	cluster.put(t, waitPod("4"))
	stream.want(t, protocol.ProgressEvent{Phase: instance.StatusDeploying, Message: "starting the application"})

	late := openEvents(t, server, waitID)
	late.want(t, protocol.ProgressEvent{Phase: instance.StatusDeploying, Message: "starting the application"})

	cluster.put(t, waitPod("5", waitReady))
	ready := protocol.ProgressEvent{Phase: instance.StatusDeployed, Message: "ready", Location: "binder.example/user/" + waitID}
	for _, s := range []eventStream{stream, late, openEvents(t, server, waitID)} {
		s.want(t, ready)
		s.wantEnd(t)
	}
	waitUntil(t, "the metrics have three streams", func() bool {
		recorder := httptest.NewRecorder()
		api.Metrics.Handler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		return strings.Contains(recorder.Body.String(),
			`binder_http_requests_total{code="200",method="get",route="/applications/{template}/{id}",server="api"} 3`)
	})
}

// TestEventsEnd: the last event says what the launch has come to.
func TestEventsEnd(t *testing.T) {
	for _, row := range []struct {
		name string
		last func(*corev1.Pod)
		want protocol.ProgressEvent
	}{
		{"failed", waitFailed, protocol.ProgressEvent{Phase: instance.StatusFailed, Reason: "Evicted"}},
		{"deleted", waitDeleting, protocol.ProgressEvent{Phase: instance.StatusDeleted, Reason: "Deleting", Message: "the instance is being deleted"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			cluster := startWaitCluster(t, fake.NewClientset(waitPod("1")))
			server, _, _ := serveEvents(t, cluster)
			stream := openEvents(t, server, waitID)
			stream.want(t, protocol.ProgressEvent{Phase: instance.StatusDeploying, Message: "starting the application"})
			cluster.put(t, waitPod("2", row.last))
			stream.want(t, row.want)
			stream.wantEnd(t)
		})
	}
}

// TestEventsEndOnDraining: the client comes back to a replica that stays.
func TestEventsEndOnDraining(t *testing.T) {
	cluster := startWaitCluster(t, fake.NewClientset(waitPod("1")))
	server, _, drain := serveEvents(t, cluster)
	stream := openEvents(t, server, waitID)
	stream.want(t, protocol.ProgressEvent{Phase: instance.StatusDeploying, Message: "starting the application"})
	drain()
	stream.wantEnd(t)
}

// TestEventsOfAClientThatGoes leave nothing behind that waits.
func TestEventsOfAClientThatGoes(t *testing.T) {
	cluster := startWaitCluster(t, fake.NewClientset(waitPod("1")))
	server, _, _ := serveEvents(t, cluster)
	stream := openEvents(t, server, waitID)
	stream.want(t, protocol.ProgressEvent{Phase: instance.StatusDeploying, Message: "starting the application"})
	waitUntil(t, "the stream waits", func() bool { return cluster.waiters.any(waitID) })
	_ = stream.res.Body.Close()
	waitUntil(t, "nobody waits any more", func() bool { return !cluster.waiters.any(waitID) })
}

// TestEventsOfUnknown: what is unknown is said in JSON, before there is a stream.
func TestEventsOfUnknown(t *testing.T) {
	server, _, _ := serveEvents(t, startWaitCluster(t, fake.NewClientset()))
	stream := openEvents(t, server, waitID)
	body, err := io.ReadAll(stream.res.Body)
	if err != nil || stream.res.StatusCode != http.StatusNotFound || stream.res.Header.Get("Content-Type") != "application/json" ||
		!strings.Contains(string(body), `"type":"noRecord"`) {
		t.Errorf("answered %s, %v: %s, %v", stream.res.Status, stream.res.Header, body, err)
	}
}

// TestHeadIsNoStream: there would be nothing to see of it.
func TestHeadIsNoStream(t *testing.T) {
	api, _ := waitAPI(t, startWaitCluster(t, fake.NewClientset(waitPod("1"))))
	res := waitAsk(api, http.MethodHead, "/applications/echo/"+waitID, "Accept", "text/event-stream")
	if got := res.Header().Get("Content-Type"); res.Code != http.StatusOK || got != "application/json" {
		t.Errorf("answered %d of type %q", res.Code, got)
	}
}

// TestEventsInTime: a stream shows that it is alive, and notices the start
// timeout, which no change of the pod tells of.
func TestEventsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := startWaitCluster(t, fake.NewClientset(waitPod("1")))
		api, _ := waitAPI(t, cluster)
		time.Sleep(waitStartTimeout - 30*time.Second)
		began := time.Now()
		res := waitAsk(api, http.MethodGet, "/applications/echo/"+waitID, "Accept", "text/event-stream")
		if took := time.Since(began); took < 29*time.Second || took > 30*time.Second+awaitPulse {
			t.Errorf("it ended after %s", took)
		}
		if body := res.Body.String(); strings.Count(body, ":\n\n") < 2 || !strings.Contains(body, `"reason":"StartTimeout"`) {
			t.Errorf("it was %q", body)
		}
	})
}

// stuckWriter is a connection that takes nothing any more.
type stuckWriter struct {
	http.ResponseWriter
	deadlines []time.Time
}

func (w *stuckWriter) SetWriteDeadline(at time.Time) error {
	w.deadlines = append(w.deadlines, at)
	return nil
}

func (w *stuckWriter) Write([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }

// TestEventsOfASlowClient: every write has an end, and the stream ends with it.
func TestEventsOfASlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api, _ := waitAPI(t, startWaitCluster(t, fake.NewClientset(waitPod("1"))))
		w := &stuckWriter{ResponseWriter: httptest.NewRecorder()}
		r := httptest.NewRequest(http.MethodGet, "/applications/echo/"+waitID, nil)
		r.Header.Set("Accept", "text/event-stream")
		began := time.Now()
		api.Routes().ServeHTTP(w, r)
		if took := time.Since(began); took > 0 {
			t.Errorf("it goes on for %s", took)
		}
		if want := began.Add(protocol.EventsWriteTimeout); len(w.deadlines) != 1 || !w.deadlines[0].Equal(want) {
			t.Errorf("deadlines are %v, want %s", w.deadlines, want)
		}
	})
}
