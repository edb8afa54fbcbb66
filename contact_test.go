package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/leader"
)

func TestContact(t *testing.T) {
	at := func(seconds float64) time.Time {
		return kubetest.Noon.Add(time.Duration(seconds * float64(time.Second)))
	}
	long := []float64{0, 9}
	for seconds := 11.0; seconds <= 61; seconds += 2 {
		long = append(long, seconds)
	}
	for _, test := range []struct {
		name    string
		written []float64
		now     float64
		want    outage
	}{
		{"never stood", nil, 100, outage{}},
		{"steady", []float64{0, 2, 4, 6}, 7, outage{}},
		{"a write took its time", []float64{0, 3.9, 6}, 7, outage{}},
		{"was cut off", []float64{0, 2, 9, 11, 13}, 14, outage{at(2), at(9)}},
		{"was cut off anew while others had yet to write", []float64{0, 9, 11, 20}, 21, outage{at(4), at(20)}},
		{"was cut off long ago", long, 62, outage{at(0), at(9)}},
		{"was cut off anew, long after", append(slices.Clone(long), 70), 71, outage{at(61), at(70)}},
		{"is cut off", []float64{0, 2}, 6.5, outage{at(2), at(6.5)}},
		{"was, and is", []float64{0, 9}, 14, outage{at(0), at(14)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var c contact
			for _, seconds := range test.written {
				c.note(at(seconds))
			}
			if got := c.lastOutage(at(test.now)); got != test.want {
				t.Errorf("cut off %v, want %v", got, test.want)
			}
		})
	}
}

// It is waited for as long as an outage was, and some; and no longer than after an
// election, when nothing is known.
func TestOutageWait(t *testing.T) {
	for _, test := range []struct{ long, lag, want time.Duration }{
		{5 * time.Second, 5 * time.Minute, 25 * time.Second},
		{5 * time.Second, 3 * time.Second, 3 * time.Second},
		{5 * time.Minute, 5 * time.Minute, 5 * time.Minute},
		{5 * time.Second, 2 * time.Hour, 25 * time.Second},
	} {
		if got := (outage{kubetest.Noon, kubetest.Noon.Add(test.long)}).wait(test.lag); got != test.want {
			t.Errorf("of %s with the lag %s: %s, want %s", test.long, test.lag, got, test.want)
		}
	}
}

// An API server that is away for too short a time to lose the lead by is
// noticed all the same: each write of the Lease is told of, and no failed one.
func TestShortOutageIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := kubetest.NewServer(time.Now)
		var c contact
		opts := leader.Options{Namespace: "binder", Lease: "lease", Identity: "one", Written: func() { c.note(time.Now()) }}
		ctx, cancel := context.WithCancel(t.Context())
		var standing sync.WaitGroup
		defer standing.Wait()
		defer cancel()
		metrics := metrics.New("test", metricValues())
		standing.Go(func() {
			if err := leader.Run(ctx, server.Client, opts, metrics.Leading, kubetest.NoLog(), func(ctx context.Context) { <-ctx.Done() }); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(20 * time.Second)
		if got := c.lastOutage(time.Now()); got != (outage{}) {
			t.Errorf("cut off %v, and nothing has happened", got)
		}
		mend := server.FailOn("update", "leases", errors.New("the API server is away"))
		time.Sleep(8 * time.Second)
		if now := time.Now(); c.lastOutage(now).until != now {
			t.Errorf("cut off %v, and it is now", c.lastOutage(now))
		}
		mended := time.Now()
		mend()
		time.Sleep(20 * time.Second)
		if got := c.lastOutage(time.Now()).until; got.Before(mended) || got.After(mended.Add(leader.RetryPeriod+time.Second)) {
			t.Errorf("cut off until %s, want a moment after %s", got, mended)
		}
		if metric(t, metrics, "binder_leader") != 1 {
			t.Error("the lead was lost: the outage was not a short one")
		}
	})
}

// beat notes for a while that the Lease was written.
func (c testCuller) beat(while time.Duration) {
	for began := time.Now(); time.Since(began) < while; time.Sleep(leader.RetryPeriod) {
		c.contact.note(time.Now())
	}
}

// What looks idle for long when the API server is there again may have been in
// use meanwhile, at a replica that could not write it: it gets as long as the
// outage was to be written, and some, up to a period.
func TestCullerWaitsAfterAnOutage(t *testing.T) {
	for _, test := range []struct{ away, spared, culled time.Duration }{
		{8 * time.Second, 25 * time.Second, time.Minute + 20*time.Second}, // 10 s from write to write
		{10 * time.Minute, 5 * time.Minute, 6*time.Minute + 20*time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			c := startCluster(t, time.Now, kubetest.Pod(kubetest.ID(1), began))
			culler := newTestCuller(t, c)
			defer culler.start()()
			culler.beat(65 * time.Minute) // not yet idle for its timeout and the lag
			time.Sleep(test.away)
			culler.beat(test.spared)
			synctest.Wait()
			if idle := time.Since(began); idle < 65*time.Minute+2*time.Second {
				t.Fatalf("it is idle for %s only, and proves nothing", idle)
			}
			if writes := c.Writes(); len(writes) > 0 {
				t.Errorf("away for %s, culled within %s: %v", test.away, test.spared, writes)
			}
			culler.beat(test.culled - test.spared)
			synctest.Wait()
			if inst, _ := c.Instance(kubetest.ID(1)); inst.Reason != "Culled" {
				t.Errorf("away for %s, after %s it is %+v, want it culled", test.away, test.culled, inst)
			}
			if got := strings.Count(culler.log.String(), "the API server was away"); got != 1 {
				t.Errorf("told %d times:\n%s", got, culler.log)
			}
		})
	}
}

// A moment's outage now and then keeps nothing alive, be there a bad time before,
// or a time when others led.
func TestOutagesNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		day := kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "24h") // of which annotations may lag by two hours
		c := startCluster(t, time.Now, kubetest.Pod(kubetest.ID(1), began, day), kubetest.Pod(kubetest.ID(2), began, day, kubetest.WithAnnotation(instance.MaxAgeAnnotation, "1h")))
		culler := newTestCuller(t, c)
		culler.contact.note(began.Add(-72 * time.Hour))
		culler.contact.note(began)
		defer culler.start()()
		for time.Since(began) < 10*time.Minute {
			culler.beat(15 * time.Second)
			time.Sleep(5 * time.Second)
		}
		for time.Since(began) < 30*time.Hour {
			culler.beat(90 * time.Minute)
			time.Sleep(5 * time.Second)
		}
		synctest.Wait()
		for n, reason := range map[int]string{1: "Culled", 2: "Expired"} {
			if inst, _ := c.Instance(kubetest.ID(n)); inst.Reason != reason {
				t.Errorf("got %+v, want it %s", inst, reason)
			}
		}
	})
}

// A sweep that an outage has made old ends there.
func TestSweepEndsWithAnOutage(t *testing.T) {
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon), ago(1, 2*time.Hour))
	culler := newTestCuller(t, c)
	culler.contact.note(time.Now().Add(-2 * contactGap))
	culler.sweep(t.Context(), kubetest.Noon, culler.policy)
	if writes := c.Writes(); len(writes) > 0 {
		t.Errorf("the writes are %v", writes)
	}
}
