package webhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// bench is a Sender with a receiver in memory, and what they have seen.
type bench struct {
	*Sender
	began time.Time
	log   *kubetest.LogBuffer

	mu      sync.Mutex
	tries   []string       // when, and the id
	results map[string]int // as counted
	queued  int
}

// receive makes a Sender. answer is what its receiver does at each try, from 1.
func receive(answer func(n int, r *http.Request) (*http.Response, error)) *bench {
	var log *slog.Logger
	b := &bench{began: time.Now(), results: map[string]int{}}
	log, b.log = kubetest.RecordLog()
	b.Sender = New(Deps{
		URL: "https://usage.example.org/hidden", Key: []byte("0123456789abcdef"), Namespace: "binder-instances", UserAgent: "test",
		Metrics: b, Log: log, Now: time.Now, Random: func() float64 { return 0 },
	})
	b.client.Transport = transport(func(r *http.Request) (*http.Response, error) {
		b.mu.Lock()
		b.tries = append(b.tries, fmt.Sprint(time.Since(b.began)))
		n := len(b.tries)
		b.mu.Unlock()
		return answer(n, r)
	})
	return b
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (b *bench) WebhookDelivered(result string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.results[result]++
}

func (b *bench) WebhookQueued(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.queued = n
}

// run runs the Sender until stop, which waits for its end.
func (b *bench) run(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { b.Run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

func (b *bench) want(t *testing.T, queued int, results map[string]int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.queued != queued || !maps.Equal(b.results, results) {
		t.Errorf("%d events wait, and %v are counted; want %d and %v", b.queued, b.results, queued, results)
	}
}

func answer(code int, header ...string) (*http.Response, error) {
	res := &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(""))}
	for i := 0; i < len(header); i += 2 {
		res.Header.Set(header[i], header[i+1])
	}
	return res, nil
}

// hang answers nothing, until the sender has had enough.
func hang(_ int, r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func someEvent(n int) event {
	pod := testPod()
	pod.UID = types.UID(fmt.Sprint("uid-", n))
	return launched(pod, false)
}

// A delivery that fails for a passing reason is retried, after ever longer waits, and not
// earlier than Retry-After says. Each attempt is signed with its own time.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := receive(func(n int, r *http.Request) (*http.Response, error) {
			body, _ := io.ReadAll(r.Body)
			id, at := someEvent(1).id(), fmt.Sprint(time.Now().Unix())
			if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/cloudevents+json" || r.Header.Get("Webhook-Id") != id ||
				r.Header.Get("Webhook-Timestamp") != at || r.Header.Get("Webhook-Signature") != signature([]byte("0123456789abcdef"), id, at, body) {
				t.Errorf("got %s with %v", r.Method, r.Header)
			}
			switch n {
			case 1:
				return nil, errors.New("connection refused")
			case 2:
				return answer(500)
			case 3:
				return answer(429, "Retry-After", "60")
			case 4:
				return answer(503, "Retry-After", time.Now().Add(2*time.Minute).UTC().Format(http.TimeFormat))
			case 5:
				return hang(n, r) // for 10 s
			}
			return answer(204)
		})
		defer b.run(t)()
		b.send(someEvent(1))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if want := []string{"0s", "1s", "3s", "1m3s", "3m3s", "3m29s"}; !slices.Equal(b.tries, want) {
			t.Errorf("it was tried at %q, want %q", b.tries, want)
		}
		b.want(t, 0, map[string]int{resultRetried: 5, resultOK: 1})
		if strings.Contains(b.log.String(), "hidden") {
			t.Errorf("the log has the URL:\n%s", b.log)
		}
	})
}

