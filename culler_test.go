package main

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/activity"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"
)

// testCuller is a culler, its metrics, its log, and the contact that leader election has
// with the API server.
type testCuller struct {
	*Culler
	metrics *metrics.Metrics
	log     *kubetest.LogBuffer
	lost    *atomic.Bool // contact, while startLeading runs
}

func newTestCuller(t testing.TB, c *testCache) testCuller {
	t.Helper()
	log, lines := kubetest.RecordLog()
	parts := c.parts()
	return testCuller{parts.culler(t, 30*time.Second, log), parts.metrics, lines, &atomic.Bool{}}
}

// startLeading runs the culler, and reports contact with the API server as leader election
// does. stop ends the term.
func (c testCuller) startLeading(t testing.TB) (stop func()) {
	runUntilEnd(t, func(ctx context.Context) {
		for ctx.Err() == nil {
			if !c.lost.Load() {
				c.deps.Hold.Contact(time.Now())
			}
			select {
			case <-ctx.Done():
			case <-time.After(contactGap / 2):
			}
		}
	})
	return runUntilEnd(t, c.Run)
}

// wantCounts checks the metrics: ended instances by reason, failed deletes, fixed times.
func wantCounts(t testing.TB, m *metrics.Metrics, ends map[instance.EndReason]float64, failed, fixed float64) {
	t.Helper()
	for _, reason := range instance.EndReasons() {
		wantEqual(t, "counted as "+string(reason), metric(t, m, "binder_culls_total", string(reason)), ends[reason])
	}
	wantEqual(t, "failed deletes", metric(t, m, "binder_cull_errors_total"), failed)
	wantEqual(t, "fixed times", metric(t, m, "binder_activity_unreadable_total"), fixed)
}

// wantLog checks the number of warnings and errors in the log.
func (c testCuller) wantLog(t testing.TB, warnings, failures int) {
	t.Helper()
	log := c.log.String()
	if w, e := strings.Count(log, "level=WARN"), strings.Count(log, "level=ERROR"); w != warnings || e != failures {
		t.Errorf("%d warnings and %d errors, want %d and %d:\n%s", w, e, warnings, failures, log)
	}
}

// ago returns a pod that was created, became Ready and was last used a while before noon.
func ago(n int, while time.Duration, changes ...func(*corev1.Pod)) *corev1.Pod {
	return kubetest.Pod(kubetest.ID(n), kubetest.Noon.Add(-while), changes...)
}

func mangled(pod *corev1.Pod) { pod.Annotations[instance.LastActivityAnnotation] = "mangled" }

func TestSweep(t *testing.T) {
	ended := []*corev1.Pod{
		ago(1, 2*time.Hour), ago(2, 2*time.Hour, kubetest.Broken), ago(3, time.Minute, kubetest.Completed),
		ago(9, 2*time.Hour, kubetest.WithLabel(instance.PreloadLabel, "true")), ago(10, 2*time.Hour, kubetest.WithLabel(instance.PoolLabel, "odd")),
	}
	kept := []*corev1.Pod{
		ago(5, time.Hour), ago(6, time.Minute, kubetest.Starting), ago(7, 2*time.Hour, kubetest.Deleting),
		ago(8, 2*time.Hour, kubetest.WithLabel(instance.PoolLabel, "warm")),
	}
	objects := []runtime.Object{ago(4, 2*time.Hour, mangled)}
	for _, pod := range slices.Concat(ended, kept) {
		objects = append(objects, pod)
	}
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), objects...)
	culler := newTestCuller(t, c)
	culler.sweep(t.Context(), kubetest.Noon)

	of := map[string]kubetest.Calls{} // writes by the pod's name
	for _, write := range c.Writes() {
		name := strings.TrimSuffix(kubetest.NameOf(write), ".deleted")
		of[name] = append(of[name], write)
	}
	for _, pod := range ended {
		kubetest.WantRemoved(t, of[pod.Name], pod, metav1.Preconditions{UID: &pod.UID, ResourceVersion: &pod.ResourceVersion})
	}
	for _, pod := range kept {
		if writes := of[pod.Name]; len(writes) > 0 {
			t.Errorf("%s has not ended, but was written to: %v", pod.Name, writes)
		}
	}
	if fixed, _ := c.Pod(kubetest.ID(4)); fixed.Annotations[instance.LastActivityAnnotation] != instance.FormatTime(kubetest.Noon) || len(of[instance.PodName(kubetest.ID(4))]) != 1 {
		t.Errorf("the unreadable time is now %q, after %v", fixed.Annotations[instance.LastActivityAnnotation], of[instance.PodName(kubetest.ID(4))])
	}
	wantCounts(t, culler.metrics, map[instance.EndReason]float64{instance.EndCulled: 3, instance.EndFailed: 1, instance.EndCompleted: 1}, 0, 1)
	culler.wantLog(t, 1, 0)
	for id, reason := range map[string]string{kubetest.ID(1): "Culled", kubetest.ID(2): "Failed", kubetest.ID(3): "Completed", kubetest.ID(9): "Culled", kubetest.ID(10): "Culled"} {
		kubetest.Eventually(t, "the tombstone is in the cache and the pod is not", func() bool {
			inst, _ := c.Instance(id)
			return inst.Status == instance.StatusDeleted && inst.Reason == reason
		})
	}
}

