package activity

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
)

// rules give an instance a period of five minutes.
var rules = lifetime.Rules{CullTimeout: time.Hour, StartTimeout: kubetest.StartTimeout}

var errAway = errors.New("the API server is away")

// testTracker is a Tracker of a world, and what it counted and logged.
type testTracker struct {
	*Tracker
	log *kubetest.LogBuffer

	mu      sync.Mutex
	written map[string]int // writes by result
	delays  []time.Duration
	fixed   int
}

// readModel is a world that knows the rules.
type readModel struct{ *kubetest.World }

func (r readModel) LastUse(id string) (written time.Time, cullTimeout time.Duration, ok bool) {
	pod, ok := r.Pod(id)
	if !ok || pod.DeletionTimestamp != nil {
		return time.Time{}, 0, false
	}
	written, _ = instance.LastActivity(pod)
	return written, rules.CullTimeoutOf(pod), true
}

func newTracker(world *kubetest.World) *testTracker {
	t := &testTracker{written: map[string]int{}}
	deps := Deps{Pods: world.Client.CoreV1().Pods(kubetest.Namespace), Cache: readModel{world}, Rules: rules, Metrics: t, Now: world.Now}
	deps.Log, t.log = kubetest.RecordLog()
	t.Tracker = New(deps)
	return t
}

func (t *testTracker) ActivityWritten(result string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.written[result]++
}

func (t *testTracker) ActivityDelayed(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.delays = append(t.delays, d)
}

func (t *testTracker) WrongTimeFixed() { t.fixed++ }

// count returns how many writes had a result.
func (t *testTracker) count(result string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.written[result]
}

// use touches the nth instance.
func (t *testTracker) use(n int) { t.Touch(kubetest.ID(n), instance.SourceHTTP) }

// flushDue does what happens at a tick.
func (t *testTracker) flushDue(tb testing.TB) { t.flush(tb.Context(), false) }

// podUsed is the pod of the nth instance, last used some time ago.
func podUsed(n int, ago time.Duration, now time.Time, changes ...func(*corev1.Pod)) *corev1.Pod {
	return kubetest.Pod(kubetest.ID(n), now.Add(-ago), changes...)
}

