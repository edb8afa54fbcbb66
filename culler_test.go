package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/tombstone"
)

// testCuller is a culler of a cluster, and what it says of itself.
type testCuller struct {
	*Culler
	log *kubetest.LogBuffer
}

func newTestCuller(t testing.TB, c *testCluster) testCuller {
	t.Helper()
	log, lines := kubetest.RecordLog()
	policy := cullPolicy{cullTimeout: time.Hour, startTimeout: kubetest.StartTimeout}
	activity, _ := newTestActivity(c)
	culler, err := NewCuller(c.Client.CoreV1().Pods(kubetest.Namespace), c.Cluster, &tombstone.Remover{Client: c.Server.Client, Namespace: kubetest.Namespace, Now: c.Server.Now},
		activity, policy, 30*time.Second, metrics.New("test", metricValues()), log, c.Cluster.now)
	if err != nil {
		t.Fatal(err)
	}
	return testCuller{culler, lines}
}

// wantCounts checks how many instances were ended for each reason, the failed
// attempts, and the activities that could not be right.
func (c testCuller) wantCounts(t testing.TB, ends map[instance.EndReason]float64, failed, unreadable float64) {
	t.Helper()
	for _, reason := range instance.EndReasons() {
		if got := metric(t, c.metrics, "binder_culls_total", string(reason)); got != ends[reason] {
			t.Errorf("counted as %s are %v, want %v", reason, got, ends[reason])
		}
	}
	if got := metric(t, c.metrics, "binder_cull_errors_total"); got != failed {
		t.Errorf("counted as cull errors are %v, want %v", got, failed)
	}
	if got := metric(t, c.metrics, "binder_activity_unreadable_total"); got != unreadable {
		t.Errorf("counted as unreadable are %v, want %v", got, unreadable)
	}
}

// ago is a pod that was created, became ready and was last used a while before noon.
func ago(n int, while time.Duration, changes ...func(*corev1.Pod)) *corev1.Pod {
	return kubetest.Pod(kubetest.ID(n), kubetest.Noon.Add(-while), changes...)
}

func TestSweepEndsWhatIsOver(t *testing.T) {
	idle, failed, done := ago(1, 2*time.Hour), ago(2, 2*time.Hour, kubetest.Broken), ago(3, time.Minute, kubetest.Completed)
	mangled := ago(4, 2*time.Hour, kubetest.WithAnnotation(instance.LastActivityAnnotation, "mangled"))
	kept := []*corev1.Pod{
		ago(5, time.Hour), ago(6, time.Minute, kubetest.Starting), ago(7, 2*time.Hour, kubetest.Deleting),
		ago(8, 2*time.Hour, kubetest.WithLabel(instance.PoolLabel, "warm")), ago(9, 2*time.Hour, kubetest.WithLabel(instance.PreloadLabel, "true")),
	}
	objects := []runtime.Object{idle, failed, done, mangled}
	for _, pod := range kept {
		objects = append(objects, pod)
	}
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon), objects...)
	culler := newTestCuller(t, c)
	culler.sweep(t.Context(), kubetest.Noon, culler.policy)

	of := map[string]kubetest.Calls{} // the writes of each instance
	for _, write := range c.Writes() {
		id := strings.TrimSuffix(strings.TrimPrefix(kubetest.NameOf(write), instance.PodNamePrefix), instance.TombstoneNameSuffix)
		of[id] = append(of[id], write)
	}
	for _, pod := range []*corev1.Pod{idle, failed, done} {
		kubetest.WantRemoved(t, of[pod.Labels[instance.IDLabel]], pod, metav1.Preconditions{UID: &pod.UID, ResourceVersion: &pod.ResourceVersion})
	}
	for _, pod := range kept {
		if writes := of[pod.Labels[instance.IDLabel]]; len(writes) > 0 {
			t.Errorf("of %s, which is not over: %v", pod.Name, writes)
		}
	}
	repairs := of[kubetest.ID(4)]
	if len(repairs) != 1 {
		t.Fatalf("the writes of the mangled one are %v, want one repair", repairs)
	}
	wantActivityPatch(t, repairs[0], mangled, kubetest.Noon, "")
	culler.wantCounts(t, map[instance.EndReason]float64{instance.EndCulled: 1, instance.EndFailed: 1, instance.EndGone: 1}, 0, 1)

	for id, reason := range map[string]string{kubetest.ID(1): "Culled", kubetest.ID(2): "Failed", kubetest.ID(3): "Gone"} {
		kubetest.Eventually(t, "the tombstone is in the cache and the pod is not", func() bool {
			inst, _ := c.Instance(id)
			return inst.Status == instance.StatusDeleted && inst.Reason == reason
		})
		if line := fmt.Sprintf("msg=culled id=%s template=jupyter reason=%s", id, reason); !strings.Contains(culler.log.String(), line) {
			t.Errorf("not in the log: %s\n%s", line, culler.log)
		}
	}
	if !strings.Contains(culler.log.String(), "level=WARN msg=\"a time on the pod cannot be right, counts as now\" id="+kubetest.ID(4)) {
		t.Errorf("the repair is not in the log:\n%s", culler.log)
	}
}

// A pod that was used between the look at it and its delete lives on, and this
// is neither an error nor counted as anything.
func TestEndOfWhatWasUsedInBetween(t *testing.T) {
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon), ago(1, 2*time.Hour))
	culler := newTestCuller(t, c)
	judged, _ := c.Pod(kubetest.ID(1))
	c.put(t, ago(1, 2*time.Hour, kubetest.LastUsed(kubetest.Noon))) // another replica
	culler.end(t.Context(), judged, judge(judged, kubetest.Noon, culler.policy), culler.policy)

	if _, err := c.StoredPod(instance.PodName(kubetest.ID(1))); err != nil {
		t.Errorf("the pod was deleted: %v", err)
	}
	culler.wantCounts(t, nil, 0, 0)
	if log := culler.log.String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "msg=culled") {
		t.Errorf("the log is\n%s", log)
	}
	if inst, _ := c.Instance(kubetest.ID(1)); inst.Status != instance.StatusDeployed {
		t.Errorf("it is known as %+v", inst)
	}
}

