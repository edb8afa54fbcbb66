package main

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func TestClockJumped(t *testing.T) {
	for _, test := range []struct {
		name      string
		wall, ran time.Duration // since the last look
		want      bool
	}{
		{"both run", 30 * time.Second, 30 * time.Second, false},
		{"the sweep took long", 10 * time.Minute, 10 * time.Minute, false},
		{"kept right by degrees", 30*time.Second + 100*time.Millisecond, 30 * time.Second, false},
		{"set forward", time.Hour, 30 * time.Second, true},
		{"set forward by little", 33 * time.Second, 30 * time.Second, true},
		{"set back", -time.Hour, 30 * time.Second, true},
		{"asleep", 8 * time.Hour, 0, true},
	} {
		// Readings with a monotonic part, as time.Now makes them, and without.
		for _, from := range []time.Time{time.Now(), kubetest.Noon} {
			previous := clocks{from, from}
			current := clocks{from.Round(0).Add(test.wall), from.Add(test.ran)}
			if got := clockJumped(previous, current); got != test.want {
				t.Errorf("%s, from %s: got %t, want %t", test.name, from, got, test.want)
			}
		}
	}
}

// A leader whose clock is set forward sees instances that look idle for long;
// it lets everybody write before it deletes them, and does so once.
func TestCullerWaitsAfterAJump(t *testing.T) {
	for name, jump := range map[string]time.Duration{"forward": 3 * time.Hour, "back": -10 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			var set atomic.Int64
			clock := func() time.Time { return time.Now().Add(time.Duration(set.Load())) }
			c := startCluster(t, clock, kubetest.Pod(kubetest.ID(1), began))
			culler := newTestCuller(t, c)
			defer culler.start()()
			time.Sleep(20 * time.Minute)
			synctest.Wait()
			set.Store(int64(jump))
			time.Sleep(5 * time.Minute) // and its lag is two seconds more
			synctest.Wait()
			if writes := c.Writes(); len(writes) > 0 {
				t.Errorf("set %s: culled within a period: %v", name, writes)
			}
			if got := strings.Count(culler.log.String(), "the clock has jumped"); got != 1 {
				t.Errorf("set %s: said %d times, want once:\n%s", name, got, culler.log)
			}
			time.Sleep(time.Until(began.Add(66*time.Minute + 30*time.Second - min(jump, 0))))
			synctest.Wait()
			if inst, _ := c.Instance(kubetest.ID(1)); inst.Reason != "Culled" {
				t.Errorf("set %s: in the end it is %+v, want it culled", name, inst)
			}
		})
	}
}

// Nor does a clock that is wrong for a while destroy what is known: by it, all
// times are in the future.
func TestClockSetBackAndRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var set atomic.Int64
		clock := func() time.Time { return time.Now().Add(time.Duration(set.Load())) }
		c := startCluster(t, clock, kubetest.Pod(kubetest.ID(1), began.Add(-5*time.Hour), kubetest.LastUsed(began)))
		culler := newTestCuller(t, c)
		defer culler.start()()
		time.Sleep(20 * time.Minute)
		set.Store(int64(-3 * time.Hour))
		time.Sleep(time.Minute)
		set.Store(0)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if writes := c.Writes(); len(writes) > 0 {
			t.Errorf("used %s ago, its timeout is an hour: %v", time.Since(began), writes)
		}
	})
}
