package main

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestForEach(t *testing.T) {
	for _, test := range []struct {
		items, limit int
		want         time.Duration // at a second an item
	}{
		{0, 3, 0}, {1, 3, time.Second}, {3, 3, time.Second}, {7, 3, 3 * time.Second}, {4, 1, 4 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			done := make([]atomic.Int64, test.items)
			items := make([]int, test.items)
			for i := range items {
				items[i] = i
			}
			var running, most atomic.Int64
			began := time.Now()
			forEach(items, test.limit, func(i int) {
				if now := running.Add(1); now > most.Load() {
					most.Store(now)
				}
				time.Sleep(time.Second)
				done[i].Add(1)
				running.Add(-1)
			})
			if got := time.Since(began); got != test.want {
				t.Errorf("%d items, %d at a time: took %s, want %s", test.items, test.limit, got, test.want)
			}
			if got := most.Load(); got > int64(test.limit) {
				t.Errorf("%d at a time, want at most %d", got, test.limit)
			}
			for i := range done {
				if got := done[i].Load(); got != 1 {
					t.Errorf("item %d was done %d times", i, got)
				}
			}
		})
	}
}