// A pod that has lost its id, or got an invalid one, ends like an instance that is not
// used, without a tombstone. The pods of a preload stay.
func TestSweepEndsStrays(t *testing.T) {
	withoutID := func(pod *corev1.Pod) { delete(pod.Labels, instance.IDLabel) }
	preload := kubetest.All(withoutID, func(pod *corev1.Pod) {
		pod.Labels[instance.PreloadLabel], pod.Labels[instance.PreloadNameLabel] = "true", "x"
		pod.OwnerReferences = []metav1.OwnerReference{{Kind: "DaemonSet", Name: "x", Controller: new(true)}}
	})
	c := startCache(t, kubetest.ClockAt(kubetest.Noon),
		ago(1, 2*time.Hour, withoutID), ago(2, 2*time.Hour, kubetest.WithLabel(instance.IDLabel, "odd")),
		ago(3, 2*time.Hour, kubetest.All(withoutID, kubetest.WithLabel(instance.PoolLabel, "warm"))),
		ago(4, time.Minute, withoutID), ago(5, 2*time.Hour, preload),
		ago(6, 2*time.Hour, kubetest.All(withoutID, kubetest.WithLabel(instance.PreloadLabel, "true"))), // its DaemonSet has left it
		ago(7, 2*time.Hour, kubetest.WithLabel(instance.IDLabel, kubetest.ID(8))), ago(8, time.Minute),  // the id of another instance
	)
	if all := c.Instances(""); len(all) != 1 || !all[0].Launched.Equal(kubetest.Noon.Add(-time.Minute)) {
		t.Errorf("the list has %v", all)
	}
	culler := newTestCuller(t, c)
	culler.sweep(t.Context(), kubetest.Noon)
	deleted := map[string]int{}
	for _, write := range c.Writes() {
		if !write.Matches("delete", "pods") {
			t.Errorf("got the write %s", write)
		}
		deleted[kubetest.NameOf(write)]++
	}
	want := map[string]int{}
	for _, n := range []int{1, 2, 3, 6, 7} {
		want[instance.PodName(kubetest.ID(n))] = 1
	}
	if !maps.Equal(deleted, want) {
		t.Errorf("the deletes are %v, want %v", deleted, want)
	}
}

// The culler spares a pod that another replica has written to since it was judged. That,
// and a pod that is gone already, count neither as errors nor as culls.
func TestPodChangesBeforeItsEnd(t *testing.T) {
	for name, change := range map[string]func(c *testCache){
		"used":    func(c *testCache) { c.put(t, ago(1, 2*time.Hour, kubetest.LastUsed(kubetest.Noon))) },
		"deleted": func(c *testCache) { c.drop(t, kubetest.ID(1)) },
	} {
		t.Run(name, func(t *testing.T) {
			c := startCache(t, kubetest.ClockAt(kubetest.Noon), ago(1, 2*time.Hour))
			culler := newTestCuller(t, c)
			judged, _ := c.Pod(kubetest.ID(1))
			change(c)
			culler.end(t.Context(), judged, culler.deps.Rules.Judge(judged, nil, kubetest.Noon, false))
			if _, err := c.StoredPod(judged.Name); (err == nil) != (name == "used") {
				t.Errorf("the pod: %v", err)
			}
			wantCounts(t, culler.metrics, nil, 0, 0)
			culler.wantLog(t, 0, 0)
		})
	}
}

