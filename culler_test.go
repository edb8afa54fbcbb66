package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/activity"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"
	"github.com/binder-project/binder-deploy-kubernetes/internal/tombstone"
)

// testCuller is a culler of a read model, and what it says of itself.
type testCuller struct {
	*Culler
	metrics *metrics.Metrics
	log     *kubetest.LogBuffer
}

func newTestCuller(t testing.TB, c *testCache) testCuller {
	t.Helper()
	log, lines := kubetest.RecordLog()
	m := newTestMetrics()
	culler, err := NewCuller(CullerDeps{
		Pods: c.Client.CoreV1().Pods(kubetest.Namespace), Cache: c.Cache,
		Remover: &tombstone.Remover{Client: c.Client, Namespace: kubetest.Namespace, Now: c.Server.Now, Log: kubetest.NoLog()},
		Rules:   testRules(), Hold: lifetime.NewHold(contactGap), Interval: 30 * time.Second,
		Metrics: m, Log: log, Now: c.Server.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return testCuller{culler, m, lines}
}

// leads notes contact with the API server as leader election does, all the time.
func (c testCuller) leads(t testing.TB) {
	runUntilEnd(t, func(ctx context.Context) {
		for ctx.Err() == nil {
			c.deps.Hold.Contact(time.Now())
			select {
			case <-ctx.Done():
			case <-time.After(contactGap / 2):
			}
		}
	})
}

// wantCounts checks how many instances were ended for each reason, how many
// attempts failed, and how many times were fixed.
func (c testCuller) wantCounts(t testing.TB, ends map[instance.EndReason]float64, failed, fixed float64) {
	t.Helper()
	for _, reason := range instance.EndReasons() {
		if got := metric(t, c.metrics, "binder_culls_total", string(reason)); got != ends[reason] {
			t.Errorf("counted as %s: %v, want %v", reason, got, ends[reason])
		}
	}
	if got := metric(t, c.metrics, "binder_cull_errors_total"); got != failed {
		t.Errorf("counted as cull errors: %v, want %v", got, failed)
	}
	if got := metric(t, c.metrics, "binder_activity_unreadable_total"); got != fixed {
		t.Errorf("counted as fixed times: %v, want %v", got, fixed)
	}
}

// wantLog checks how many lines of each level were logged.
func (c testCuller) wantLog(t testing.TB, warnings, failures int) {
	t.Helper()
	log := c.log.String()
	if w, e := strings.Count(log, "level=WARN"), strings.Count(log, "level=ERROR"); w != warnings || e != failures {
		t.Errorf("%d warnings and %d errors, want %d and %d:\n%s", w, e, warnings, failures, log)
	}
}

// ago is a pod that was created, became Ready and was last used a while before noon.
func ago(n int, while time.Duration, changes ...func(*corev1.Pod)) *corev1.Pod {
	return kubetest.Pod(kubetest.ID(n), kubetest.Noon.Add(-while), changes...)
}

func mangled(pod *corev1.Pod) { pod.Annotations[instance.LastActivityAnnotation] = "mangled" }

func TestSweep(t *testing.T) {
	idle, failed, done := ago(1, 2*time.Hour), ago(2, 2*time.Hour, kubetest.Broken), ago(3, time.Minute, kubetest.Completed)
	kept := []*corev1.Pod{
		ago(5, time.Hour), ago(6, time.Minute, kubetest.Starting), ago(7, 2*time.Hour, kubetest.Deleting),
		ago(8, 2*time.Hour, kubetest.WithLabel(instance.PoolLabel, "warm")), ago(9, 2*time.Hour, kubetest.WithLabel(instance.PreloadLabel, "true")),
	}
	objects := []runtime.Object{idle, failed, done, ago(4, 2*time.Hour, mangled)}
	for _, pod := range kept {
		objects = append(objects, pod)
	}
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), objects...)
	culler := newTestCuller(t, c)
	culler.sweep(t.Context(), kubetest.Noon)

	of := map[string]kubetest.Calls{} // the writes about each instance
	for _, write := range c.Writes() {
		id := strings.TrimSuffix(strings.TrimPrefix(kubetest.NameOf(write), "binder-"), ".deleted")
		of[id] = append(of[id], write)
	}
	for _, pod := range []*corev1.Pod{idle, failed, done} {
		kubetest.WantRemoved(t, of[pod.Labels[instance.IDLabel]], pod, metav1.Preconditions{UID: &pod.UID, ResourceVersion: &pod.ResourceVersion})
	}
	for _, pod := range kept {
		if writes := of[pod.Labels[instance.IDLabel]]; len(writes) > 0 {
			t.Errorf("%s has not ended, but was written to: %v", pod.Name, writes)
		}
	}
	if fixed, _ := c.Pod(kubetest.ID(4)); fixed.Annotations[instance.LastActivityAnnotation] != instance.FormatTime(kubetest.Noon) || len(of[kubetest.ID(4)]) != 1 {
		t.Errorf("the unreadable time is now %q, after %v", fixed.Annotations[instance.LastActivityAnnotation], of[kubetest.ID(4)])
	}
	culler.wantCounts(t, map[instance.EndReason]float64{instance.EndCulled: 1, instance.EndFailed: 1, instance.EndGone: 1}, 0, 1)
	culler.wantLog(t, 1, 0)
	for id, reason := range map[string]string{kubetest.ID(1): "Culled", kubetest.ID(2): "Failed", kubetest.ID(3): "Gone"} {
		kubetest.Eventually(t, "the tombstone is in the cache and the pod is not", func() bool {
			inst, _ := c.Instance(id)
			return inst.Status == instance.StatusDeleted && inst.Reason == reason
		})
	}
}