func TestJudge(t *testing.T) {
	now := kubetest.Noon
	for _, row := range []struct {
		code       int
		retryAfter string
		passing    bool
		wait       time.Duration
	}{
		{500, "", true, 0}, {502, "0", true, 0}, {503, "-1", true, 0}, {504, "soon", true, 0},
		{429, "7", true, 7 * time.Second}, {429, "99999999999999", true, longestAsked}, {429, "9223372036854775807", true, longestAsked},
		{503, now.Add(-time.Hour).Format(http.TimeFormat), true, 0}, {503, now.Add(time.Minute).Format(http.TimeFormat), true, time.Minute},
		{503, now.Add(24 * time.Hour).Format(http.TimeFormat), true, longestAsked},
		{408, "", true, 0}, {425, "", true, 0},
		{400, "", false, 0}, {401, "", false, 0}, {404, "", false, 0}, {410, "", false, 0}, {301, "", false, 0}, {307, "", false, 0}, {304, "", false, 0},
	} {
		got := judge(row.code, row.retryAfter, now)
		if got.err == nil || got.final == row.passing || got.wait != row.wait {
			t.Errorf("%d with Retry-After %q: got %+v", row.code, row.retryAfter, got)
		}
	}
	for _, code := range []int{200, 201, 202, 204} {
		if got := judge(code, "", now); got != (outcome{}) {
			t.Errorf("%d: got %+v", code, got)
		}
	}
}

func TestBackoff(t *testing.T) {
	for _, row := range []struct {
		failures int
		random   float64
		want     time.Duration
	}{
		{1, 0, time.Second}, {1, 1, time.Second / 2}, {2, 0, 2 * time.Second}, {5, 0.5, 12 * time.Second},
		{9, 0, 256 * time.Second}, {10, 0, longestRetry}, {1_000_000, 1, longestRetry / 2},
	} {
		if got := backoff(row.failures, row.random); got != row.want {
			t.Errorf("after %d failures, with %v: got %s, want %s", row.failures, row.random, got, row.want)
		}
	}
}

// A refused event is tried once. One that fails for an hour is given up, and others do not
// wait for it.
func TestGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := receive(func(_ int, r *http.Request) (*http.Response, error) {
			switch r.Header.Get("Webhook-Id") {
			case someEvent(1).id():
				return answer(500)
			case someEvent(2).id():
				return answer(404)
			}
			return answer(200)
		})
		defer b.run(t)()
		b.send(someEvent(1))
		b.send(someEvent(2))
		synctest.Wait()
		b.want(t, 1, map[string]int{resultRetried: 1, resultRefused: 1})
		b.send(someEvent(3))
		time.Sleep(giveUpRetries)
		synctest.Wait()
		b.want(t, 0, map[string]int{resultRetried: len(b.tries) - 3, resultRefused: 1, resultOK: 1, resultDropped: 1})
		if len(b.tries) < 15 || len(b.tries) > 40 {
			t.Errorf("it was tried %d times in an hour", len(b.tries))
		}
		before := len(b.tries)
		time.Sleep(giveUpRetries)
		if len(b.tries) != before {
			t.Errorf("it was tried after it was given up, at %s", b.tries[before:])
		}
	})
}

// A receiver that hangs holds nobody up, and what waits for it is bounded. Ends take half of
// the room: what is told only once has the rest.
func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := receive(hang)
		var tombstones []*corev1.Event
		for n := range maxQueued {
			tombstone := testTombstone("Idle.")
			tombstone.InvolvedObject.UID = types.UID(fmt.Sprint("uid-", n))
			tombstones = append(tombstones, tombstone)
		}
		told := b.reportNew(tombstones, nil)
		if len(told) != maxQueued/2 {
			t.Errorf("%d ends are in the queue, want %d", len(told), maxQueued/2)
		}
		stop := b.run(t)
		for n := range maxQueued/2 + 7 {
			b.send(someEvent(n))
		}
		if took := time.Since(b.began); took != 0 {
			t.Errorf("to queue events took %s", took)
		}
		b.want(t, maxQueued, map[string]int{resultDropped: 7})
		stop()
		b.want(t, 0, map[string]int{resultDropped: maxQueued + 7})
		if took := time.Since(b.began); took != flushTimeout {
			t.Errorf("the end took %s, want %s", took, flushTimeout)
		}
	})
}

