package pool

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

const poolHash = "0123456789" // the hash of kubetest.Pod

// course is the course of a pool of which pods are claimed, without a cluster and by a
// clock of its own.
type course struct {
	size   int
	view   view
	now    time.Time
	starts map[string]time.Time // when the pods that start become ready, by name
	made   int
	plans  int
}

// newCourse returns a full pool.
func newCourse(size int) *course {
	c := &course{size: size, now: kubetest.Noon, starts: map[string]time.Time{}}
	c.view = view{size: size, hash: poolHash}
	for range size {
		c.made++
		c.view.pods = append(c.view.pods, kubetest.Pod(kubetest.ID(c.made), c.now.Add(-time.Hour)))
	}
	c.look(0)
	return c
}

// refill is a number of pods that were created at the same time.
type refill struct {
	at    time.Duration
	count int
}

// look plans, and carries the plan out. A pod takes start to become ready.
func (c *course) look(start time.Duration) (created int, again time.Time) {
	c.plans++
	plan := planPool(c.view, c.now, kubetest.StartTimeout)
	c.view.failures, c.view.demand = plan.failures, plan.demand
	for range plan.create {
		c.made++
		pod := kubetest.Pod(kubetest.ID(c.made), c.now, kubetest.Starting)
		pod.CreationTimestamp = metav1.NewTime(c.now)
		c.starts[pod.Name] = c.now.Add(start)
		c.view.pods = append(c.view.pods, pod)
	}
	return plan.create, c.now.Add(plan.lookAgain)
}

// run has a pod claimed at each of the times since noon, until the pool is full again.
func (c *course) run(start time.Duration, claims ...time.Duration) (refills []refill) {
	_, again := c.look(start)
	for len(claims) > 0 || len(c.view.pods) < c.size || len(c.starts) > 0 {
		c.now = again
		if len(claims) > 0 && kubetest.Noon.Add(claims[0]).Before(c.now) {
			c.now = kubetest.Noon.Add(claims[0])
		}
		for _, ready := range c.starts {
			if ready.Before(c.now) {
				c.now = ready
			}
		}
		if len(claims) > 0 && !kubetest.Noon.Add(claims[0]).After(c.now) {
			claims = claims[1:]
			if len(c.view.pods) > 0 {
				delete(c.starts, c.view.pods[0].Name)
				c.view.pods = slices.Clone(c.view.pods[1:])
			}
		}
		for i, pod := range c.view.pods {
			if ready, ok := c.starts[pod.Name]; ok && !ready.After(c.now) {
				delete(c.starts, pod.Name)
				c.view.pods[i] = kubetest.Pod(pod.Labels["binder-project.org/id"], c.now)
			}
		}
		var created int
		if created, again = c.look(start); created > 0 {
			refills = append(refills, refill{c.now.Sub(kubetest.Noon), created})
		}
	}
	return refills
}

// every returns a number of claims at regular times.
func every(period time.Duration, count int) (claims []time.Duration) {
	for i := range count {
		claims = append(claims, time.Duration(i)*period)
	}
	return claims
}

func TestRefillLetsBurstsPass(t *testing.T) {
	const ms = time.Millisecond
	for _, test := range []struct {
		name   string
		size   int
		claims []time.Duration
		want   []refill
	}{
		{"one claim", 20, every(0, 1), []refill{{250 * ms, 1}}},
		{"another claim in the pause", 20, every(200*ms, 2), []refill{{200*ms + 483*ms, 2}}},
		{"three at once", 20, every(0, 3), []refill{{750 * ms, 3}}},
		{"most of the pool at once", 20, every(0, 19), []refill{{3000 * ms, 5}, {4000 * ms, 5}, {5000 * ms, 5}, {6000 * ms, 4}}},
		{"all of the pool at once", 8, every(0, 8), []refill{{0, 4}, {2000 * ms, 4}}},
		{"the only pod", 1, every(0, 1), []refill{{0, 1}}},
		{"seldom", 20, every(time.Minute, 3), []refill{{250 * ms, 1}, {time.Minute + 250*ms, 1}, {2*time.Minute + 250*ms, 1}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := newCourse(test.size).run(time.Second, test.claims...)
			for i := range got {
				got[i].at = got[i].at.Round(ms)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("refilled as %v, want %v", got, test.want)
			}
		})
	}
}

