package main

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
)

// wantActivityPatch checks that a write sets a pod's last activity, its source and
// nothing else, and is refused if anybody has written to the pod since it was read.
func wantActivityPatch(t testing.TB, write k8stesting.Action, pod *corev1.Pod, used time.Time, source instance.Source) {
	t.Helper()
	if !write.Matches("patch", "pods") {
		t.Fatalf("the write is %v, want a patch of a pod", write)
	}
	patch := write.(k8stesting.PatchActionImpl)
	said := "null"
	if source != "" {
		said = `"` + string(source) + `"`
	}
	want := `{"metadata":{"annotations":{"binder-project.org/last-activity":"` + used.UTC().Format("2006-01-02T15:04:05.000Z07:00") +
		`","binder-project.org/last-activity-source":` + said + `},"resourceVersion":"` + pod.ResourceVersion + `"}}`
	if patch.Name != pod.Name || patch.PatchType != types.MergePatchType || string(patch.Patch) != want {
		t.Errorf("the patch is a %s of %s:\n%s, want\n%s", patch.PatchType, patch.Name, patch.Patch, want)
	}
}

func newTestActivity(c *testCluster) (*Activity, *kubetest.LogBuffer) {
	log, lines := kubetest.RecordLog()
	return NewActivity(c.Client.CoreV1().Pods(kubetest.Namespace), c.Cluster, time.Hour, metrics.New("test", metricValues()), log, c.Cluster.now), lines
}

// start runs the activity's write-back until the function it returns is called.
func (a *Activity) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { a.Run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

// patched are when an instance's activity was written, by the values.
func patched(t testing.TB, c *testCluster, id string) []time.Time {
	t.Helper()
	var times []time.Time
	for _, write := range c.Writes() {
		patch := write.(k8stesting.PatchActionImpl)
		if patch.Name != instance.PodName(id) {
			continue
		}
		pod := &corev1.Pod{}
		if err := json.Unmarshal(patch.Patch, pod); err != nil {
			t.Fatal(err)
		}
		used, err := instance.LastActivity(pod)
		if err != nil {
			t.Fatal(err)
		}
		times = append(times, used)
	}
	return times
}

// However often an instance is used, its pod is written once a period, which is
// a twelfth of its timeout; and if it is not used, never.
func TestActivityIsCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c := startCluster(t, time.Now,
			kubetest.Pod(kubetest.ID(1), began), kubetest.Pod(kubetest.ID(2), began, kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "2h")), kubetest.Pod(kubetest.ID(3), began))
		activity, _ := newTestActivity(c)
		stop := activity.start()
		for time.Since(began) < time.Hour {
			activity.Touch(kubetest.ID(1), instance.SourceHTTP)
			activity.Touch(kubetest.ID(2), instance.SourceHTTP)
			time.Sleep(100 * time.Millisecond)
		}
		stop()
		for id, period := range map[string]time.Duration{kubetest.ID(1): 5 * time.Minute, kubetest.ID(2): 10 * time.Minute} {
			times := patched(t, c, id)
			if want := int(time.Hour / period); len(times) > want || len(times) < want-1 {
				t.Errorf("%s: written %d times in an hour, want %d, or one less", id, len(times), want)
			}
			last := began
			for _, at := range times {
				// A tick may pass until it is seen that a write is due.
				if gap := at.Sub(last); gap < period-flushTick || gap > period+2*flushTick {
					t.Errorf("%s: %s between two writes, want %s", id, gap, period)
				}
				last = at
			}
		}
		if times := patched(t, c, kubetest.ID(3)); len(times) > 0 {
			t.Errorf("written although not used: %v", times)
		}
		ok := metric(t, activity.metrics, "binder_activity_patches_total", "ok")
		if want := float64(len(c.Writes())); ok != want {
			t.Errorf("counted are %v writes, want %v", ok, want)
		}
	})
}

func TestActivityPatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := kubetest.Pod(kubetest.ID(1), time.Now().Add(-time.Hour))
		c := startCluster(t, time.Now, pod)
		activity, _ := newTestActivity(c)
		activity.Touch(kubetest.ID(1), instance.SourceHTTP)
		used := time.Now()
		time.Sleep(300 * time.Millisecond)
		activity.Flush(t.Context())
		if writes := c.Writes(); len(writes) != 1 {
			t.Fatalf("the writes are %v, want one", writes)
		}
		wantActivityPatch(t, c.Writes()[0], pod, used, instance.SourceHTTP)
		synctest.Wait()
		cached, _ := c.Pod(kubetest.ID(1))
		if got, err := instance.LastActivity(cached); err != nil || !got.Equal(used.Truncate(time.Millisecond)) {
			t.Errorf("the pod says %s, %v; want %s", got, err, used)
		}
		want := kubetest.Pod(kubetest.ID(1), time.Now()).Annotations
		want[instance.LastActivityAnnotation], want[instance.ActivitySourceAnnotation] = instance.FormatTime(used), "http"
		if !maps.Equal(cached.Annotations, want) {
			t.Errorf("its annotations are %v, want %v", cached.Annotations, want)
		}
	})
}

// The last writes of a replica do not wait for their period.
func TestActivityFlushWritesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pods []runtime.Object
		const many = 3*kube.Writers + 1
		for n := range many {
			pods = append(pods, kubetest.Pod(kubetest.ID(n), time.Now()))
		}
		c := startCluster(t, time.Now, pods...)
		activity, _ := newTestActivity(c)
		time.Sleep(10 * time.Second)
		for n := range many {
			activity.Touch(kubetest.ID(n), instance.SourceHTTP)
		}
		activity.flush(t.Context(), flushPeriod, flushSpell)
		if writes := c.Writes(); len(writes) > 0 {
			t.Errorf("written before they are due: %v", writes)
		}
		activity.Flush(t.Context())
		for n := range many {
			if times := patched(t, c, kubetest.ID(n)); len(times) != 1 || !times[0].Equal(time.Now().Truncate(time.Millisecond)) {
				t.Errorf("instance %d was written %v, want now", n, times)
			}
		}
		synctest.Wait()
		activity.Flush(t.Context())
		if got := len(c.Writes()); got != many || len(activity.last) > 0 {
			t.Errorf("a second flush makes it %d writes, want %d; held are %v", got, many, activity.last)
		}
	})
}

// What becomes of an activity when it is to be written.
func TestActivityFlush(t *testing.T) {
	conflicts, gone, away := kubetest.Conflict(instance.PodName(kubetest.ID(1))), kubetest.NotFound(instance.PodName(kubetest.ID(1))), errors.New("the API server is away")
	for _, test := range []struct {
		name    string
		change  func(*corev1.Pod)
		err     error // of the write
		writes  int
		held    bool // to be tried again
		counted string
		logged  string
	}{
		{"written", changes(), nil, 1, false, "ok", ""},
		{"the cache was behind", changes(), conflicts, 1, true, "conflict", ""},
		{"the pod has gone", changes(), gone, 1, false, "error", ""},
		{"the API server is away", changes(), away, 1, true, "error", `msg="activity not written, will be tried again" instances=1`},
		{"the annotation is mangled", kubetest.WithAnnotation(instance.LastActivityAnnotation, "mangled"), nil, 1, false, "ok",
			`msg="last activity unreadable, was written anew" id=` + kubetest.ID(1) + " template=jupyter"},
		{"another replica has written a later one", kubetest.LastUsed(kubetest.Noon.Add(time.Second)), nil, 0, false, "", ""},
		{"another replica has written the same", kubetest.LastUsed(kubetest.Noon), nil, 0, false, "", ""},
		{"the pod is being deleted", kubetest.Deleting, nil, 0, false, "", ""},
		{"not known as an instance", kubetest.WithLabel(instance.PoolLabel, "warm"), nil, 0, false, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := kubetest.Noon.Add(300 * time.Microsecond) // more than an annotation can hold
			c := startCluster(t, kubetest.ClockAt(now), kubetest.Pod(kubetest.ID(1), kubetest.Noon.Add(-time.Hour), test.change))
			activity, log := newTestActivity(c)
			if test.err != nil {
				c.FailOn("patch", "pods", test.err)
			}
			activity.Touch(kubetest.ID(1), instance.SourceHTTP)
			activity.flush(t.Context(), flushPeriod, flushSpell)
			if writes := c.Writes(); len(writes) != test.writes {
				t.Errorf("the writes are %v, want %d", writes, test.writes)
			}
			if _, held := activity.last[kubetest.ID(1)]; held != test.held {
				t.Errorf("held is %v, want %t", activity.last, test.held)
			}
			for _, result := range []string{"ok", "conflict", "error"} {
				want := 0.0
				if result == test.counted {
					want = 1
				}
				if got := metric(t, activity.metrics, "binder_activity_patches_total", result); got != want {
					t.Errorf("counted as %s are %v, want %v", result, got, want)
				}
			}
			if !strings.Contains(log.String(), test.logged) || (log.String() != "") != (test.logged != "") {
				t.Errorf("the log is %q, want %q in it", log, test.logged)
			}
		})
	}
}

