package controller_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/controller"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// run runs a term of a controller within a bubble. The first two reconciles of "bad"
// fail, and "timed" asks to be looked at again after a minute.
func run(c *controller.Controller, keys ...string) (reconciled func() []string, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	var seen []string
	failures := 0
	var running sync.WaitGroup
	running.Go(func() {
		c.Run(ctx, func() []string { return keys }, func(_ context.Context, key string) (time.Duration, error) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, key)
			if key == "bad" && failures < 2 {
				failures++
				return 0, errors.New("not now")
			}
			if key == "timed" {
				return time.Minute, nil
			}
			return 0, nil
		})
	})
	take := func() []string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		all := seen
		seen = nil
		slices.Sort(all)
		return all
	}
	return take, func() {
		cancel()
		running.Wait()
	}
}

func TestController(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, lines := kubetest.RecordLog()
		c := controller.New(controller.Deps{
			Subject: "test", Workers: 2, FirstRetry: time.Second, LongestRetry: 4 * time.Second, Log: log,
		})
		c.Enqueue("before any term")
		reconciled, stop := run(c, "a", "bad", "timed")
		want := func(when string, want ...string) {
			t.Helper()
			if got := reconciled(); !slices.Equal(got, want) {
				t.Errorf("%s: reconciled %q, want %q", when, got, want)
			}
		}
		want("the term begins", "a", "bad", "timed")
		time.Sleep(time.Second)
		want("the first retry", "bad")
		time.Sleep(2 * time.Second)
		want("the second retry, which succeeds", "bad")
		if got := strings.Count(lines.String(), "level=ERROR"); got != 2 {
			t.Errorf("%d errors are logged, want 2:\n%s", got, lines)
		}
		c.Enqueue("b")
		c.Enqueue("b")
		want("events", "b")
		time.Sleep(time.Minute)
		want("the time has come", "timed")
		stop()

		c.Enqueue("between two terms")
		reconciled, stop = run(c, "a")
		want("the next term begins", "a")
		stop()
	})
}

// What is under way when a term ends is waited for; what is queued is left alone.
func TestControllerEndsWithItsTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, lines := kubetest.RecordLog()
		c := controller.New(controller.Deps{Subject: "test", Workers: 1, FirstRetry: time.Second, LongestRetry: time.Second, Log: log})
		ctx, cancel := context.WithCancel(t.Context())
		reconciled := 0
		var running sync.WaitGroup
		running.Go(func() {
			c.Run(ctx, func() []string { return []string{"a", "b", "c"} }, func(ctx context.Context, _ string) (time.Duration, error) {
				reconciled++
				<-ctx.Done()
				return 0, ctx.Err()
			})
		})
		synctest.Wait()
		cancel()
		running.Wait()
		if reconciled != 1 || strings.Contains(lines.String(), "ERROR") {
			t.Errorf("%d keys were reconciled, want 1 and no error:\n%s", reconciled, lines)
		}
	})
}