// What this replica has yet to write counts as well.
func TestEndOfWhatIsUsedHere(t *testing.T) {
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon), ago(1, 2*time.Hour), ago(2, 2*time.Hour, kubetest.LastUsed(kubetest.Noon), kubetest.WithAnnotation(instance.MaxAgeAnnotation, "1h")))
	culler := newTestCuller(t, c)
	for n := range 3 {
		culler.activity.Touch(kubetest.ID(n), instance.SourceHTTP)
	}
	culler.sweep(t.Context(), kubetest.Noon, culler.policy)
	culler.wantCounts(t, map[instance.EndReason]float64{instance.EndExpired: 1}, 0, 0)
}

// And what it holds back, for it is of less than a period, ends all the same.
func TestEndOfWhatWasUsedHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now()))
		culler := newTestCuller(t, c)
		defer culler.activity.start()()
		defer culler.start()()
		time.Sleep(2 * time.Minute)
		culler.activity.Touch(kubetest.ID(1), instance.SourceHTTP)
		used := time.Now()
		time.Sleep(time.Hour)
		synctest.Wait()
		if inst, _ := c.Instance(kubetest.ID(1)); inst.Status != instance.StatusDeployed {
			t.Errorf("%s after its use it is %+v", time.Since(used), inst)
		}
		time.Sleep(flushLag(time.Hour) + time.Minute)
		synctest.Wait()
		if inst, _ := c.Instance(kubetest.ID(1)); inst.Reason != "Culled" {
			t.Errorf("%s after its use it is %+v", time.Since(used), inst)
		}
	})
}

// Somebody else's delete is no cull of ours.
func TestEndOfWhatIsGone(t *testing.T) {
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon), ago(1, 2*time.Hour))
	culler := newTestCuller(t, c)
	judged, _ := c.Pod(kubetest.ID(1))
	c.drop(t, kubetest.ID(1))
	culler.end(t.Context(), judged, judge(judged, kubetest.Noon, culler.policy), culler.policy)
	culler.wantCounts(t, nil, 0, 0)
	if log := culler.log.String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "msg=culled") {
		t.Errorf("the log is\n%s", log)
	}
}

func TestSweepMeetsAConflict(t *testing.T) {
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon), ago(1, 2*time.Hour), ago(2, 2*time.Hour, kubetest.WithAnnotation(instance.LastActivityAnnotation, "")))
	culler := newTestCuller(t, c)
	c.FailOn("delete", "pods", kubetest.Conflict(instance.PodName(kubetest.ID(1))))
	c.FailOn("patch", "pods", kubetest.Conflict(instance.PodName(kubetest.ID(2))))
	culler.sweep(t.Context(), kubetest.Noon, culler.policy)
	culler.wantCounts(t, nil, 0, 0)
	if log := culler.log.String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "level=WARN") {
		t.Errorf("the log is\n%s", log)
	}
}

// What fails is logged and counted, the rest is done, and the next sweep tries again.
func TestSweepMeetsAnError(t *testing.T) {
	away := errors.New("the API server is away")
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon), ago(1, 2*time.Hour), ago(2, 2*time.Hour, kubetest.WithAnnotation(instance.LastActivityAnnotation, "")))
	culler := newTestCuller(t, c)
	mend := []func(){c.FailOn("delete", "pods", away), c.FailOn("patch", "pods", away)}
	culler.sweep(t.Context(), kubetest.Noon, culler.policy)
	culler.wantCounts(t, nil, 1, 0)
	for _, line := range []string{`level=ERROR msg="not culled, will be tried again"`, `level=ERROR msg="a time on the pod cannot be right, and could not be written anew`} {
		if !strings.Contains(culler.log.String(), line) {
			t.Errorf("not in the log: %s\n%s", line, culler.log)
		}
	}
	for _, mend := range mend {
		mend()
	}
	culler.sweep(t.Context(), kubetest.Noon, culler.policy)
	culler.wantCounts(t, map[instance.EndReason]float64{instance.EndCulled: 1}, 1, 1)
}

// A pod that went away meanwhile needs no repair.
func TestRepairOfWhatIsGone(t *testing.T) {
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon))
	culler := newTestCuller(t, c)
	culler.repair(t.Context(), ago(1, time.Hour, kubetest.WithAnnotation(instance.LastActivityAnnotation, "mangled")), culler.policy)
	if log := culler.log.String(); log != "" {
		t.Errorf("the log is\n%s", log)
	}
}

// One who no longer leads does nothing more.
func TestSweepEndsWithItsTerm(t *testing.T) {
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon), ago(1, 2*time.Hour), ago(2, 2*time.Hour))
	culler := newTestCuller(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	culler.sweep(ctx, kubetest.Noon, culler.policy)
	if writes := c.Writes(); len(writes) > 0 {
		t.Errorf("the writes are %v", writes)
	}
}

func TestSweepGivesANewLeadersPolicyItsPeriod(t *testing.T) {
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon), ago(1, 2*time.Hour))
	culler := newTestCuller(t, c)
	policy := culler.policy
	policy.since = kubetest.Noon.Add(-time.Minute)
	culler.sweep(t.Context(), kubetest.Noon, policy)
	if writes := c.Writes(); len(writes) > 0 {
		t.Errorf("a minute after the election the writes are %v", writes)
	}
}