// After a conflict it is tried again, with the version the cache then has.
func TestActivityConflictIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now().Add(-time.Hour)))
		activity, _ := newTestActivity(c)
		mend := c.FailOn("patch", "pods", kubetest.Conflict(instance.PodName(kubetest.ID(1))))
		stop := activity.start()
		activity.Touch(kubetest.ID(1), instance.SourceHTTP)
		used := time.Now()
		time.Sleep(3*flushTick + flushTick/2)
		mend()
		changed := kubetest.Pod(kubetest.ID(1), time.Now().Add(-time.Hour))
		c.put(t, changed)
		cached, _ := c.Pod(kubetest.ID(1))
		time.Sleep(3 * flushTick)
		stop()
		writes := c.Writes()
		if len(writes) != 4 {
			t.Fatalf("there were %d writes, want 3 that met a conflict and one that did not", len(writes))
		}
		wantActivityPatch(t, writes[3], cached, used, instance.SourceHTTP)
	})
}

// While the API server is away, one line a tick says so, and not one for each.
func TestActivityNotWrittenIsOneLine(t *testing.T) {
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon), ago(1, time.Hour), ago(2, time.Hour), ago(3, time.Hour))
	activity, log := newTestActivity(c)
	c.FailOn("patch", "pods", errors.New("the API server is away"))
	for n := range 3 {
		activity.Touch(kubetest.ID(n+1), instance.SourceHTTP)
	}
	activity.flush(t.Context(), flushPeriod, flushSpell)
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `instances=3 error="write the annotations of pod binder-`) {
		t.Errorf("the log is %s", got)
	}
}

// The last flush has no tick after it: it tries again by itself, a few times.
func TestActivityFlushMeetsConflicts(t *testing.T) {
	for _, test := range []struct {
		name      string
		conflicts int // before a write succeeds
		writes    int
		held      bool
	}{
		{"once", 1, 2, false}, {"twice", 2, 3, false}, {"for ever", 1000, 3, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := startCluster(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now()), kubetest.Pod(kubetest.ID(2), time.Now()))
			activity, _ := newTestActivity(c)
			left := test.conflicts
			c.React("patch", "pods", func(action k8stesting.Action) (bool, runtime.Object, error) {
				left--
				return left >= 0, nil, kubetest.Conflict(instance.PodName(kubetest.ID(1)))
			})
			time.Sleep(time.Second)
			activity.Touch(kubetest.ID(1), instance.SourceHTTP)
			used := time.Now()
			activity.Flush(t.Context())
			if times := patched(t, c, kubetest.ID(1)); len(times) != test.writes || !times[0].Equal(used.Truncate(time.Millisecond)) {
				t.Errorf("a conflict %s: written %v, want %d times", test.name, times, test.writes)
			}
			if _, held := activity.last[kubetest.ID(1)]; held != test.held {
				t.Errorf("a conflict %s: held is %v", test.name, activity.last)
			}
			if took := time.Since(used); took > time.Second {
				t.Errorf("a conflict %s: took %s", test.name, took)
			}
		})
	}
}

func TestActivityFlushEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now()))
		activity, _ := newTestActivity(c)
		c.FailOn("patch", "pods", kubetest.Conflict(instance.PodName(kubetest.ID(1))))
		time.Sleep(time.Second)
		activity.Touch(kubetest.ID(1), instance.SourceHTTP)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		activity.Flush(ctx)
		if got := len(c.Writes()); got != 1 {
			t.Errorf("there were %d writes, want 1", got)
		}
	})
}

// After an outage, writes work before the watches do. A replica knows from the
// answers what it has written itself, until the cache has something newer.
func TestActivityGoesByItsOwnWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		server := kubetest.NewServer(time.Now, kubetest.Pod(kubetest.ID(1), began), kubetest.Pod(kubetest.ID(2), began))
		deaf := server.BreakFirstPodWatch()
		c := startClusterOn(t, server)
		activity, _ := newTestActivity(c)
		use := func(id string) {
			activity.Touch(id, instance.SourceHTTP)
			activity.flush(t.Context(), flushPeriod, flushSpell)
		}
		for n := range 3 {
			time.Sleep(flushPeriod(time.Hour) + time.Second)
			before, err := server.StoredPod(instance.PodName(kubetest.ID(1)))
			if err != nil {
				t.Fatal(err)
			}
			use(kubetest.ID(1))
			use(kubetest.ID(1)) // is not due
			writes := c.Writes()
			if len(writes) != n+1 {
				t.Fatalf("after use %d the writes are %v", n+1, writes)
			}
			wantActivityPatch(t, writes[n], before, time.Now(), instance.SourceHTTP)
		}
		if got := metric(t, activity.metrics, "binder_activity_patches_total", "conflict"); got > 0 {
			t.Errorf("%v writes met a conflict", got)
		}

		// What others wrote since is not overwritten, though nobody has told.
		later := kubetest.Pod(kubetest.ID(1), began, kubetest.LastUsed(time.Now().Add(time.Hour)), func(p *corev1.Pod) { p.ResourceVersion = server.NextVersion() })
		if err := server.Client.Tracker().Update(kubetest.PodResource, later, kubetest.Namespace); err != nil {
			t.Fatal(err)
		}
		time.Sleep(flushPeriod(time.Hour) + time.Second)
		use(kubetest.ID(1))
		if got := metric(t, activity.metrics, "binder_activity_patches_total", "conflict"); got != 1 {
			t.Errorf("%v writes met a conflict, want the one", got)
		}

		// Once the watch is there again the cache is what counts.
		use(kubetest.ID(2))
		if got := len(activity.own); got != 2 {
			t.Errorf("of own writes %d are held, want 2", got)
		}
		deaf.Expire()
		time.Sleep(time.Minute)
		synctest.Wait()
		activity.flush(t.Context(), flushPeriod, flushSpell)
		if len(activity.own) > 0 || len(activity.last) > 0 {
			t.Errorf("held are still %v and %v", activity.own, activity.last)
		}
	})
}

// Nothing is held of an instance that is over.
func TestActivityForgetsItsOwnWrites(t *testing.T) {
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon), ago(1, time.Hour))
	activity, _ := newTestActivity(c)
	activity.Touch(kubetest.ID(1), instance.SourceHTTP)
	activity.Flush(t.Context())
	c.drop(t, kubetest.ID(1))
	activity.Flush(t.Context())
	if len(activity.own) > 0 {
		t.Errorf("held are %v", activity.own)
	}
}

