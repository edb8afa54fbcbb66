package activity

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
)

// writeTimes records when each pod was written, by name.
func writeTimes(t testing.TB, world *kubetest.World) (times func(n int) []time.Time) {
	t.Helper()
	var mu sync.Mutex
	all, seen := map[string][]time.Time{}, map[string]bool{}
	err := world.OnPod(func(pod *corev1.Pod) {
		mu.Lock()
		defer mu.Unlock()
		if version := pod.Name + pod.ResourceVersion; !seen[version] { // it may be told twice
			seen[version] = true
			all[pod.Name] = append(all[pod.Name], time.Now())
		}
	}, func(*corev1.Pod) {})
	if err != nil {
		t.Fatal(err)
	}
	return func(n int) []time.Time {
		mu.Lock()
		defer mu.Unlock()
		return all[instance.PodName(kubetest.ID(n))]
	}
}

// slowPods takes a second for each write.
type slowPods struct{ kube.PodPatcher }

func (s slowPods) Patch(ctx context.Context, name string, kind types.PatchType, data []byte, opts metav1.PatchOptions, sub ...string) (*corev1.Pod, error) {
	time.Sleep(time.Second)
	return s.PodPatcher.Patch(ctx, name, kind, data, opts, sub...)
}

// However often an instance is used, and through however many replicas, its pod is
// written once a period, which is a twelfth of its timeout; and never if it is not
// used.
func TestWrittenOnceAPeriod(t *testing.T) {
	for _, replicas := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			world := kubetest.NewWorld(time.Now, nil, podUsed(1, 0, began), podUsed(3, 0, began),
				podUsed(2, 0, began, kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "2h")))
			written := writeTimes(t, world)
			var trackers []*testTracker
			for range replicas {
				trackers = append(trackers, newTracker(world))
				go trackers[len(trackers)-1].Run(t.Context())
			}
			for step := 0; time.Since(began) < time.Hour; step++ {
				trackers[step%replicas].use(1)
				trackers[step%replicas].use(2)
				time.Sleep(lifetime.FlushTick / 4)
			}
			for n, period := range map[int]time.Duration{1: 5 * time.Minute, 2: 10 * time.Minute} {
				times := written(n)
				if want := int(time.Hour / period); len(times) > want || len(times) < want-1 {
					t.Errorf("%d replicas: instance %d was written %d times in an hour, want %d, or one less", replicas, n, len(times), want)
				}
				last := began
				for _, at := range times { // a tick may pass until a write is seen to be due
					if gap := at.Sub(last); gap < period-lifetime.FlushTick || gap > period+2*lifetime.FlushTick {
						t.Errorf("%d replicas: instance %d: %s between two writes, want %s", replicas, n, gap, period)
					}
					last = at
				}
			}
			if times := written(3); len(times) > 0 {
				t.Errorf("written although not used: %v", times)
			}
		})
	}
}

// An instance with few uses, at unlucky times, is not written more often. The
// annotation is never further behind than Rules.Lag allows for, so a replica
// that is killed costs nobody an instance.
func TestFewUses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, period := time.Now(), lifetime.Rules{}.Period(time.Hour)
		world := kubetest.NewWorld(time.Now, nil, podUsed(1, time.Hour, began, kubetest.LastUsed(began)))
		written := writeTimes(t, world)
		replicas := []*testTracker{newTracker(world), newTracker(world)}
		for _, tracker := range replicas {
			go tracker.Run(t.Context())
		}
		used := []time.Time{began}
		for step := 0; time.Since(began) < 40*time.Minute; step++ {
			switch since := time.Since(began); {
			case step == 1, since > period+4*time.Second && since < 2*period-2*time.Second, since > 6*period && step%7 == 0:
				used = append(used, time.Now())
				replicas[step%2].use(1)
			}
			time.Sleep(lifetime.FlushTick / 2)
			for len(used) > 1 && time.Since(used[1]) >= 2*lifetime.FlushTick { // before that its write may be under way
				used = used[1:]
			}
			if last, _ := instance.LastActivity(stored(t, world, 1)); used[0].Sub(last) > period {
				t.Fatalf("after %s the annotation is %s behind", time.Since(began), used[0].Sub(last))
			}
		}
		times := written(1)
		if len(times) == 0 {
			t.Error("it was never written")
		}
		for i := 1; i < len(times); i++ {
			if gap := times[i].Sub(times[i-1]); gap < period-lifetime.FlushTick {
				t.Errorf("%s between two writes", gap)
			}
		}
	})
}

// A use after a long silence is written at once, whoever wrote last: the culler may
// be about to look.
func TestUseAfterASilenceIsWrittenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := kubetest.NewWorld(time.Now, nil, podUsed(1, 0, time.Now()))
		tracker := newTracker(world)
		go tracker.Run(t.Context())
		for want := 1; want <= 2; want++ {
			time.Sleep(time.Hour)
			tracker.use(1)
			used := time.Now()
			time.Sleep(2 * lifetime.FlushTick)
			wantWrites(t, world, want)
			wantUsed(t, world, 1, used)
			world.ChangePod(t, instance.PodName(kubetest.ID(1)), kubetest.LastUsed(time.Now())) // by another replica
		}
	})
}

