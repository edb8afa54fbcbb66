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

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// day is the cluster on a day, by a clock of its own, and a leader that keeps the pool of a
// template by what it reads there. The pods that the pool plans are made and deleted at once.
type day struct {
	Cache    // nil: a leader reads nothing else
	template *corev1.PodTemplate
	start    time.Duration // of a pod, until it is ready
	now      time.Time
	pods     []*corev1.Pod        // the warm ones; none is changed
	ready    map[string]time.Time // when those that start are ready, by name
	launches []time.Time          // in order
	leader   *term

	made int
	warm int           // launches that were served from the pool
	paid time.Duration // the time of all warm pods together
}

// newDay returns a day that begins at midnight. schedule can be "".
func newDay(size, schedule string) *day {
	changes := []func(*corev1.PodTemplate){kubetest.WithTemplateAnnotation(instance.PoolSizeAnnotation, size)}
	if schedule != "" {
		changes = append(changes, kubetest.WithTemplateAnnotation(instance.PoolScheduleAnnotation, schedule))
	}
	d := &day{
		template: kubetest.Template(kubetest.TemplateName, changes...), start: 20 * time.Second,
		now: kubetest.Noon.Add(-12 * time.Hour), ready: map[string]time.Time{},
	}
	d.leader = d.newLeader()
	return d
}

// newLeader returns a leader that has just begun.
func (d *day) newLeader() *term {
	return &term{deps: Deps{Cache: d, Now: func() time.Time { return d.now }, StartTimeout: kubetest.StartTimeout}, memories: map[string]memory{}}
}

// LaunchTimes is that of Launches. The cluster forgets an instance an hour after its end.
func (d *day) LaunchTimes(string) []time.Time {
	first, _ := slices.BinarySearchFunc(d.launches, d.now.Add(-time.Hour), time.Time.Compare)
	return slices.Clone(d.launches[first:])
}

// WarmPods is that of Launches.
func (d *day) WarmPods(string) []*corev1.Pod { return d.pods }

// Warnings is that of Cache.
func (d *day) Warnings(*corev1.Pod) []*corev1.Event { return nil }