// A pod that another replica has written to, or deleted, since it was judged is left
// alone. That is neither an error nor a cull.
func TestEndOfWhatHasChanged(t *testing.T) {
	for name, change := range map[string]func(c *testCache){
		"used":    func(c *testCache) { c.put(t, ago(1, 2*time.Hour, kubetest.LastUsed(kubetest.Noon))) },
		"deleted": func(c *testCache) { c.drop(t, kubetest.ID(1)) },
	} {
		t.Run(name, func(t *testing.T) {
			c := startCache(t, kubetest.ClockAt(kubetest.Noon), ago(1, 2*time.Hour))
			culler := newTestCuller(t, c)
			judged, _ := c.Pod(kubetest.ID(1))
			change(c)
			culler.end(t.Context(), judged, culler.deps.Rules.Judge(judged, kubetest.Noon, false))
			if _, err := c.StoredPod(judged.Name); (err == nil) != (name == "used") {
				t.Errorf("the pod: %v", err)
			}
			culler.wantCounts(t, nil, 0, 0)
			culler.wantLog(t, 0, 0)
		})
	}
}

// What fails is logged and counted, and the next sweep tries again. A conflict is no
// failure.
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
			recover := []func(){c.FailOn("delete", "pods", test.err), c.FailOn("patch", "pods", test.err)}
			culler.sweep(t.Context(), kubetest.Noon)
			culler.wantCounts(t, nil, test.failed, 0)
			culler.wantLog(t, 0, test.errors)
			for _, r := range recover {
				r()
			}
			culler.sweep(t.Context(), kubetest.Noon)
			culler.wantCounts(t, map[instance.EndReason]float64{instance.EndCulled: 1}, test.failed, 1)
		})
	}
}

// A replica that no longer leads does nothing more.
func TestSweepEndsWithItsTerm(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon), ago(1, 2*time.Hour), ago(2, 2*time.Hour))
	culler := newTestCuller(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	culler.sweep(ctx, kubetest.Noon)
	culler.end(ctx, ago(1, 2*time.Hour), lifetime.Verdict{Action: lifetime.End, Reason: instance.EndFailed})
	if writes := c.Writes(); len(writes) > 0 {
		t.Errorf("the writes are %v", writes)
	}
}

