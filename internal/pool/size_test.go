package pool

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

func TestNeeded(t *testing.T) {
	now := kubetest.Noon
	ago := func(all ...time.Duration) (launches []time.Time) {
		for _, d := range all {
			launches = append(launches, now.Add(-d))
		}
		return launches
	}
	const m = time.Minute
	for name, test := range map[string]struct {
		launches []time.Time
		replaced time.Duration
		want     int
	}{
		"none":                      {nil, m, 0},
		"one":                       {ago(30 * m), m, 1},
		"an hour ago":               {ago(time.Hour), m, 1},
		"more than an hour ago":     {ago(time.Hour + 1), m, 0},
		"by a clock that is ahead":  {ago(-1), m, 0},
		"a class, not in order":     {ago(20*m, 20*m+30*time.Second, 20*m+10*time.Second, 40*m, 5*m), m, 3},
		"just far enough apart":     {ago(20*m, 19*m, 18*m), m, 1},
		"a moment too close":        {ago(20*m, 19*m+1, 18*m+1), m, 2},
		"pods that need longer":     {ago(20*m, 19*m, 18*m), 3 * m, 3},
		"steadily, one a minute":    {ago(slices.Collect(minutes(60))...), m, 3}, // 1 + 2·√1
		"steadily, four in between": {ago(slices.Collect(minutes(60))...), 4 * m, 8},
	} {
		if got := needed(test.launches, test.replaced, now); got != test.want {
			t.Errorf("%s: got %d, want %d", name, got, test.want)
		}
	}
}

// minutes yields the first n minutes.
func minutes(n int) func(func(time.Duration) bool) {
	return func(yield func(time.Duration) bool) {
		for i := range n {
			if !yield(time.Duration(i)*time.Minute + time.Second) {
				return
			}
		}
	}
}

func TestStartsIn(t *testing.T) {
	now := kubetest.Noon
	pod := func(start time.Duration, changes ...func(*corev1.Pod)) *corev1.Pod {
		created := now.Add(-2 * time.Hour)
		return kubetest.Pod(kubetest.ID(1), created, append([]func(*corev1.Pod){kubetest.ReadySince(created.Add(start))}, changes...)...)
	}
	five := pod(5 * time.Second)
	for name, test := range map[string]struct {
		pods []*corev1.Pod
		want time.Duration
	}{
		"none":                      {nil, usualStart},
		"one":                       {[]*corev1.Pod{five}, 5 * time.Second},
		"one of two is slow":        {[]*corev1.Pod{pod(40 * time.Second), five}, 5 * time.Second},
		"most are slow":             {[]*corev1.Pod{five, pod(40 * time.Second), pod(40 * time.Second)}, 40 * time.Second},
		"only starting":             {[]*corev1.Pod{pod(0, kubetest.Starting)}, usualStart},
		"being deleted":             {[]*corev1.Pod{pod(time.Minute, kubetest.Deleting), five}, 5 * time.Second},
		"on a silent node":          {[]*corev1.Pod{pod(0, kubetest.OnSilentNode(now)), five}, 5 * time.Second},
		"of an earlier version":     {[]*corev1.Pod{pod(time.Minute, kubetest.WithLabel(instance.TemplateHashLabel, "another")), five}, 5 * time.Second},
		"not ready for a while":     {[]*corev1.Pod{pod(time.Hour), five}, 5 * time.Second},
		"restarted":                 {[]*corev1.Pod{pod(time.Minute, func(p *corev1.Pod) { p.Status.ContainerStatuses[0].RestartCount = 1 }), five}, 5 * time.Second},
		"by a clock that is behind": {[]*corev1.Pod{pod(-time.Minute)}, 0},
	} {
		if got := startsIn(test.pods, poolHash); got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
}

// A pool follows the launches that the cluster remembers, within its bounds and above its
// schedule; a template whose annotations are not valid has none.
func TestSize(t *testing.T) {
	world := kubetest.NewWorld(func() time.Time { return kubetest.Noon }, podtemplate.ErrUnknown)
	for i := range 6 {
		world.PutPod(t, kubetest.Pod(kubetest.ID(i+1), kubetest.Noon.Add(-30*time.Minute-time.Duration(i)*time.Second)))
	}
	for _, test := range []struct {
		size, schedule string
		want           int
	}{
		{"", "", 0}, {"4", "", 4}, {"4", "Mon-Sun 00:00-24:00 UTC 9", 4}, // a fixed size is fixed
		{"0..20", "", 6}, {"8..20", "", 8}, {"2..5", "", 5}, {"2..0", "", 0}, {"x", "", 0},
		{"2..20", "Fri 11:00-13:00 UTC 12", 12}, {"2..10", "Fri 11:00-13:00 UTC 12", 10}, {"2..20", "Fri 12:01-13:00 UTC 12", 6}, {"2..20", "Fri", 6},
	} {
		template := kubetest.Template(kubetest.TemplateName)
		for key, value := range map[string]string{instance.PoolSizeAnnotation: test.size, instance.PoolScheduleAnnotation: test.schedule} {
			if value != "" {
				template.Annotations[key] = value
			}
		}
		if got := Size(world, template, kubetest.Noon); got != test.want { // a Friday
			t.Errorf("%q, %q: got %d, want %d", test.size, test.schedule, got, test.want)
		}
	}
}

func TestFollowingPool(t *testing.T) {
	inBubble(t, func(t *testing.T, p *testPool) {
		stop := p.lead()
		p.put("1..10")
		p.change(p.want("no launches yet", 1, 1, 0)[0], ready)
		for i := range 5 { // a class of five, without warm pods
			p.PutPod(t, kubetest.Pod(kubetest.ID(100+i), time.Now()))
		}
		p.after(resync)
		p.want("sized for another class", 5, 5, 0)
		for _, pod := range p.WarmPods(kubetest.TemplateName) {
			p.change(pod.Name, ready)
		}
		p.after(30 * time.Minute)
		p.want("for an hour", 5, 5, 0)
		stop() // a new leader finds the same
		p.lead()
		p.after(resync)
		p.want("with another leader", 5, 5, 0)
		p.after(lookBack)
		p.want("and no longer, but for one to spare", 2, 5, 3)
	})
}
