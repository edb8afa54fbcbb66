package pool

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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

// day is a pool on a day, without a cluster and by a clock of its own.
type day struct {
	view     view
	now      time.Time
	starts   map[string]time.Time // when the pods that start become ready, by name
	made     int
	launches []time.Time
	warm     int           // launches that were served from the pool
	paid     time.Duration // the time of all warm pods together
}

// run has a template launched at each of the times. A pod takes start to become ready.
func (d *day) run(bounds podtemplate.PoolBounds, start time.Duration, arrivals []time.Time) {
	end, sizedAt, again := d.now.Add(24*time.Hour), time.Time{}, d.now
	for d.now.Before(end) {
		next := again
		for _, ready := range d.starts {
			next = earliest(next, ready)
		}
		if len(arrivals) > 0 {
			next = earliest(next, arrivals[0])
		}
		d.paid += time.Duration(len(d.view.pods)) * next.Sub(d.now)
		d.now = next
		for ; len(arrivals) > 0 && !arrivals[0].After(d.now); arrivals = arrivals[1:] {
			d.launch()
		}
		for i, pod := range d.view.pods {
			if ready, ok := d.starts[pod.Name]; ok && !ready.After(d.now) {
				delete(d.starts, pod.Name)
				d.view.pods[i] = kubetest.Pod(pod.Labels[instance.IDLabel], d.now)
			}
		}
		if d.now.Sub(sizedAt) >= sizeFor {
			size := bounds.Within(needed(d.launches, start+longestWait+sizeFor, d.now))
			d.view.size, d.view.follows, sizedAt = size, !bounds.IsFixed(), d.now
			if d.view.follows {
				d.view.spare = spare(size)
			}
		}
		again = d.look(start)
	}
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// launch takes a pod that is ready, if there is one.
func (d *day) launch() {
	d.launches = append(d.launches, d.now)
	i := slices.IndexFunc(d.view.pods, func(pod *corev1.Pod) bool { _, starts := d.starts[pod.Name]; return !starts })
	if i >= 0 {
		d.warm++
		d.view.pods = slices.Delete(slices.Clone(d.view.pods), i, i+1)
	}
}

// look plans, and carries the plan out.
func (d *day) look(start time.Duration) (again time.Time) {
	plan := planPool(d.view, d.now, kubetest.StartTimeout)
	d.view.failures, d.view.demand = plan.failures, plan.demand
	for _, surplus := range plan.remove {
		delete(d.starts, surplus.pod.Name)
		d.view.pods = slices.DeleteFunc(slices.Clone(d.view.pods), func(pod *corev1.Pod) bool { return pod == surplus.pod })
	}
	for range plan.create {
		d.made++
		pod := kubetest.Pod(kubetest.ID(d.made), d.now, kubetest.Starting)
		pod.CreationTimestamp = metav1.NewTime(d.now)
		d.starts[pod.Name] = d.now.Add(start)
		d.view.pods = append(slices.Clone(d.view.pods), pod)
	}
	return d.now.Add(plan.lookAgain)
}

// aDay returns the launches of a working day: few at night, more by day, and three classes of
// 15 to 30 that open the same link within two minutes, twice in the hour.
func aDay(random *rand.Rand, midnight time.Time) (launches []time.Time) {
	perHour := []int{2, 1, 1, 1, 1, 2, 4, 8, 20, 30, 30, 28, 20, 25, 30, 30, 25, 20, 15, 12, 10, 8, 5, 3}
	for hour, mean := range perHour {
		at := midnight.Add(time.Duration(hour) * time.Hour)
		for range mean {
			launches = append(launches, at.Add(time.Duration(random.Int64N(int64(time.Hour)))))
		}
	}
	for _, lesson := range []time.Duration{9 * time.Hour, 11 * time.Hour, 14 * time.Hour} {
		for _, begins := range []time.Duration{lesson + 5*time.Minute, lesson + 50*time.Minute} {
			for range 15 + random.IntN(16) {
				launches = append(launches, midnight.Add(begins+time.Duration(random.Int64N(int64(2*time.Minute)))))
			}
		}
	}
	slices.SortFunc(launches, time.Time.Compare)
	return launches
}

// TestDayOfLaunches compares a pool that follows the launches of a made-up day with pools of
// fixed sizes: it serves about as many launches warm as the largest, for a fraction of its pods.
func TestDayOfLaunches(t *testing.T) {
	launches := aDay(rand.New(rand.NewPCG(1, 2)), kubetest.Noon)
	documented, err := os.ReadFile("../../docs/templates.md")
	if err != nil {
		t.Fatal(err)
	}
	run := func(bounds podtemplate.PoolBounds) (warm, podHours float64) {
		d := &day{now: kubetest.Noon, starts: map[string]time.Time{}, view: view{hash: poolHash}}
		d.run(bounds, 20*time.Second, launches)
		warm, podHours = float64(d.warm)/float64(len(launches)), d.paid.Hours()
		size := fmt.Sprint(bounds.Least)
		if !bounds.IsFixed() {
			size = fmt.Sprintf("%d..%d", bounds.Least, bounds.Most)
		}
		row := fmt.Sprintf("| `%s` | %.1f %% | %.0f |", size, 100*warm, podHours)
		if !strings.Contains(string(documented), row) {
			t.Errorf("docs/templates.md does not have the row %s, of %d launches", row, len(launches))
		}
		return warm, podHours
	}
	follows, paid := run(podtemplate.PoolBounds{Least: 2, Most: 30})
	small, _ := run(podtemplate.PoolBounds{Least: 2, Most: 2})
	equal, _ := run(podtemplate.PoolBounds{Least: int(paid / 24), Most: int(paid / 24)}) // for the same pods
	large, most := run(podtemplate.PoolBounds{Least: 30, Most: 30})
	if follows < small || follows < equal || follows < large-0.1 || paid > most/2 {
		t.Errorf("it serves %.2f warm for %.0f pod-hours; fixed: 2 pods %.2f, as many pod-hours %.2f, 30 pods %.2f for %.0f", follows, paid, small, equal, large, most)
	}
}