// stored returns the nth instance's pod as the API server has it.
func stored(t testing.TB, world *kubetest.World, n int) *corev1.Pod {
	t.Helper()
	pod, err := world.StoredPod(instance.PodName(kubetest.ID(n)))
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// wantUsed checks when the pod of the nth instance says that it was last used.
func wantUsed(t testing.TB, world *kubetest.World, n int, want time.Time) {
	t.Helper()
	if got, err := instance.LastActivity(stored(t, world, n)); err != nil || !got.Equal(want.Truncate(time.Millisecond)) {
		t.Errorf("the pod of instance %d says %s, %v, want %s", n, got, err, want)
	}
}

// wantWrites checks how many writes the API server was asked for.
func wantWrites(t testing.TB, world *kubetest.World, want int) {
	t.Helper()
	if got := len(world.Writes()); got != want {
		t.Errorf("there were %d writes, want %d", got, want)
	}
}

func TestWriteSetsTheUseAndNothingElse(t *testing.T) {
	now := kubetest.Noon.Add(300 * time.Microsecond) // more than an annotation can hold
	world := kubetest.NewWorld(func() time.Time { return now }, nil, podUsed(1, time.Hour, kubetest.Noon))
	want := maps.Clone(stored(t, world, 1).Annotations)
	want[instance.LastActivityAnnotation], want[instance.ActivitySourceAnnotation] = "2026-01-02T12:00:00.000Z", "websocket"
	tracker := newTracker(world)
	tracker.Touch(kubetest.ID(1), instance.SourceWebSocket)
	now = now.Add(time.Second)
	tracker.Flush(t.Context())
	if got := stored(t, world, 1).Annotations; !maps.Equal(got, want) {
		t.Errorf("the annotations are %v, want %v", got, want)
	}
	tracker.Flush(t.Context())
	wantWrites(t, world, 1)
}

// What becomes of a use when it is to be written.
func TestFlushOutcomes(t *testing.T) {
	same := func(*corev1.Pod) {}
	for _, row := range []struct {
		name    string
		change  func(*corev1.Pod)
		err     error // of the write
		writes  int
		kept    bool // to be written later
		counted string
		logged  bool
	}{
		{"written", same, nil, 1, false, "ok", false},
		{"the cache was behind", same, kubetest.Conflict("pod"), 1, true, "conflict", false},
		{"the pod has gone", same, kubetest.NotFound("pod"), 1, false, "error", false},
		{"the API server is away", same, errAway, 1, true, "error", true},
		{"the annotation is unreadable", kubetest.WithAnnotation(instance.LastActivityAnnotation, "mangled"), nil, 1, false, "ok", true},
		{"another replica has written a later use", kubetest.LastUsed(kubetest.Noon.Add(time.Second)), nil, 0, false, "", false},
		{"another replica has written the same", kubetest.LastUsed(kubetest.Noon), nil, 0, false, "", false},
		{"the pod is being deleted", kubetest.Deleting, nil, 0, false, "", false},
		{"not an instance", kubetest.WithLabel(instance.PoolLabel, instance.PoolWarm), nil, 0, false, "", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			now := kubetest.Noon.Add(300 * time.Microsecond)
			world := kubetest.NewWorld(kubetest.ClockAt(now), nil, podUsed(1, time.Hour, kubetest.Noon, row.change))
			tracker := newTracker(world)
			stopFailing := func() {}
			if row.err != nil {
				stopFailing = world.FailOn("patch", "pods", row.err)
			}
			tracker.use(1)
			tracker.flushDue(t)
			wantWrites(t, world, row.writes)
			want := map[string]int{}
			if row.counted != "" {
				want[row.counted] = 1
			}
			if !maps.Equal(tracker.written, want) {
				t.Errorf("counted are %v, want %v", tracker.written, want)
			}
			if log := tracker.log.String(); (log != "") != row.logged {
				t.Errorf("logged is %t, want %t: %s", log != "", row.logged, log)
			}
			stopFailing()
			tracker.Flush(t.Context())
			if row.kept {
				row.writes++
			}
			wantWrites(t, world, row.writes)
		})
	}
}

// An annotation that is unreadable is logged and counted once it is replaced, and not
// at each attempt.
func TestUnreadableIsToldOnce(t *testing.T) {
	world := kubetest.NewWorld(kubetest.ClockAt(kubetest.Noon), nil,
		podUsed(1, 0, kubetest.Noon, kubetest.WithAnnotation(instance.LastActivityAnnotation, "mangled")))
	tracker := newTracker(world)
	stopFailing := world.FailOn("patch", "pods", errAway)
	tracker.use(1)
	for want := range 2 {
		for range 10 {
			tracker.flushDue(t)
		}
		if told := strings.Count(tracker.log.String(), "unreadable"); tracker.fixed != want || told != want {
			t.Errorf("counted %d times and told %d times, want %d:\n%s", tracker.fixed, told, want, tracker.log)
		}
		stopFailing()
	}
	wantUsed(t, world, 1, kubetest.Noon)
}

// While the API server is away, one line a tick tells of all instances.
func TestNotWrittenIsOneLine(t *testing.T) {
	world := kubetest.NewWorld(kubetest.ClockAt(kubetest.Noon), nil)
	tracker := newTracker(world)
	world.FailOn("patch", "pods", errAway)
	for n := range 3 {
		world.PutPod(t, podUsed(n, time.Hour, kubetest.Noon))
		tracker.use(n)
	}
	tracker.flushDue(t)
	if got := tracker.log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "instances=3") || !strings.Contains(got, errAway.Error()) {
		t.Errorf("the log is %s", got)
	}
}