// An idle instance lives on while its application says that it is at work, and that
// is written to its pod.
func TestApplicationsAtWork(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*corev1.Pod)
		answer string // of the application
		lost   bool   // contact with the API server, while the application is asked
		err    error  // of the write
		result string // counted; "" for an application that is not asked
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
			address, _ := url.Parse(application.URL)
			pod := ago(1, 2*time.Hour, kubetest.WithAnnotation(instance.ActivityProbeAnnotation, "api/kernels"),
				kubetest.WithAnnotation(instance.PortAnnotation, address.Port()))
			pod.Status.PodIP = address.Hostname()
			if test.change != nil {
				test.change(pod)
			}
			c := startCache(t, kubetest.ClockAt(kubetest.Noon), pod)
			if test.err != nil {
				c.FailOn("patch", "pods", test.err)
			}
			culler = newTestCuller(t, c)
			culler.sweep(t.Context(), kubetest.Noon)
			stored, err := c.StoredPod(pod.Name)
			if culled := err != nil; culled != test.culled {
				t.Fatalf("culled is %t, want %t", culled, test.culled)
			}
			for _, result := range activity.ProbeResults() {
				want := 0.0
				if string(result) == test.result {
					want = 1
				}
				if got := metric(t, culler.metrics, "binder_activity_probes_total", string(result)); got != want {
					t.Errorf("counted as %s: %v, want %v", result, got, want)
				}
			}
			culler.wantLog(t, 0, test.errors)
			if !test.last.IsZero() && (stored.Annotations[instance.LastActivityAnnotation] != instance.FormatTime(test.last) ||
				stored.Annotations[instance.ActivitySourceAnnotation] != "probe") {
				t.Errorf("the annotations are %v", stored.Annotations)
			}
		})
	}
}

// Deletes are held back after each cause for the settle time, are then done, and the
// gauge says so meanwhile. What has plainly ended goes at once.
func TestDeletesAreHeld(t *testing.T) {
	for name, cause := range map[string]func(c testCuller, clock *time.Duration, lost *bool){
		"a term begins":     func(testCuller, *time.Duration, *bool) {},
		"contact was lost":  func(c testCuller, _ *time.Duration, lost *bool) { *lost = true; time.Sleep(time.Minute); *lost = false },
		"the clock was set": func(_ testCuller, clock *time.Duration, _ *bool) { *clock = 24 * time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ahead time.Duration
				var lost bool
				now := func() time.Time { return time.Now().Add(ahead) }
				c := startCache(t, now)
				culler := newTestCuller(t, c)
				runUntilEnd(t, func(ctx context.Context) {
					for ctx.Err() == nil {
						if !lost {
							culler.deps.Hold.Contact(time.Now())
						}
						select {
						case <-ctx.Done():
						case <-time.After(contactGap / 2):
						}
					}
				})
				runUntilEnd(t, culler.Run)
				if name != "a term begins" {
					time.Sleep(lifetime.SettleTime + time.Minute)
				}
				cause(culler, &ahead, &lost)
				began := time.Now()
				c.put(t, kubetest.Pod(kubetest.ID(1), now().Add(-3*time.Hour)))
				c.put(t, kubetest.Pod(kubetest.ID(2), now().Add(-time.Hour), kubetest.Completed))
				time.Sleep(lifetime.SettleTime - 10*time.Second)
				synctest.Wait()
				if inst, _ := c.Instance(kubetest.ID(1)); inst.Status != instance.StatusDeployed || !culler.Holding() {
					t.Errorf("after %s it is %+v, held is %t", time.Since(began), inst, culler.Holding())
				}
				if inst, _ := c.Instance(kubetest.ID(2)); inst.Reason != "Gone" {
					t.Errorf("after %s what has completed is %+v", time.Since(began), inst)
				}
				time.Sleep(50 * time.Second)
				synctest.Wait()
				if inst, _ := c.Instance(kubetest.ID(1)); inst.Reason != "Culled" || culler.Holding() {
					t.Errorf("after %s it is %+v, held is %t", time.Since(began), inst, culler.Holding())
				}
			})
		})
	}
}

func TestRemembersWhatOthersDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCache(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now()), kubetest.Pod(kubetest.ID(2), time.Now()), kubetest.Pod(kubetest.ID(3), time.Now()))
		culler := newTestCuller(t, c)
		c.drop(t, kubetest.ID(1)) // nobody leads yet
		stop := runUntilEnd(t, culler.Run)
		synctest.Wait()
		c.drop(t, kubetest.ID(2))
		third, _ := c.Pod(kubetest.ID(3))
		if err := culler.deps.Remover.Remove(t.Context(), third, instance.EndStopped, "stopped by request"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		stop()
		c.put(t, kubetest.Pod(kubetest.ID(4), time.Now()))
		c.drop(t, kubetest.ID(4)) // nobody leads any longer
		synctest.Wait()
		for n, want := range map[int]string{1: "", 2: "Gone", 3: "Stopped", 4: ""} {
			if inst, known := c.Instance(kubetest.ID(n)); inst.Reason != want || known != (want != "") {
				t.Errorf("instance %d is known %t as %+v, want reason %q", n, known, inst, want)
			}
		}
		culler.wantCounts(t, nil, 0, 0)
	})
}

// blockedPatcher is a pod client whose patches wait.
type blockedPatcher chan struct{}

func (b blockedPatcher) Patch(context.Context, string, types.PatchType, []byte, metav1.PatchOptions, ...string) (*corev1.Pod, error) {
	<-b
	return nil, errors.New("too late")
}

// A long sweep does not hold up what is to be remembered.
func TestRemembersDuringASweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCache(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now(), mangled), kubetest.Pod(kubetest.ID(2), time.Now()))
		culler := newTestCuller(t, c)
		release := make(chan struct{})
		culler.deps.Pods = blockedPatcher(release)
		runUntilEnd(t, culler.Run)
		time.Sleep(culler.deps.Interval + time.Second)
		c.drop(t, kubetest.ID(2))
		synctest.Wait()
		if inst, _ := c.Instance(kubetest.ID(2)); inst.Reason != "Gone" {
			t.Errorf("during the sweep it is %+v, want it gone", inst)
		}
		close(release)
	})
}

func TestCannotRemember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCache(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now()))
		culler := newTestCuller(t, c)
		c.FailOn("patch", "events", errors.New("the API server is away"))
		runUntilEnd(t, culler.Run)
		synctest.Wait()
		c.drop(t, kubetest.ID(1))
		synctest.Wait()
		culler.wantLog(t, 0, 1)
	})
}

// The goroutine of the watch is not held up by more than can be remembered.
func TestNoticeGoneNeverBlocks(t *testing.T) {
	culler := newTestCuller(t, startCache(t, time.Now))
	culler.leading.Store(true) // and nobody takes from the queue
	for n := range maxUnremembered + 1 {
		culler.noticeGone(kubetest.Pod(kubetest.ID(n), time.Now()))
	}
	if len(culler.gone) != maxUnremembered {
		t.Errorf("%d are held, want %d", len(culler.gone), maxUnremembered)
	}
	culler.wantLog(t, 1, 0)
}

func TestHoldIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		culler := newTestCuller(t, startCache(t, time.Now))
		culler.leads(t)
		runUntilEnd(t, culler.Run)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		culler.wantLog(t, 0, 0)
		if log := culler.log.String(); !strings.Contains(log, string(lifetime.CauseTermStarted)) || strings.Count(log, "held back") != 2 {
			t.Errorf("want the cause, the beginning and the end of the hold:\n%s", log)
		}
	})
}