// Errors are logged and counted, and the next sweep tries again. Conflicts do not count.
func TestSweepMeetsErrors(t *testing.T) {
	for name, test := range map[string]struct {
		err    error
		failed float64
		errors int
	}{
		"away":     {err: errors.New("the API server is away"), failed: 1, errors: 2},
		"conflict": {err: kubetest.Conflict("a pod")},
	} {
		t.Run(name, func(t *testing.T) {
			c := startCache(t, kubetest.ClockAt(kubetest.Noon), ago(1, 2*time.Hour), ago(2, 2*time.Hour, mangled))
			culler := newTestCuller(t, c)
			deletes, patches := c.FailOn("delete", "pods", test.err), c.FailOn("patch", "pods", test.err)
			culler.sweep(t.Context(), kubetest.Noon)
			wantCounts(t, culler.metrics, nil, test.failed, 0)
			culler.wantLog(t, 0, test.errors)
			deletes()
			patches()
			culler.sweep(t.Context(), kubetest.Noon)
			wantCounts(t, culler.metrics, map[instance.EndReason]float64{instance.EndCulled: 1}, test.failed, 1)
		})
	}
}

// A replica that no longer leads writes nothing.
func TestSweepEndsWithItsTerm(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), ago(1, 2*time.Hour), ago(2, 2*time.Hour))
	culler := newTestCuller(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	culler.sweep(ctx, kubetest.Noon)
	culler.end(ctx, ago(1, 2*time.Hour), lifetime.Verdict{Action: lifetime.End, Reason: instance.EndFailed})
	wantNoWrites(t, c.Server)
}

// An idle instance is kept while its application says that it is at work. The culler
// writes that to the pod.
func TestApplicationsAtWork(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*corev1.Pod)
		answer string // of the application
		lost   bool   // contact with the API server is lost during the probe
		err    error  // of the write
		result string // counted; "" if there is no probe
		culled bool
		last   time.Time // written
		errors int
	}{
		"busy":             {answer: `[{"execution_state": "busy"}]`, result: "busy", last: kubetest.Noon},
		"was active":       {answer: `[{"last_activity": "2026-01-02T11:30:00Z"}]`, result: "active", last: kubetest.Noon.Add(-30 * time.Minute)},
		"old work":         {answer: `[{"last_activity": "2026-01-02T10:30:00Z"}]`, result: "idle", culled: true},
		"idle":             {answer: `[]`, result: "idle", culled: true},
		"contact lost":     {answer: `[]`, lost: true, result: "idle"},
		"nonsense":         {answer: `<html>`, result: "bad_answer", culled: true},
		"too old":          {answer: `[{"execution_state": "busy"}]`, change: kubetest.WithAnnotation(instance.MaxAgeAnnotation, "1h"), culled: true},
		"in use":           {answer: `[]`, change: kubetest.LastUsed(kubetest.Noon.Add(-time.Minute))},
		"broken":           {answer: `[{"execution_state": "busy"}]`, change: kubetest.Broken, culled: true},
		"invalid path":     {answer: `[{"execution_state": "busy"}]`, change: kubetest.WithAnnotation(instance.ActivityProbeAnnotation, "../x"), culled: true},
		"write conflicts":  {answer: `[{"execution_state": "busy"}]`, result: "busy", err: kubetest.Conflict("a pod")},
		"write is refused": {answer: `[{"execution_state": "busy"}]`, result: "busy", err: errors.New("away"), errors: 1},
	} {
		t.Run(name, func(t *testing.T) {
			var culler testCuller
			application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if test.lost {
					culler.deps.Hold.Contact(time.Now().Add(-time.Hour))
				}
				_, _ = w.Write([]byte(test.answer))
			}))
			defer application.Close()
			pod := ago(1, 2*time.Hour, listensAt(t, application.Listener.Addr()), kubetest.WithAnnotation(instance.ActivityProbeAnnotation, "api/kernels"))
			if test.change != nil {
				test.change(pod)
			}
			c := startCache(t, kubetest.ClockAt(kubetest.Noon), pod)
			if test.err != nil {
				c.FailOn("patch", "pods", test.err)
			}
			culler = newTestCuller(t, c)
			culler.sweep(t.Context(), kubetest.Noon)
			culler.prober.Wait()
			stored, err := c.StoredPod(pod.Name)
			if culled := err != nil; culled != test.culled {
				t.Fatalf("culled is %t, want %t", culled, test.culled)
			}
			for _, result := range activity.ProbeResults() {
				want := 0.0
				if string(result) == test.result {
					want = 1
				}
				wantEqual(t, "counted as "+string(result), metric(t, culler.metrics, "binder_activity_probes_total", string(result)), want)
			}
			culler.wantLog(t, 0, test.errors)
			if !test.last.IsZero() && (stored.Annotations[instance.LastActivityAnnotation] != instance.FormatTime(test.last) ||
				stored.Annotations[instance.ActivitySourceAnnotation] != "probe") {
				t.Errorf("the annotations are %v", stored.Annotations)
			}
		})
	}
}