// It is told up to when all is written, but not while something that is due is not.
func TestTellsUpToWhenAllIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := kubetest.NewWorld(time.Now, nil, podUsed(1, 0, time.Now()))
		tracker := newTracker(world)
		var told atomic.Pointer[time.Time]
		tracker.deps.Written = func(at time.Time) { told.Store(&at) }
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go tracker.Run(ctx)
		want := func(what string, at time.Time) {
			t.Helper()
			synctest.Wait()
			if got := told.Load(); got == nil || !got.Equal(at) {
				t.Errorf("%s: all is written until %v, want %s", what, got, at)
			}
		}
		time.Sleep(lifetime.FlushTick)
		want("unused", time.Now())
		stopFailing := world.FailOn("patch", "pods", errAway)
		tracker.use(1)
		time.Sleep(time.Minute)
		want("used, but not for a period yet", time.Now())
		time.Sleep(rules.Period(rules.CullTimeout) + lifetime.FlushTick/2)
		tracker.use(1)
		before := time.Now().Add(-lifetime.FlushTick / 2)
		time.Sleep(10 * lifetime.FlushTick)
		want("not written", before)
		stopFailing()
		time.Sleep(lifetime.FlushTick)
		want("written", time.Now().Add(-lifetime.FlushTick/2))
	})
}

// One pod that takes no write keeps the others for a while only. If no write at all works, that
// is no fault of one pod, and all wait.
func TestOnePodTakesNoWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const short = 12 * time.Second // a second is its period
		often := kubetest.WithAnnotation(instance.CullTimeoutAnnotation, short.String())
		world := kubetest.NewWorld(time.Now, nil, podUsed(1, 0, time.Now(), often), podUsed(2, 0, time.Now(), often))
		tracker := newTracker(world)
		tracker.deps.Rules.MinCullTimeout = short
		var told atomic.Pointer[time.Time]
		tracker.deps.Written = func(at time.Time) { told.Store(&at) }
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go tracker.Run(ctx)
		use := func(d time.Duration, all ...int) (behind time.Duration) {
			for until := time.Now().Add(d); time.Now().Before(until); time.Sleep(10 * lifetime.FlushTick) {
				for _, n := range all {
					tracker.use(n)
				}
			}
			synctest.Wait()
			return time.Since(*told.Load()).Round(time.Minute)
		}
		if behind := use(time.Minute, 1, 2); behind != 0 {
			t.Errorf("all is well, and it trails by %s", behind)
		}
		var refused atomic.Bool
		refused.Store(true)
		world.React("patch", "pods", func(action k8stesting.Action) (bool, runtime.Object, error) {
			return refused.Load() && kubetest.NameOf(action) == instance.PodName(kubetest.ID(1)), nil, errAway
		})
		if behind := use(5*time.Minute, 1, 2); behind != 5*time.Minute {
			t.Errorf("one pod takes no write for 5 min, and it trails by %s", behind)
		}
		if behind := use(15*time.Minute, 1, 2); behind != GivenUpAfter {
			t.Errorf("one pod takes no write for long, and it trails by %s", behind)
		}
		refused.Store(false)
		if behind := use(time.Minute, 1, 2); behind != 0 {
			t.Errorf("it takes writes again, and it trails by %s", behind)
		}
		world.FailOn("patch", "pods", errAway)
		if behind := use(18*time.Minute, 1, 2); behind != 18*time.Minute {
			t.Errorf("no pod takes a write, and it trails by %s", behind)
		}
	})
}

func TestConflictIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := kubetest.NewWorld(time.Now, nil, podUsed(1, time.Hour, time.Now()))
		tracker := newTracker(world)
		go tracker.Run(t.Context())
		world.PauseWatch()
		world.ChangePod(t, instance.PodName(kubetest.ID(1)), func(*corev1.Pod) {})
		tracker.use(1)
		used := time.Now()
		time.Sleep(3*lifetime.FlushTick + lifetime.FlushTick/2)
		if got := tracker.count("conflict"); got != 3 {
			t.Errorf("%d writes met a conflict, want one a tick", got)
		}
		world.ResumeWatch()
		time.Sleep(3 * lifetime.FlushTick)
		wantWrites(t, world, 4)
		wantUsed(t, world, 1, used)
	})
}

// A tiny cull timeout, of an instance in constant use, costs no more writes than the
// shortest one that a launch can ask for.
func TestWritesHaveAFloor(t *testing.T) {
	now := kubetest.Noon
	world := kubetest.NewWorld(func() time.Time { return now }, nil, podUsed(1, 0, now, kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "1ms")))
	tracker := newTracker(world)
	tracker.deps.Rules.MinCullTimeout = time.Minute
	for range 61 {
		now = now.Add(time.Second)
		tracker.use(1)
		tracker.flushDue(t)
	}
	wantWrites(t, world, 12)
}

