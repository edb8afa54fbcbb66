package main

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestContact(t *testing.T) {
	at := func(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }
	for _, test := range []struct {
		name    string
		written []float64
		now     float64
		want    time.Time
	}{
		{"never stood", nil, 100, time.Time{}},
		{"steady", []float64{0, 2, 4, 6}, 7, time.Time{}},
		{"a write took its time", []float64{0, 3.9, 6}, 7, time.Time{}},
		{"was cut off", []float64{0, 2, 9, 11, 13}, 14, at(9)},
		{"was cut off twice", []float64{0, 9, 11, 20}, 21, at(20)},
		{"is cut off", []float64{0, 2}, 6.5, at(6.5)},
		{"was, and is", []float64{0, 9}, 14, at(14)},
	} {
		t.Run(test.name, func(t *testing.T) {
			var c contact
			for _, seconds := range test.written {
				c.note(at(seconds))
			}
			if got := c.cutOffUntil(at(test.now)); !got.Equal(test.want) {
				t.Errorf("cut off until %s, want %s", got, test.want)
			}
		})
	}
}

// An API server that is away for too short a time to lose the lead by is
// noticed all the same: each write of the Lease is told of, and no failed one.
func TestShortOutageIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newFakeServer(time.Now)
		var c contact
		opts := leaderOptions{namespace: "binder", lease: "lease", identity: "one", written: func() { c.note(time.Now()) }}
		ctx, cancel := context.WithCancel(t.Context())
		var standing sync.WaitGroup
		defer standing.Wait()
		defer cancel()
		metrics := NewMetrics("test")
		standing.Go(func() {
			if err := runElected(ctx, server.client, opts, metrics, noLog(), untilDone); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(20 * time.Second)
		if got := c.cutOffUntil(time.Now()); !got.IsZero() {
			t.Errorf("cut off until %s, and nothing has happened", got)
		}
		mend := server.failOn("update", "leases", errors.New("the API server is away"))
		time.Sleep(8 * time.Second)
		if now := time.Now(); !c.cutOffUntil(now).Equal(now) {
			t.Errorf("cut off until %s, and it is now", c.cutOffUntil(now))
		}
		mended := time.Now()
		mend()
		time.Sleep(20 * time.Second)
		if got := c.cutOffUntil(time.Now()); got.Before(mended) || got.After(mended.Add(retryPeriod+time.Second)) {
			t.Errorf("cut off until %s, want a moment after %s", got, mended)
		}
		if metric(t, metrics, "binder_leader") != 1 {
			t.Error("the lead was lost: the outage was not a short one")
		}
	})
}

// What looks idle for long when the API server is there again may have been in
// use meanwhile, at a replica that could not write it: it gets a period.
func TestCullerWaitsAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c := startCluster(t, time.Now, newPod(instanceID(1), began))
		culler := newTestCuller(t, c)
		defer culler.start()()
		for range 1910 { // up to a moment before it is idle for its timeout and the lag
			culler.contact.note(time.Now())
			time.Sleep(retryPeriod)
		}
		time.Sleep(8 * time.Second)
		for range 140 { // not quite five minutes, in which it comes to be
			culler.contact.note(time.Now())
			time.Sleep(retryPeriod)
		}
		synctest.Wait()
		if idle := time.Since(began); idle < 66*time.Minute {
			t.Fatalf("it is idle for %s only, and proves nothing", idle)
		}
		if writes := c.writes(); len(writes) > 0 {
			t.Errorf("culled within a period: %v", writes)
		}
		for range 60 {
			culler.contact.note(time.Now())
			time.Sleep(retryPeriod)
		}
		synctest.Wait()
		if inst, _ := c.Instance(instanceID(1)); inst.Reason != "Culled" {
			t.Errorf("in the end it is %+v, want it culled", inst)
		}
	})
}
