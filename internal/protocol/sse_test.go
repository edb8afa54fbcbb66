package protocol

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// stream is a stream of events and the client that reads it, in a synctest bubble. It
// is the client's connection too: the client receives only what was flushed.
type stream struct {
	http.ResponseWriter
	written       strings.Builder
	flushed       kubetest.LogBuffer
	seen          int // bytes of flushed that received has returned
	deadline      time.Time
	stuck         bool // the client reads nothing
	ended         bool
	goAway, drain func()
}

// openStream begins to stream the events of an instance.
func openStream(t *testing.T, world *kubetest.World, stuck bool) *stream {
	t.Helper()
	return openWatch(t, world, stuck, false)
}

func openWatch(t *testing.T, world *kubetest.World, stuck, watch bool) *stream {
	t.Helper()
	s := &stream{ResponseWriter: httptest.NewRecorder(), stuck: stuck}
	ctx, goAway := context.WithCancel(t.Context())
	draining, drain := context.WithCancel(t.Context())
	s.goAway, s.drain = goAway, drain
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	go func() {
		began := time.Now()
		warnings := Warnings{Before: time.Minute, Now: time.Now}.For(watch)
		StreamEvents(s, r, world, kubetest.ID(1), watch, draining, func(inst instance.Instance) ProgressEvent {
			if inst.Status == instance.StatusDeployed { // as package lifetime says
				inst.LastActivity, inst.CullAt = began, began.Add(time.Hour)
			}
			event := warnings.Event(inst, "binder.example/user/"+inst.ID)
			event.LastActivity, event.CullAt = "", ""
			return event
		})
		s.ended = true
	}()
	return s
}

func (s *stream) Write(p []byte) (int, error) {
	if s.stuck {
		return 0, os.ErrDeadlineExceeded
	}
	return s.written.Write(p)
}

func (s *stream) Flush() {
	_, _ = s.flushed.Write([]byte(s.written.String()))
	s.written.Reset()
}

func (s *stream) SetWriteDeadline(at time.Time) error {
	s.deadline = at
	return nil
}

// received returns what the client has received since the last call.
func (s *stream) received() string {
	synctest.Wait()
	text := s.flushed.String()[s.seen:]
	s.seen += len(text)
	return text
}

// want checks which events the client has received since the last call.
func (s *stream) want(t *testing.T, events ...string) {
	t.Helper()
	want := ""
	for _, event := range events {
		want += "event: progress\ndata: " + event + "\n\n"
	}
	if got := s.received(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func (s *stream) wantEnd(t *testing.T) {
	t.Helper()
	if s.want(t); !s.ended {
		t.Error("the stream goes on")
	}
}

const (
	startingEvent = `{"phase":"deploying","message":"Preparing the pod on its node."}`
	readyEvent    = `{"phase":"deployed","message":"Ready.","location":"binder.example/user/00000000000000000000000000000001"}`
)

func TestStreamEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := startingWorld()
		becomes(t, world, kubetest.Unscheduled)
		early := openStream(t, world, false)
		early.want(t, `{"phase":"pending","message":"Waiting for a node that can take the instance.","fault":"cluster"}`)
		becomes(t, world, kubetest.Starting)
		early.want(t, startingEvent)
		becomes(t, world, kubetest.Starting, kubetest.WithLabel("more", "of no interest"))
		early.want(t)

		late := openStream(t, world, false) // begins with the present state
		late.want(t, startingEvent)
		becomes(t, world)
		for _, s := range []*stream{early, late, openStream(t, world, false)} {
			s.want(t, readyEvent)
			s.wantEnd(t)
			if got := s.Header().Get("Content-Type"); got != "text/event-stream" {
				t.Errorf("Content-Type is %q", got)
			}
		}
	})
}