// Applications that are slow to say whether they are at work delay neither a sweep nor the
// end of other instances. Each is asked once at a time, and not too many are at once.
func TestSlowApplications(t *testing.T) {
	const slow = 100
	var asked, atOnce, most atomic.Int64
	answers := make(chan struct{})
	application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		now := atOnce.Add(1)
		defer atOnce.Add(-1)
		for before := most.Load(); now > before && !most.CompareAndSwap(before, now); before = most.Load() {
		}
		select {
		case <-answers:
			_, _ = w.Write([]byte("[]"))
		case <-r.Context().Done():
		}
	}))
	defer application.Close()
	objects := []runtime.Object{ago(slow, 2*time.Hour), ago(slow+1, 2*time.Hour, kubetest.Broken), ago(slow+2, 2*time.Hour, mangled)}
	for n := range slow {
		objects = append(objects, ago(n, 2*time.Hour, listensAt(t, application.Listener.Addr()), kubetest.WithAnnotation(instance.ActivityProbeAnnotation, "api/kernels")))
	}
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), objects...)
	culler := newTestCuller(t, c)
	culler.sweep(t.Context(), kubetest.Noon)
	wantCounts(t, culler.metrics, map[instance.EndReason]float64{instance.EndCulled: 1, instance.EndFailed: 1}, 0, 1)
	culler.sweep(t.Context(), kubetest.Noon) // while the applications are being asked
	close(answers)
	culler.prober.Wait()
	wantCounts(t, culler.metrics, map[instance.EndReason]float64{instance.EndCulled: 1 + slow, instance.EndFailed: 1}, 0, 1)
	wantEqual(t, "questions", asked.Load(), slow)
	if got := most.Load(); got < 2 || got > 32 {
		t.Errorf("%d applications were asked at the same time, want several and at most 32", got)
	}
}

// Instances are idle by the slowest clock of the replicas, and times are in the future by the
// fastest. All other ends are by the leader's own.
func TestClocksOfReplicas(t *testing.T) {
	ahead := kubetest.WithAnnotation(instance.LastActivityAnnotation, instance.FormatTime(kubetest.Noon.Add(time.Hour)))
	for name, test := range map[string]struct {
		slowest, fastest time.Time
		ended, fixed     float64
	}{
		"all agree":     {kubetest.Noon, kubetest.Noon, 1, 1},
		"one is behind": {kubetest.Noon.Add(-2 * time.Hour), kubetest.Noon, 0, 1},
		"one is ahead":  {kubetest.Noon, kubetest.Noon.Add(2 * time.Hour), 1, 0},
	} {
		c := startCache(t, kubetest.ClockAt(kubetest.Noon), ago(1, 2*time.Hour), ago(2, time.Minute), ago(3, 3*time.Hour, ahead), ago(4, 2*time.Hour, kubetest.Broken))
		culler := newTestCuller(t, c)
		culler.deps.ReplicaClocks = func(time.Time) (slowest, fastest time.Time) { return test.slowest, test.fastest }
		culler.sweep(t.Context(), kubetest.Noon)
		t.Log(name)
		wantCounts(t, culler.metrics, map[instance.EndReason]float64{instance.EndCulled: test.ended, instance.EndFailed: 1}, 0, test.fixed)
	}
}