// run has the template launched at each of the times. Every term, another leader begins; 0 is for
// none.
func (d *day) run(t *testing.T, arrivals []time.Time, term time.Duration) {
	t.Helper()
	end, again, elected := d.now.Add(24*time.Hour), d.now, d.now
	for d.now.Before(end) {
		next := again
		for _, ready := range d.ready {
			next = earliest(next, ready)
		}
		if len(arrivals) > 0 {
			next = earliest(next, arrivals[0])
		}
		d.paid += time.Duration(len(d.pods)) * next.Sub(d.now)
		d.now = next
		for ; len(arrivals) > 0 && !arrivals[0].After(d.now); arrivals = arrivals[1:] {
			d.launch()
		}
		for i, pod := range d.pods {
			if ready, starts := d.ready[pod.Name]; starts && !ready.After(d.now) {
				delete(d.ready, pod.Name)
				d.pods = slices.Clone(d.pods)
				d.pods[i] = d.pod(pod.Labels[instance.IDLabel], pod.CreationTimestamp.Time, kubetest.ReadySince(d.now))
			}
		}
		if term > 0 && d.now.Sub(elected) >= term {
			elected = elected.Add(term)
			d.elect(t)
		}
		again = d.now.Add(d.look())
	}
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// elect lets another leader take over, which must compute the size that the one before would.
func (d *day) elect(t *testing.T) {
	t.Helper()
	remembered := d.leader.recall(d.template.Name)
	remembered.sized.at = time.Time{} // it is time to compute it again
	before, _ := d.leader.look(d.template.Name, d.template, remembered)
	d.leader = d.newLeader()
	after, _ := d.leader.look(d.template.Name, d.template, d.leader.recall(d.template.Name))
	if after.size != before.size || after.size != Size(d, d.template, d.now) {
		t.Errorf("at %s, a new leader has %d, the one before %d", d.now.Format(time.TimeOnly), after.size, before.size)
	}
}

// pod returns a warm pod of the template.
func (d *day) pod(id string, created time.Time, changes ...func(*corev1.Pod)) *corev1.Pod {
	return kubetest.Pod(id, created, append(changes, kubetest.WithLabel(instance.TemplateHashLabel, podtemplate.Hash(d.template)))...)
}

// launch takes a pod that is ready, if there is one.
func (d *day) launch() {
	d.launches = append(d.launches, d.now)
	i := slices.IndexFunc(d.pods, func(pod *corev1.Pod) bool { _, starts := d.ready[pod.Name]; return !starts })
	if i >= 0 {
		d.warm++
		d.pods = slices.Delete(slices.Clone(d.pods), i, i+1)
	}
}

// look has the leader plan, and carries the plan out. It returns when to look again.
func (d *day) look() time.Duration {
	name := d.template.Name
	seen, size := d.leader.look(name, d.template, d.leader.recall(name))
	todo := planPool(seen, d.now, kubetest.StartTimeout)
	d.leader.remember(name, memory{todo.failures, todo.demand, size})
	for _, surplus := range todo.remove {
		delete(d.ready, surplus.pod.Name)
		d.pods = slices.DeleteFunc(slices.Clone(d.pods), func(pod *corev1.Pod) bool { return pod == surplus.pod })
	}
	for range todo.create {
		d.made++
		pod := d.pod(kubetest.ID(d.made), d.now, kubetest.Starting)
		d.ready[pod.Name] = d.now.Add(d.start)
		d.pods = append(slices.Clone(d.pods), pod)
	}
	return todo.lookAgain
}

// dayWithClasses returns the launches of a working day: few at night, more by day, and three classes
// of 15 to 30 that open the same link within two minutes, twice in the hour.
func dayWithClasses(_ *testing.T, random *rand.Rand, midnight time.Time) (launches []time.Time) {
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

// lessons is a schedule that knows when the classes of dayWithClasses open their links.
const lessons = "Mon-Fri 09:00-09:10 UTC 30; Mon-Fri 09:45-09:55 UTC 30; Mon-Fri 11:00-11:10 UTC 30; " +
	"Mon-Fri 11:45-11:55 UTC 30; Mon-Fri 14:00-14:10 UTC 30; Mon-Fri 14:45-14:55 UTC 30"

// recordedDay returns the launches of one repository on a day, as the public archive of the launches
// at mybinder.org has them: by the minute, so they are spread over each.
func recordedDay(t *testing.T, random *rand.Rand, midnight time.Time) (launches []time.Time) {
	t.Helper()
	file, err := os.ReadFile("testdata/launches-2018-11-14.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(file)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		var hour, minute, n int
		if _, err := fmt.Sscanf(line, "%d:%d %d", &hour, &minute, &n); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		for range n {
			launches = append(launches, midnight.Add(time.Duration(60*hour+minute)*time.Minute+time.Duration(random.Int64N(int64(time.Minute)))))
		}
	}
	slices.SortFunc(launches, time.Time.Compare)
	return launches
}

// comparison compares pools of a day, of which docs/templates.md has the figures.
type comparison struct {
	t          *testing.T
	launches   []time.Time
	documented string
}

func compare(t *testing.T, launches func(t *testing.T, random *rand.Rand, midnight time.Time) []time.Time) *comparison {
	t.Helper()
	documented, err := os.ReadFile("../../docs/templates.md")
	if err != nil {
		t.Fatal(err)
	}
	return &comparison{t, launches(t, rand.New(rand.NewPCG(1, 2)), kubetest.Noon.Add(-12*time.Hour)), string(documented)}
}

// run returns the share of launches that were served warm, and for how many pod-hours.
func (c *comparison) run(size, schedule string, term time.Duration) (warm, podHours float64) {
	d := newDay(size, schedule)
	d.run(c.t, c.launches, term)
	return float64(d.warm) / float64(len(c.launches)), d.paid.Hours()
}

// show is run with one leader, for a row of the docs.
func (c *comparison) show(size, schedule, of string) (warm, podHours float64) {
	c.t.Helper()
	warm, podHours = c.run(size, schedule, 0)
	row := fmt.Sprintf("| `%s`%s | %.1f %% | %.0f |", size, of, 100*warm, podHours)
	if !strings.Contains(c.documented, row) {
		c.t.Errorf("docs/templates.md does not have the row %s, of %d launches", row, len(c.launches))
	}
	return warm, podHours
}

// follows checks that a pool which follows the launches serves about as many warm as one of the most
// pods, for a fraction of those; at least as many as one of no more pod-hours; and the same with
// another leader every seven minutes.
func (c *comparison) follows(most int) (warm, podHours float64) {
	c.t.Helper()
	size := fmt.Sprintf("2..%d", most)
	warm, podHours = c.show(size, "", "")
	small, _ := c.show("2", "", "")
	equal, _ := c.show(fmt.Sprint(int(podHours/24)), "", "") // for the same pods
	large, paid := c.show(fmt.Sprint(most), "", "")
	if warm < small || warm < equal || warm < large-0.1 || podHours > paid/2 {
		c.t.Errorf("it serves %.3f warm for %.0f pod-hours; fixed: 2 pods %.3f, as many pod-hours %.3f, %d pods %.3f for %.0f", warm, podHours, small, equal, most, large, paid)
	}
	if led, paidLed := c.run(size, "", 7*time.Minute); led < warm-0.01 || paidLed > 1.02*podHours {
		c.t.Errorf("with new leaders it serves %.3f warm for %.1f pod-hours, with one %.3f for %.1f", led, paidLed, warm, podHours)
	}
	return warm, podHours
}

// TestRecordedDay is of a pool on a recorded day.
func TestRecordedDay(t *testing.T) {
	compare(t, recordedDay).follows(20)
}

// TestDayWithClasses is of a pool on a made-up day. A schedule that knows the classes serves more.
func TestDayWithClasses(t *testing.T) {
	c := compare(t, dayWithClasses)
	warm, podHours := c.follows(30)
	scheduled, paid := c.show("2..30", lessons, ", and a schedule with the lessons")
	if scheduled <= warm || paid > 3*podHours {
		t.Errorf("with a schedule it serves %.3f warm for %.0f pod-hours, without %.3f for %.0f", scheduled, paid, warm, podHours)
	}
}
