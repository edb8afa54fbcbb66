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
	return slices.DeleteFunc(slices.Clone(d.launches), func(at time.Time) bool { return d.now.Sub(at) > time.Hour })
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

// lessons is a schedule that knows when the classes of aDay open their links.
const lessons = "Mon-Fri 09:00-09:10 UTC 30; Mon-Fri 09:45-09:55 UTC 30; Mon-Fri 11:00-11:10 UTC 30; " +
	"Mon-Fri 11:45-11:55 UTC 30; Mon-Fri 14:00-14:10 UTC 30; Mon-Fri 14:45-14:55 UTC 30"

// TestDayOfLaunches compares a pool that follows the launches of a day with pools of fixed sizes:
// it serves about as many launches warm as the largest, for a fraction of its pods. A schedule
// that knows the classes serves more. With another leader every seven minutes, at 09:06 amid a class, it is the
// same. No published record of a day of launches was at hand, so the day is made up.
func TestDayOfLaunches(t *testing.T) {
	launches := aDay(rand.New(rand.NewPCG(1, 2)), kubetest.Noon.Add(-12*time.Hour))
	documented, err := os.ReadFile("../../docs/templates.md")
	if err != nil {
		t.Fatal(err)
	}
	run := func(size, schedule string, term time.Duration) (warm, podHours float64) {
		d := newDay(size, schedule)
		d.run(t, launches, term)
		return float64(d.warm) / float64(len(launches)), d.paid.Hours()
	}
	show := func(size, schedule, of string) (warm, podHours float64) {
		warm, podHours = run(size, schedule, 0)
		row := fmt.Sprintf("| `%s`%s | %.1f %% | %.0f |", size, of, 100*warm, podHours)
		if !strings.Contains(string(documented), row) {
			t.Errorf("docs/templates.md does not have the row %s, of %d launches", row, len(launches))
		}
		return warm, podHours
	}
	follows, paid := show("2..30", "", "")
	scheduled, paidMore := show("2..30", lessons, ", and a schedule with the lessons")
	small, _ := show("2", "", "")
	equal, _ := show(fmt.Sprint(int(paid/24)), "", "") // for the same pods
	large, most := show("30", "", "")
	if follows < small || follows < equal || follows < large-0.1 || paid > most/2 {
		t.Errorf("it serves %.2f warm for %.0f pod-hours; fixed: 2 pods %.2f, as many pod-hours %.2f, 30 pods %.2f for %.0f", follows, paid, small, equal, large, most)
	}
	if scheduled <= follows || paidMore > most/2 {
		t.Errorf("with a schedule it serves %.3f warm for %.0f pod-hours, without %.3f for %.0f", scheduled, paidMore, follows, paid)
	}
	led, paidLed := run("2..30", "", 7*time.Minute)
	if led < follows-0.01 || paidLed > 1.02*paid {
		t.Errorf("with new leaders it serves %.3f warm for %.1f pod-hours, with one %.3f for %.1f", led, paidLed, follows, paid)
	}
}