// A pool is refilled however many claims follow each other, and it is not looked at more
// often than something happens.
func TestRefillNeverStarves(t *testing.T) {
	for _, period := range []time.Duration{50 * time.Millisecond, 200 * time.Millisecond, time.Second, 2900 * time.Millisecond} {
		t.Run(period.String(), func(t *testing.T) {
			claims := every(period, 400)
			c := newCourse(100)
			refills := c.run(time.Second, claims...)
			last := time.Duration(0)
			for _, refill := range refills {
				if waited := refill.at - last; waited > longestWait+max(period, startingTime) && refill.at <= claims[399] {
					t.Errorf("not refilled for %s", waited)
				}
				last = refill.at
			}
			if first := refills[0].at; first > longestWait {
				t.Errorf("first refilled after %s", first)
			}
			if c.made < 500 {
				t.Errorf("%d pods were made, want one for each claim", c.made-100)
			}
			if c.plans > 4*(len(claims)+len(refills)) {
				t.Errorf("%d plans for %d claims and %d refills", c.plans, len(claims), len(refills))
			}
		})
	}
}

func TestFewPodsStartAtOnce(t *testing.T) {
	now := kubetest.Noon
	pods := func(serving, starting int, age time.Duration) (all []*corev1.Pod) {
		for n := range serving + starting {
			pod := kubetest.Pod(kubetest.ID(n+1), now.Add(-time.Hour))
			if n >= serving {
				pod = kubetest.Pod(kubetest.ID(n+1), now.Add(-age), kubetest.Starting)
			}
			all = append(all, pod)
		}
		return all
	}
	for _, test := range []struct {
		size   int
		pods   []*corev1.Pod
		create int
		again  time.Duration
	}{
		{size: 3, create: 3, again: resync},
		{size: 10, create: 4, again: startingTime},
		{size: 40, create: 10, again: startingTime},
		{size: 10, pods: pods(0, 4, 3*time.Second), create: 0, again: startingTime - 3*time.Second},
		{size: 10, pods: pods(2, 3, 3*time.Second), create: 1, again: startingTime - 3*time.Second},
		{size: 10, pods: pods(5, 4, time.Second), create: 0, again: startingTime - time.Second},
		{size: 10, pods: pods(7, 2, time.Second), create: 1, again: resync},
		{size: 10, pods: pods(0, 4, startingTime), create: 4, again: startingTime},
	} {
		t.Run(fmt.Sprintf("%d of %d", len(test.pods), test.size), func(t *testing.T) {
			got := planPool(view{size: test.size, hash: poolHash, pods: test.pods}, now, kubetest.StartTimeout)
			if got.create != test.create || got.lookAgain != test.again {
				t.Errorf("creates %d, looks again after %s; want %d, %s", got.create, got.lookAgain, test.create, test.again)
			}
		})
	}
}

// The losses of pods that are no claims are made good at once.
func TestOnlyClaimsDelayTheRefill(t *testing.T) {
	c := newCourse(4)
	c.view.pods[0] = kubetest.Pod(kubetest.ID(1), c.now.Add(-time.Hour), kubetest.Deleting)
	if created, _ := c.look(time.Second); created != 1 {
		t.Errorf("%d pods are created when one is being deleted, want 1", created)
	}
	c.view.size = 6
	if created, _ := c.look(time.Second); created != 2 {
		t.Errorf("%d pods are created when the pool becomes larger, want 2", created)
	}
}