// When most instances stop being Ready at the same time, the culler keeps those that may be
// in use, says so once, and ends all others as usual.
func TestManyStopBeingReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 20
		began := time.Now()
		stopped := kubetest.All(kubetest.NotReadySince(began), kubetest.ContainersReady(corev1.ConditionFalse, began))
		become := func(status corev1.ConditionStatus) func(*corev1.Pod) { // at the kubelet, now
			return func(pod *corev1.Pod) {
				for i := range pod.Status.Conditions {
					pod.Status.Conditions[i].Status, pod.Status.Conditions[i].LastTransitionTime = status, metav1.Now()
				}
			}
		}
		inUse := kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "24h")
		var objects []runtime.Object
		for n := range many {
			objects = append(objects, kubetest.Pod(kubetest.ID(n), began.Add(-time.Hour), inUse, stopped))
		}
		objects = append(objects,
			kubetest.Pod(kubetest.ID(many), began.Add(-2*time.Hour)),               // idle
			kubetest.Pod(kubetest.ID(many+1), began, kubetest.Unscheduled),         // never started
			kubetest.Pod(kubetest.ID(many+2), began, kubetest.Broken),              // final
			kubetest.Pod(kubetest.ID(many+3), began, kubetest.OnSilentNode(began))) // in use, as far as anybody knows
		c := startCache(t, time.Now, objects...)
		culler := newTestCuller(t, c)
		noError(t, registerCollectors(culler.metrics, c.Cache, culler.Culler))
		culler.startLeading(t)
		want := func(after time.Duration, culled, failed, kept float64) {
			t.Helper()
			time.Sleep(time.Until(began.Add(after)))
			synctest.Wait()
			wantCounts(t, culler.metrics, map[instance.EndReason]float64{instance.EndCulled: culled, instance.EndFailed: failed}, 0, 0)
			wantEqual(t, "kept after "+after.String(), metric(t, culler.metrics, "binder_failed_kept"), kept)
		}
		failed := kubetest.StartTimeout + lifetime.FailedRetention
		want(failed-40*time.Second, 1, 1, 0)
		want(failed+40*time.Second, 1, 2, many)
		want(kubetest.StartTimeout+lifetime.BrakeTime-40*time.Second, 1, 2, many)
		// Most come back; the brake lets go.
		for n := range many - 1 {
			c.ChangePod(t, instance.PodName(kubetest.ID(n)), become(corev1.ConditionTrue))
		}
		want(kubetest.StartTimeout+lifetime.BrakeTime, 1, 3, 0)
		// All stop being Ready again, and nothing changes: in the end, a few go at a time.
		began = time.Now()
		for n := range many - 1 {
			c.ChangePod(t, instance.PodName(kubetest.ID(n)), become(corev1.ConditionFalse))
		}
		want(failed+40*time.Second, 1, 3, many-1)
		want(kubetest.StartTimeout+lifetime.BrakeTime+20*time.Second, 1, 13, many-11)
		culler.wantLog(t, 2, 0)
	})
}