// After an outage, writes can work before the watch does. A replica goes by what it
// has written itself, and never overwrites what others have written.
func TestWritesWhileTheWatchLags(t *testing.T) {
	now := kubetest.Noon
	world := kubetest.NewWorld(func() time.Time { return now }, nil, podUsed(1, 0, now, kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "2m")))
	tracker := newTracker(world)
	period := lifetime.Rules{}.Period(2 * time.Minute)
	world.PauseWatch()
	for n := range 3 {
		now = now.Add(period + time.Second)
		for range 2 { // the second use is not due
			tracker.use(1)
			tracker.flushDue(t)
		}
		wantWrites(t, world, n+1)
		wantUsed(t, world, 1, now)
	}
	later := now.Add(time.Hour)
	world.ChangePod(t, instance.PodName(kubetest.ID(1)), kubetest.LastUsed(later))
	now = now.Add(period + time.Second)
	tracker.use(1)
	tracker.flushDue(t)
	if want := map[string]int{"ok": 3, "conflict": 1}; !maps.Equal(tracker.written, want) {
		t.Errorf("counted are %v, want %v", tracker.written, want)
	}
	world.ResumeWatch()
	tracker.Flush(t.Context())
	wantWrites(t, world, 4)
	wantUsed(t, world, 1, later)
}

// No tick follows the last flush, so it tries again by itself until its time is up.
func TestFlushMeetsConflicts(t *testing.T) {
	for _, row := range []struct {
		conflicts int // before a write succeeds
		writes    int
		written   bool
	}{{1, 2, true}, {2, 3, true}, {1000, 5, false}} {
		synctest.Test(t, func(t *testing.T) {
			world := kubetest.NewWorld(time.Now, nil, podUsed(1, time.Second, time.Now()))
			tracker := newTracker(world)
			left := row.conflicts
			world.React("patch", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
				left--
				return left >= 0, nil, kubetest.Conflict("pod")
			})
			tracker.use(1)
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second+lastFlushPause/2)
			defer cancel()
			tracker.Flush(ctx)
			wantWrites(t, world, row.writes)
			if got := tracker.count("ok") == 1; got != row.written {
				t.Errorf("%d conflicts: written is %t, want %t", row.conflicts, got, row.written)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("%d conflicts: it took %s", row.conflicts, took)
			}
		})
	}
}

func TestFlushEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := kubetest.NewWorld(time.Now, nil, podUsed(1, time.Second, time.Now()))
		tracker := newTracker(world)
		tracker.use(1)
		ctx, cancel := context.WithCancel(t.Context())
		world.React("patch", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
			cancel()
			return true, nil, kubetest.Conflict("pod")
		})
		began := time.Now()
		tracker.Flush(ctx)
		wantWrites(t, world, 1)
		if took := time.Since(began); took > 0 {
			t.Errorf("it took %s longer", took)
		}
	})
}

// An instance may be used again while its earlier use is being written.
func TestUseDuringTheWrite(t *testing.T) {
	now := kubetest.Noon
	world := kubetest.NewWorld(func() time.Time { return now }, nil, podUsed(1, time.Hour, now))
	tracker := newTracker(world)
	tracker.use(1)
	world.React("patch", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
		now = kubetest.Noon.Add(time.Second)
		tracker.use(1)
		return false, nil, nil
	})
	for _, want := range []time.Duration{0, time.Second} {
		tracker.Flush(t.Context())
		wantUsed(t, world, 1, kubetest.Noon.Add(want))
	}
}

func TestTouchNeverGoesBack(t *testing.T) {
	now := kubetest.Noon
	world := kubetest.NewWorld(func() time.Time { return now }, nil, podUsed(1, time.Hour, now))
	tracker := newTracker(world)
	for _, step := range []time.Duration{0, -time.Minute, time.Second, 0} {
		now = kubetest.Noon.Add(step)
		tracker.use(1)
	}
	tracker.Flush(t.Context())
	wantUsed(t, world, 1, kubetest.Noon.Add(time.Second))
}