// A client that watches is told of a deployed instance too, until it has ended, and is warned
// before, though nothing changes but the clock.
func TestWatchGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := startingWorld()
		s := openWatch(t, world, false, true)
		s.want(t, startingEvent)
		becomes(t, world)
		s.want(t, readyEvent)
		time.Sleep(59*time.Minute - time.Second)
		if got := strings.ReplaceAll(s.received(), keepAliveComment, ""); got != "" {
			t.Errorf("too early: got %q", got)
		}
		time.Sleep(keepAlivePeriod)
		if got := strings.ReplaceAll(s.received(), keepAliveComment, ""); !strings.HasPrefix(got, "event: warning\ndata: {") || strings.Count(got, "event:") != 1 {
			t.Errorf("got %q, want a warning", got)
		}
		becomes(t, world, kubetest.Deleting)
		s.want(t, `{"phase":"deleted","message":"The instance is being deleted.","reason":"Deleting"}`)
		s.wantEnd(t)
	})
}

func TestWarnings(t *testing.T) {
	noon := kubetest.Noon
	at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
	idle := instance.Instance{Status: instance.StatusDeployed, Launched: at(-600), LastActivity: noon, CullAt: at(60)}
	change := func(change func(*instance.Instance)) instance.Instance { inst := idle; change(&inst); return inst }
	expiring := change(func(i *instance.Instance) { i.ExpiresAt, i.LastActivity = i.CullAt, at(55) })
	for _, test := range []struct {
		name   string
		inst   instance.Instance
		before int // minutes
		now    int
		says   string // "" for no warning
	}{
		{"early", idle, 10, 49, ""},
		{"soon", idle, 10, 50, "if it is not used"},
		{"over", idle, 10, 61, "if it is not used"},
		{"off", idle, 0, 61, ""},
		{"used again", change(func(i *instance.Instance) { i.LastActivity, i.CullAt = at(50), at(110) }), 10, 51, ""},
		{"short timeout, in use", change(func(i *instance.Instance) { i.CullAt = at(8) }), 10, 3, ""},
		{"short timeout, half over", change(func(i *instance.Instance) { i.CullAt = at(8) }), 10, 4, "if it is not used"},
		{"too old soon, in use", expiring, 10, 56, "its time is up"},
		{"too old later", expiring, 10, 49, ""},
		{"starting", change(func(i *instance.Instance) { i.Status = instance.StatusDeploying }), 10, 59, ""},
		{"no time known", change(func(i *instance.Instance) { i.CullAt = time.Time{} }), 10, 59, ""},
	} {
		warnings := Warnings{Before: time.Duration(test.before) * time.Minute, Now: func() time.Time { return at(test.now) }}
		got := warnings.Event(test.inst, "here")
		if got.warning != (test.says != "") || got.warning && !strings.Contains(got.Message, test.says) || (got.CullAt == "") != test.inst.CullAt.IsZero() {
			t.Errorf("%s: got %+v", test.name, got)
		}
	}
}

func TestReadWatch(t *testing.T) {
	for query, want := range map[string]bool{"": false, "x=1": false, "watch=true": true, "watch=1": true, "watch=false": false} {
		if got, err := ReadWatch(httptest.NewRequest(http.MethodGet, "/?"+query, nil)); err != nil || got != want {
			t.Errorf("%q: got %t, %v", query, got, err)
		}
	}
	for _, query := range []string{"watch", "watch=yes", "watch=true&watch=false", "watch=%zz"} {
		if _, err := ReadWatch(httptest.NewRequest(http.MethodGet, "/?"+query, nil)); err == nil {
			t.Errorf("%q is accepted", query)
		}
	}
}