// Each cause holds deletes back for the settle time. The gauge and the log tell of it.
// What has plainly ended is deleted at once.
func TestDeletesAreHeld(t *testing.T) {
	for cause, make := range map[lifetime.Cause]func(c testCuller, ahead *atomic.Int64){
		lifetime.CauseTermStarted:  nil,
		lifetime.CauseContactLost:  func(c testCuller, _ *atomic.Int64) { c.lost.Store(true); time.Sleep(time.Minute); c.lost.Store(false) },
		lifetime.CauseClockStepped: func(_ testCuller, ahead *atomic.Int64) { ahead.Store(int64(24 * time.Hour)) },
	} {
		t.Run(string(cause), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ahead atomic.Int64 // of the clock
				now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
				c := startCache(t, now)
				culler := newTestCuller(t, c)
				noError(t, registerCollectors(culler.metrics, c.Cache, culler.Culler))
				culler.startLeading(t)
				warnings := 0 // a new term's hold is logged at Info
				if make != nil {
					time.Sleep(lifetime.SettleTime + time.Minute)
					make(culler, &ahead)
					warnings++
				}
				began := time.Now()
				c.put(t, kubetest.Pod(kubetest.ID(1), now().Add(-3*time.Hour)))
				c.put(t, kubetest.Pod(kubetest.ID(2), now().Add(-time.Hour), kubetest.Completed))
				want := func(id, reason string, held float64) {
					t.Helper()
					synctest.Wait()
					if inst, _ := c.Instance(id); inst.Reason != reason {
						t.Errorf("after %s: got %+v, want reason %q", time.Since(began), inst, reason)
					}
					wantEqual(t, "the gauge of held deletes after "+time.Since(began).String(), metric(t, culler.metrics, "binder_deletes_held", cause.Label()), held)
				}
				time.Sleep(lifetime.SettleTime - 10*time.Second)
				want(kubetest.ID(1), "", 1)
				want(kubetest.ID(2), "Completed", 1)
				time.Sleep(50 * time.Second)
				want(kubetest.ID(1), "Culled", 0)
				culler.wantLog(t, warnings, 0)
				if began, ended := strings.Count(culler.log.String(), "deletes are held"), strings.Count(culler.log.String(), "no longer held"); began != warnings+1 || ended != began {
					t.Errorf("the log tells of %d holds and %d ends:\n%s", began, ended, culler.log)
				}
			})
		})
	}
}

// The leader writes a tombstone for an instance that others delete.
func TestRemembersWhatOthersDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCache(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now()), kubetest.Pod(kubetest.ID(2), time.Now()), kubetest.Pod(kubetest.ID(3), time.Now()))
		culler := newTestCuller(t, c)
		c.drop(t, kubetest.ID(1)) // before the term
		stop := culler.startLeading(t)
		synctest.Wait()
		c.drop(t, kubetest.ID(2))
		third, _ := c.Pod(kubetest.ID(3))
		noError(t, culler.deps.Remover.Remove(t.Context(), third, instance.End{Reason: instance.EndStopped, Message: "stopped by request"}))
		synctest.Wait()
		stop()
		c.put(t, kubetest.Pod(kubetest.ID(4), time.Now()))
		c.drop(t, kubetest.ID(4)) // after the term
		synctest.Wait()
		for n, want := range map[int]string{1: "", 2: "Gone", 3: "Stopped", 4: ""} {
			if inst, known := c.Instance(kubetest.ID(n)); inst.Reason != want || known != (want != "") {
				t.Errorf("instance %d is known: %t, %+v; want reason %q", n, known, inst, want)
			}
		}
		wantCounts(t, culler.metrics, map[instance.EndReason]float64{instance.EndGone: 1}, 0, 0)
	})
}

// What others ask to delete is remembered when they ask, with its reason, for as long as the pod
// is there, even for days.
func TestRemembersPodsThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		drained := kubetest.All(kubetest.Deleting, func(pod *corev1.Pod) {
			pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{
				Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", Message: "evicting",
			})
		})
		c := startCache(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now(), drained), kubetest.Pod(kubetest.ID(2), time.Now()))
		culler := newTestCuller(t, c)
		second, _ := c.Pod(kubetest.ID(2))
		noError(t, culler.deps.Remover.Remove(t.Context(), second, instance.End{Reason: instance.EndStopped, Message: "stopped by request"}))
		culler.startLeading(t)
		time.Sleep(rememberPeriod)
		synctest.Wait()
		first, _ := c.Instance(kubetest.ID(1))
		if first.Reason != "Gone" || !strings.Contains(first.Detail, "EvictionByEvictionAPI") {
			t.Errorf("got %+v, want that it is gone, and why", first)
		}
		renewed := 0
		for range 10 { // half hours
			time.Sleep(30*time.Minute + rememberPeriod)
			synctest.Wait()
			writes := len(c.WritesOf("patch", "events"))
			if renewed > 0 && writes != renewed+1 {
				t.Fatalf("%d writes within half an hour, want one, so that the tombstone stays", writes-renewed)
			}
			renewed = writes
		}
		if later, _ := c.Instance(kubetest.ID(1)); later != first {
			t.Errorf("after hours it is %+v, want %+v", later, first)
		}
		wantCounts(t, culler.metrics, map[instance.EndReason]float64{instance.EndGone: 1}, 0, 0)
	})
}