// An instance may be used while its earlier use is being written.
func TestActivityTouchedDuringTheWrite(t *testing.T) {
	now := kubetest.Noon
	c := startCluster(t, func() time.Time { return now }, kubetest.Pod(kubetest.ID(1), kubetest.Noon.Add(-time.Hour)))
	activity, _ := newTestActivity(c)
	activity.Touch(kubetest.ID(1), instance.SourceHTTP)
	c.React("patch", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
		now = kubetest.Noon.Add(time.Second)
		activity.Touch(kubetest.ID(1), instance.SourceHTTP)
		return false, nil, nil
	})
	activity.Flush(t.Context())
	if got := activity.last[kubetest.ID(1)].at; !got.Equal(kubetest.Noon.Add(time.Second)) {
		t.Errorf("held is %s, want the later use", got)
	}
}

func TestTouchNeverGoesBack(t *testing.T) {
	now := kubetest.Noon
	activity, _ := newTestActivity(startCluster(t, func() time.Time { return now }))
	for _, at := range []time.Time{kubetest.Noon, kubetest.Noon.Add(-time.Minute), kubetest.Noon.Add(time.Second), kubetest.Noon} {
		now = at
		activity.Touch(kubetest.ID(1), instance.SourceHTTP)
	}
	if got, want := activity.last[kubetest.ID(1)].at, kubetest.Noon.Add(time.Second); !got.Equal(want) {
		t.Errorf("held is %s, want the latest, %s", got, want)
	}
}

// Ids come from visitors: those of no instance are forgotten at the next tick.
func TestActivityDoesNotGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, time.Now)
		activity, _ := newTestActivity(c)
		defer activity.start()()
		for n := range 1000 {
			activity.Touch(kubetest.ID(n), instance.SourceHTTP)
		}
		time.Sleep(2 * flushTick)
		synctest.Wait()
		if got := len(activity.snapshot()); got > 0 {
			t.Errorf("%d are held, want none", got)
		}
		if writes := c.Writes(); len(writes) > 0 {
			t.Errorf("the writes are %v", writes)
		}
	})
}

func TestFlushLag(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{
		time.Hour: 5*time.Minute + 2*time.Second, 12 * time.Second: 3 * time.Second,
	} {
		if got := flushLag(timeout); got != want {
			t.Errorf("of %s: got %s, want %s", timeout, got, want)
		}
	}
}

// Where patches are slow, and many are due, what would be taken for idle next is
// not kept waiting by those that have long.
func TestLeastTimeLeftIsWrittenFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 400
		began := time.Now()
		var pods []runtime.Object
		for n := range many {
			pods = append(pods, kubetest.Pod(kubetest.ID(n), began.Add(-time.Duration(10+n%10)*time.Minute)))
		}
		pods = append(pods, kubetest.Pod(kubetest.ID(many), began.Add(-59*time.Minute)))
		c := startCluster(t, time.Now, pods...)
		activity, _ := newTestActivity(c)
		activity.pods = slowPods{activity.pods}
		defer activity.start()()
		for n := range many {
			activity.Touch(kubetest.ID(n), instance.SourceHTTP)
		}
		time.Sleep(2 * time.Second) // the first batch is under way
		activity.Touch(kubetest.ID(many), instance.SourceHTTP)
		time.Sleep(flushSpell + 5*time.Second)
		synctest.Wait()
		pod, _ := c.Pod(kubetest.ID(many))
		if last, err := instance.LastActivity(pod); err != nil || last.Before(began) {
			t.Errorf("after %s its activity is %s, %v", time.Since(began), last, err)
		}
		time.Sleep(many / kube.Writers * 2 * time.Second)
		synctest.Wait()
		if len(activity.last) > 0 {
			t.Errorf("%d are still to be written", len(activity.last))
		}
	})
}

// slowPods takes a second for each patch.
type slowPods struct{ typedcorev1.PodInterface }

func (s slowPods) Patch(ctx context.Context, name string, kind types.PatchType, data []byte, how metav1.PatchOptions, sub ...string) (*corev1.Pod, error) {
	time.Sleep(time.Second)
	return s.PodInterface.Patch(ctx, name, kind, data, how, sub...)
}