func TestStreamEventsEnds(t *testing.T) {
	for _, row := range []struct {
		name string
		end  func(t testing.TB, s *stream, world *kubetest.World)
		want []string
	}{
		{"when the instance failed", func(t testing.TB, _ *stream, world *kubetest.World) { becomes(t, world, kubetest.Broken) },
			[]string{`{"phase":"failed","message":"The application ended: container notebook exited with code 1. Launch a new one. If it ends again, tell the author of the template.","reason":"Error","fault":"chance"}`}},
		{"when it is being deleted", func(t testing.TB, _ *stream, world *kubetest.World) { becomes(t, world, kubetest.Deleting) },
			[]string{`{"phase":"deleted","message":"The instance is being deleted.","reason":"Deleting"}`}},
		{"when nothing is known of it any more", func(t testing.TB, _ *stream, world *kubetest.World) {
			world.DropPod(t, instance.PodName(kubetest.ID(1)))
		}, nil},
		{"when the server stops", func(_ testing.TB, s *stream, _ *kubetest.World) { s.drain() }, nil},
		{"when the client goes", func(_ testing.TB, s *stream, _ *kubetest.World) { s.goAway() }, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world := startingWorld()
				s := openStream(t, world, false)
				s.want(t, startingEvent)
				row.end(t, s, world)
				s.want(t, row.want...)
				s.wantEnd(t)
			})
		})
	}
}

// TestStreamEventsKeepsAlive: a stream without news shows that it is alive. It also
// notices the start timeout, which no change of the pod tells.
func TestStreamEventsKeepsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStream(t, startingWorld(), false)
		s.want(t, startingEvent)
		time.Sleep(keepAlivePeriod)
		if got := s.received(); got != ":\n\n" {
			t.Errorf("after %s the client got %q, want a comment", keepAlivePeriod, got)
		}
		time.Sleep(kubetest.StartTimeout)
		if got := s.received(); !s.ended || !strings.Contains(got, `"reason":"StartTimeout"`) {
			t.Errorf("after the start timeout the stream has ended: %t; the client got %q", s.ended, got)
		}
	})
}

func TestStreamEventsLetsSlowClientsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStream(t, startingWorld(), true)
		s.wantEnd(t)
		if want := time.Now().Add(eventWriteTimeout); !s.deadline.Equal(want) {
			t.Errorf("the write must end by %s, want %s", s.deadline, want)
		}
	})
}

func TestAcceptsEvents(t *testing.T) {
	for _, row := range []struct {
		method string
		accept []string
		want   bool
	}{
		{"GET", []string{"text/event-stream"}, true},
		{"GET", []string{"text/html;q=0.1, Text/Event-Stream"}, true},
		{"GET", []string{"text/html", "text/event-stream"}, true},
		{"GET", []string{"application/json"}, false},
		{"GET", nil, false},
		{"HEAD", []string{"text/event-stream"}, false}, // its events would not be sent
	} {
		if got := AcceptsEvents(&http.Request{Method: row.method, Header: http.Header{"Accept": row.accept}}); got != row.want {
			t.Errorf("%s with Accept %q: %t, want %t", row.method, row.accept, got, row.want)
		}
	}
}

// However often the state changes, a stream sends one a second, and of no change only a comment.
func TestStreamState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stream{ResponseWriter: httptest.NewRecorder()}
		draining, drain := context.WithCancel(t.Context())
		changed := make(chan struct{}, 1)
		var state atomic.Int64
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		go func() {
			StreamState(s, r, draining, changed, func(context.Context) ([]byte, bool) { return strconv.AppendInt(nil, state.Load(), 10), true })
			s.ended = true
		}()
		wantText := func(when, want string) {
			t.Helper()
			if got := s.received(); got != want {
				t.Errorf("%s: got %q, want %q", when, got, want)
			}
		}
		wantText("at first", "event: state\ndata: 0\n\n")
		for range 4 {
			state.Add(1)
			select {
			case changed <- struct{}{}:
			default:
			}
			time.Sleep(100 * time.Millisecond)
		}
		wantText("within the first second", "")
		time.Sleep(statePause)
		wantText("after a second", "event: state\ndata: 4\n\n")
		time.Sleep(keepAlivePeriod)
		wantText("without a change", keepAliveComment)
		state.Add(1) // with time only
		time.Sleep(keepAlivePeriod)
		wantText("without being told", "event: state\ndata: 5\n\n")
		drain()
		if wantText("at the end", ""); !s.ended {
			t.Error("the stream goes on")
		}
	})
}