// A long sweep does not delay tombstones.
func TestRemembersDuringASweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCache(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now(), mangled), kubetest.Pod(kubetest.ID(2), time.Now()))
		culler := newTestCuller(t, c)
		release := make(chan struct{})
		culler.deps.Pods = blockedPatcher(release)
		culler.startLeading(t)
		time.Sleep(culler.deps.Interval + time.Second)
		c.drop(t, kubetest.ID(2))
		synctest.Wait()
		if inst, _ := c.Instance(kubetest.ID(2)); inst.Reason != "Gone" {
			t.Errorf("during the sweep it is %+v, want it gone", inst)
		}
		close(release)
	})
}

// blockedPatcher is a pod client whose patches wait and fail.
type blockedPatcher chan struct{}

func (b blockedPatcher) Patch(context.Context, string, types.PatchType, []byte, metav1.PatchOptions, ...string) (*corev1.Pod, error) {
	<-b
	return nil, errors.New("too late")
}

func TestTombstoneCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCache(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now()))
		culler := newTestCuller(t, c)
		c.FailOn("patch", "events", errors.New("the API server is away"))
		culler.startLeading(t)
		synctest.Wait()
		c.drop(t, kubetest.ID(1))
		time.Sleep(time.Second) // it is tried again
		synctest.Wait()
		wantEqual(t, "tombstones counted as not written", metric(t, culler.metrics, "binder_tombstone_errors_total"), 1)
	})
}

// When too many instances are deleted at once, some are not remembered. The goroutine of
// the watch does not wait.
func TestManyInstancesAreDeletedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCache(t, time.Now)
		culler := newTestCuller(t, c)
		release := make(chan struct{})
		c.React("patch", "events", func(k8stesting.Action) (bool, runtime.Object, error) {
			<-release
			return true, nil, kubetest.Conflict("an event") // there is one already
		})
		culler.startLeading(t)
		synctest.Wait()
		const deleted = kube.Writers + maxUnremembered + 1
		for n := range deleted {
			culler.noticeGone(kubetest.Pod(kubetest.ID(n), time.Now()))
		}
		forgotten := strings.Count(culler.log.String(), "level=WARN")
		if forgotten < 1 || forgotten > kube.Writers+1 {
			t.Errorf("%d of %d are not remembered, want 1, and those that were not taken from the queue yet", forgotten, deleted)
		}
		close(release)
		synctest.Wait()
		wantEqual(t, "written tombstones", len(c.WritesOf("patch", "events")), deleted-forgotten)
	})
}

// lifetimes holds when instances were last used, and when they were deleted.
type lifetimes struct {
	mu      sync.Mutex
	used    map[string]time.Time
	deleted map[string]time.Time
}

// watchDeletes records each delete at the API server, even a refused one.
func (l *lifetimes) watchDeletes(server *kubetest.Server) {
	server.React("delete", "pods", func(action k8stesting.Action) (bool, runtime.Object, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.deleted[action.(k8stesting.DeleteAction).GetName()] = time.Now()
		return false, nil, nil
	})
}