// At the end, all that waits is tried once more, at once. Nothing is taken after that.
func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := true
		b := receive(func(_ int, r *http.Request) (*http.Response, error) {
			if down || r.Header.Get("Webhook-Id") == someEvent(0).id() {
				return answer(503, "Retry-After", "300")
			}
			return answer(200)
		})
		stop := b.run(t)
		for n := range 100 {
			b.send(someEvent(n))
		}
		synctest.Wait()
		b.want(t, 100, map[string]int{resultRetried: 100})
		down = false
		stop()
		if took := time.Since(b.began); took != 0 {
			t.Errorf("the end took %s", took)
		}
		b.want(t, 0, map[string]int{resultRetried: 100, resultOK: 99, resultDropped: 1})
		b.send(someEvent(100))
		b.want(t, 0, map[string]int{resultRetried: 100, resultOK: 99, resultDropped: 2})
	})
}

// Each term tells of the ends that are in the cluster, once. So none is lost with a replica.
func TestReportEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		ids := []string{}
		b := receive(func(_ int, r *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			ids = append(ids, r.Header.Get("Webhook-Id"))
			return answer(200)
		})
		tombstones := []*corev1.Event{testTombstone("Idle.")}
		b.deps.Ended = func() []*corev1.Event {
			mu.Lock()
			defer mu.Unlock()
			return tombstones
		}
		defer b.run(t)()
		second := testTombstone("Stopped.")
		second.InvolvedObject.UID = "another"
		for range 2 {
			ctx, cancel := context.WithCancel(t.Context())
			go b.ReportEnds(ctx)
			time.Sleep(time.Minute)
			mu.Lock()
			tombstones = []*corev1.Event{testTombstone("Idle."), second}
			mu.Unlock()
			time.Sleep(time.Minute)
			cancel()
			synctest.Wait()
		}
		slices.Sort(ids)
		if want := []string{"another-ended", "another-ended", testUID + "-ended", testUID + "-ended"}; !slices.Equal(ids, want) {
			t.Errorf("told are %q, want %q", ids, want)
		}
	})
}

// A Sender without a receiver can be run.
func TestNoReceiver(t *testing.T) {
	var s *Sender
	s.Run(t.Context())
	s.ReportEnds(t.Context())
}

// The client goes to the receiver only, and takes little from it.
func TestClientIsConfined(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the event went elsewhere: %s %s", r.Method, r.URL)
	}))
	defer elsewhere.Close()
	if proxy := newClient().Transport.(*http.Transport).Proxy; proxy != nil {
		t.Error("the client asks the environment for a proxy")
	}
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		final   bool
		err     string
	}{
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, true, "the receiver answered 307"},
		"huge head": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 2*maxHeaderBytes))
		}, false, "exceeded"},
		"endless body": {func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := io.WriteString(w, strings.Repeat("x", 1<<16)); err != nil {
					return // the client has hung up
				}
			}
		}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			receiver := httptest.NewServer(test.handler)
			defer receiver.Close()
			s := New(Deps{URL: receiver.URL + "/hidden", Key: []byte("0123456789abcdef"), Namespace: "binder-instances", Now: time.Now})
			defer s.client.CloseIdleConnections()
			began := time.Now()
			got := s.try(t.Context(), launched(testPod(), false))
			if took := time.Since(began); took > tryTimeout/2 {
				t.Errorf("it took %s", took)
			}
			switch {
			case test.err == "" && got.err != nil, got.final != test.final:
				t.Errorf("got %+v", got)
			case test.err != "" && (got.err == nil || !strings.Contains(got.err.Error(), test.err) || strings.Contains(got.err.Error(), "hidden")):
				t.Errorf("got the error %v, want one with %q and without the URL", got.err, test.err)
			}
		})
	}
}

// The largest event is small, even if JSON escapes its whole message.
func TestEventsAreSmall(t *testing.T) {
	message := instance.Clip(strings.Repeat("\u20ac<", 1000)) + " The container's last output:\na password"
	inst := instance.Instance{Reason: strings.Repeat("R", 64), Message: message, Fault: instance.FaultTemplate}
	body, err := failed(testPod(), kubetest.Noon, inst).encode("binder-instances")
	if err != nil || len(body) > 4<<10 || strings.Contains(string(body), "password") {
		t.Errorf("an event has %d bytes, %v: %s", len(body), err, body)
	}
}