// When writes are slow and many are due, the instance that would be taken for idle
// next does not wait for those that have long.
func TestLeastTimeLeftIsWrittenFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 100 // writes for more than two flushes
		began := time.Now()
		pods := []runtime.Object{podUsed(many, 59*time.Minute, began)}
		for n := range many {
			pods = append(pods, podUsed(n, time.Duration(10+n%10)*time.Minute, began))
		}
		world := kubetest.NewWorld(time.Now, nil, pods...)
		tracker := newTracker(world)
		tracker.deps.Pods = slowPods{tracker.deps.Pods}
		go tracker.Run(t.Context())
		for n := range many {
			tracker.use(n)
		}
		time.Sleep(2 * lifetime.FlushTick) // the first flush is under way
		tracker.use(many)
		used := time.Now()
		time.Sleep(flushLimit + 2*time.Second)
		wantUsed(t, world, many, used)
		time.Sleep(2 * many / kube.Writers * time.Second)
		for n := range many {
			wantUsed(t, world, n, began)
		}
	})
}

// The last writes of a replica do not wait for their period.
func TestFlushWritesAll(t *testing.T) {
	const many = 3*kube.Writers + 1
	now := kubetest.Noon
	world := kubetest.NewWorld(func() time.Time { return now }, nil)
	tracker := newTracker(world)
	for n := range many {
		world.PutPod(t, podUsed(n, 0, now))
	}
	now = now.Add(10 * time.Second)
	for n := range many {
		tracker.use(n)
	}
	tracker.flushDue(t)
	wantWrites(t, world, 0)
	for range 2 { // the second time there is nothing left
		tracker.Flush(t.Context())
		wantWrites(t, world, many)
	}
	for n := range many {
		wantUsed(t, world, n, now)
	}
}

// The last flush also writes what it does not get to at once.
func TestFlushOnASlowServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 60 // writes for more than flushLimit
		world := kubetest.NewWorld(time.Now, nil)
		tracker := newTracker(world)
		tracker.deps.Pods = slowPods{tracker.deps.Pods}
		for n := range many {
			world.PutPod(t, podUsed(n, time.Second, time.Now()))
			tracker.use(n)
		}
		used := time.Now()
		tracker.Flush(t.Context())
		for n := range many {
			wantUsed(t, world, n, used)
		}
	})
}

// Ids come from visitors, and instances come and go: nothing is remembered of those
// that do not exist.
func TestMemoryIsBounded(t *testing.T) {
	now := kubetest.Noon
	world := kubetest.NewWorld(func() time.Time { return now }, nil)
	tracker := newTracker(world)
	for n := range 100 {
		pod := podUsed(n, 0, now)
		if n%3 == 0 { // its use is never due
			kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "100h")(pod)
		}
		world.PutPod(t, pod)
		now = now.Add(6 * time.Minute)
		tracker.use(n)
		tracker.use(1000 + n) // no such instance
		tracker.flushDue(t)
		world.DropPod(t, pod.Name)
	}
	tracker.flushDue(t)
	if got := tracker.snapshot(); len(got) > 0 {
		t.Errorf("remembered are %v", got)
	}
	if got := len(world.Writes()); got < 60 {
		t.Errorf("only %d writes: the test proves nothing", got)
	}
}

// manyInUse is a read model of instances that are all in use, without a server.
type manyInUse struct {
	pods    map[string]*corev1.Pod
	written map[string]time.Time
}

func (m *manyInUse) Pod(id string) (*corev1.Pod, bool) { return m.pods[id], true }

func (m *manyInUse) LastUse(id string) (written time.Time, cullTimeout time.Duration, ok bool) {
	return m.written[id], rules.CullTimeout, true
}

func (m *manyInUse) Wrote(*corev1.Pod) {}

// However many instances were last written at the same moment, their writes are soon spread
// evenly, and never more than one a period for each. None is written late.
func TestWritesAreSpread(t *testing.T) {
	const instances, minutes = 1500, 20
	period := rules.Period(rules.CullTimeout)
	now := kubetest.Noon
	model := &manyInUse{pods: map[string]*corev1.Pod{}, written: map[string]time.Time{}}
	for n := range instances {
		id := kubetest.ID(n)
		model.pods[id], model.written[id] = podUsed(n, 0, now), now
	}
	tracker := New(Deps{Cache: model, Rules: rules, Now: func() time.Time { return now }})
	ticksOfMinute := int(time.Minute / lifetime.FlushTick)
	for minute := range minutes {
		inMinute, most := 0, 0
		for range ticksOfMinute {
			now = now.Add(lifetime.FlushTick)
			for id := range model.pods {
				tracker.Touch(id, instance.SourceHTTP)
			}
			due := tracker.due(false)
			inMinute, most = inMinute+len(due), max(most, len(due))
			for _, write := range due {
				id := write.pod.Labels[instance.IDLabel]
				if behind := write.at.Sub(model.written[id]); behind > period || behind < period/2 {
					t.Fatalf("minute %d: an instance is written %s after it was last", minute, behind)
				}
				kubetest.LastUsed(write.at)(write.pod)
				model.written[id] = write.at
				tracker.drop(id, write.use)
			}
		}
		even := instances * int(lifetime.FlushTick) / int(period)
		t.Logf("minute %d: %d writes, at most %d in a tick", minute, inMinute, most)
		if limit := even * ticksOfMinute; minute >= 10 && (inMinute > limit+1 || most > 2*even) {
			t.Errorf("minute %d: %d writes, and %d in one tick; want at most %d, evenly", minute, inMinute, most, limit)
		}
	}
}