// use uses an instance at regular intervals until a time, unless it is deleted. The uses
// go to the replicas in turn.
func (l *lifetimes) use(id string, every time.Duration, until time.Time, replicas ...*activity.Tracker) {
	for n := 0; time.Now().Before(until); n++ {
		l.mu.Lock()
		if _, gone := l.deleted[instance.PodName(id)]; !gone {
			l.used[id] = time.Now()
			replicas[n%len(replicas)].Touch(id, instance.SourceHTTP)
		}
		l.mu.Unlock()
		time.Sleep(every)
	}
}

// wantDeleted checks that an instance was deleted when it was due or shortly after.
func (l *lifetimes) wantDeleted(t testing.TB, name, id string, due time.Time, within time.Duration) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	at, deleted := l.deleted[instance.PodName(id)]
	if late := at.Sub(due); !deleted || late < 0 || late > within {
		t.Errorf("%s: deleted %t, %s after it was due; want from 0s to %s", name, deleted, late, within)
	}
}

// TestLifetimes runs a leader and a follower for an hour and a half. Whichever replica
// carries the uses, an instance lives for its cull timeout after the last one, and not
// much longer. That holds even when a replica dies before it has written the last uses.
func TestLifetimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			timeout  = 10 * time.Minute
			lag      = timeout/12 + 2*time.Second
			interval = 30 * time.Second // of the sweeps
		)
		began := time.Now()
		pod := func(n int) runtime.Object {
			return kubetest.Pod(kubetest.ID(n), began, kubetest.WithAnnotation(instance.CullTimeoutAnnotation, timeout.String()))
		}
		server := kubetest.NewServer(time.Now, pod(1), pod(2), pod(3), pod(4), pod(5), kubetest.Pod(kubetest.ID(6), began, kubetest.Unscheduled))
		seen := &lifetimes{used: map[string]time.Time{}, deleted: map[string]time.Time{}}
		seen.watchDeletes(server)
		leading, other := startCacheOn(t, server), startCacheOn(t, server)
		culler := newTestCuller(t, leading)
		culler.startLeading(t)
		leader, follower := leading.parts().tracker(), other.parts().tracker()
		runUntilEnd(t, leader.Run)
		kill := runUntilEnd(t, follower.Run)

		var visitors sync.WaitGroup
		killed := began.Add(time.Hour)
		visitors.Go(func() { seen.use(kubetest.ID(1), 7*time.Second, began.Add(90*time.Minute), leader) })
		visitors.Go(func() { seen.use(kubetest.ID(2), timeout-time.Second, killed, follower) })
		visitors.Go(func() { seen.use(kubetest.ID(3), 11*time.Second, killed, follower, leader) })
		visitors.Go(func() { // mangles an annotation twice
			for range 2 {
				time.Sleep(5 * time.Minute)
				patch := []byte(`{"metadata":{"annotations":{"` + instance.LastActivityAnnotation + `":"mangled"}}}`)
				_, err := server.Client.CoreV1().Pods(kubetest.Namespace).Patch(t.Context(), instance.PodName(kubetest.ID(5)), types.MergePatchType, patch, metav1.PatchOptions{})
				if err != nil {
					t.Error(err)
				}
			}
		})
		time.Sleep(time.Until(killed))
		kill() // loses what it has not written
		visitors.Wait()
		time.Sleep(timeout + 2*lag + interval)
		synctest.Wait()

		for name, id := range map[string]string{
			"used at the leader": kubetest.ID(1), "used at the follower": kubetest.ID(2), "used at both": kubetest.ID(3),
		} {
			// The annotation can trail the last use by at most the lag.
			seen.wantDeleted(t, name, id, seen.used[id].Add(timeout), lag+interval+time.Second)
		}
		seen.wantDeleted(t, "never used", kubetest.ID(4), began.Add(timeout+lag), interval)
		seen.wantDeleted(t, "mangled, and never used", kubetest.ID(5), began.Add(10*time.Minute+timeout+lag), 2*interval)
		seen.wantDeleted(t, "never started", kubetest.ID(6), began.Add(kubetest.StartTimeout+instance.ReportLag+lifetime.FailedRetention), interval)
		wantCounts(t, culler.metrics, map[instance.EndReason]float64{instance.EndCulled: 5, instance.EndFailed: 1}, 0, 2)
	})
}
