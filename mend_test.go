package main

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func TestMend(t *testing.T) {
	const now = "2026-01-02T12:00:00.000Z"
	unused := map[string]any{instance.LastActivityAnnotation: now, instance.ActivitySourceAnnotation: nil}
	unlaunched := map[string]any{instance.LaunchedAnnotation: now}
	aged := kubetest.WithAnnotation(instance.MaxAgeAnnotation, "1h")
	for _, test := range []struct {
		name   string
		change func(*corev1.Pod)
		want   []map[string]any
	}{
		{"all is well", aged, nil},
		{"launched before that was written", changes(aged, func(p *corev1.Pod) { delete(p.Annotations, instance.LaunchedAnnotation) }), nil},
		{"clocks differ", changes(aged, kubetest.LastUsed(kubetest.Noon.Add(clockSkew)), kubetest.LaunchedAt(kubetest.Noon.Add(clockSkew))), nil},
		{"no use", func(p *corev1.Pod) { delete(p.Annotations, instance.LastActivityAnnotation) }, []map[string]any{unused}},
		{"used in the future", kubetest.LastUsed(kubetest.Noon.Add(time.Hour)), []map[string]any{unused}},
		{"launched in the future", changes(aged, kubetest.LaunchedAt(kubetest.Noon.Add(time.Hour))), []map[string]any{unlaunched}},
		{"launched at no time", changes(aged, kubetest.WithAnnotation(instance.LaunchedAnnotation, "")), []map[string]any{unlaunched}},
		{"launched at no time, and of no age", kubetest.WithAnnotation(instance.LaunchedAnnotation, ""), nil},
		{"nothing is right", changes(aged, kubetest.WithAnnotation(instance.LaunchedAnnotation, "?"), kubetest.WithAnnotation(instance.LastActivityAnnotation, "?")), []map[string]any{unused, unlaunched}},
	} {
		want := map[string]any{}
		for _, annotations := range test.want {
			for name, value := range annotations {
				want[name] = value
			}
		}
		got, problem := mend(kubetest.Pod(kubetest.ID(1), kubetest.Noon, test.change), kubetest.Noon, cullPolicy{cullTimeout: time.Hour})
		if len(got) != len(want) || (problem != nil) != (len(want) > 0) {
			t.Errorf("%s: got %v, %v; want %v", test.name, got, problem, want)
		}
		for name, value := range want {
			if at, said := got[name]; !said || at != value || !strings.Contains(problem.Error(), strings.TrimSuffix(name, "-source")) {
				t.Errorf("%s: %s becomes %v, for %v; want %v", test.name, name, at, problem, value)
			}
		}
	}
}

// Whoever mangles the time of the launch gains one max age by it, and not all.
func TestMangledLaunchIsRepaired(t *testing.T) {
	pod := ago(1, 5*time.Hour, kubetest.LastUsed(kubetest.Noon), kubetest.WithAnnotation(instance.LaunchedAnnotation, "never"))
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon), pod)
	culler := newTestCuller(t, c)
	culler.policy.maxAge = time.Hour
	culler.sweep(t.Context(), kubetest.Noon, culler.policy)
	culler.wantCounts(t, nil, 0, 1)
	if log := culler.log.String(); !strings.Contains(log, "level=WARN") || !strings.Contains(log, instance.LaunchedAnnotation) {
		t.Errorf("the log is\n%s", log)
	}
	kubetest.Eventually(t, "the cache has what was written", func() bool {
		pod, _ := c.Pod(kubetest.ID(1))
		at, err := launchedAt(pod, kubetest.Noon)
		return err == nil && at.Equal(kubetest.Noon)
	})
	cached, _ := c.Pod(kubetest.ID(1))
	repaired := cached.DeepCopy()
	if last, err := instance.LastActivity(repaired); err != nil || !last.Equal(kubetest.Noon) {
		t.Errorf("it was last used at %s, %v; want what it was", last, err)
	}
	kubetest.LastUsed(kubetest.Noon.Add(time.Hour))(repaired)
	if got := judge(repaired, kubetest.Noon.Add(time.Hour), culler.policy); got.reason != instance.EndExpired {
		t.Errorf("an hour later it is %+v, want it expired", got)
	}
}
