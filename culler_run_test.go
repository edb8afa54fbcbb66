package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
)

// start runs the culler until the function it returns is called.
func (c testCuller) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

func TestCullerRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now()))
		culler := newTestCuller(t, c)
		stop := culler.start()
		time.Sleep(65 * time.Minute) // a timeout and a period
		synctest.Wait()
		if writes := c.Writes(); len(writes) > 0 {
			t.Errorf("culled early: %v", writes)
		}
		time.Sleep(time.Minute) // a tick and an interval
		synctest.Wait()
		if inst, known := c.Instance(kubetest.ID(1)); !known || inst.Status != instance.StatusDeleted || inst.Reason != "Culled" {
			t.Errorf("got %+v, %t; want it culled", inst, known)
		}
		stop()
	})
}

// An instance that is long idle when a term begins may be in use through a
// replica that was cut off: it gets a period, in each term anew.
func TestCullerRunBeginsWithAPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now().Add(-72*time.Hour)))
		culler := newTestCuller(t, c)
		for range 3 {
			stop := culler.start()
			time.Sleep(5 * time.Minute)
			stop()
		}
		if writes := c.Writes(); len(writes) > 0 {
			t.Errorf("culled in the first period: %v", writes)
		}
		stop := culler.start()
		time.Sleep(6 * time.Minute)
		stop()
		synctest.Wait()
		if inst, _ := c.Instance(kubetest.ID(1)); inst.Reason != "Culled" {
			t.Errorf("after the first period: got %+v, want it culled", inst)
		}
	})
}

// Who deletes a pod by other means leaves no tombstone: the leader does.
func TestCullerRemembersWhatOthersDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now()), kubetest.Pod(kubetest.ID(2), time.Now()))
		culler := newTestCuller(t, c)
		c.drop(t, kubetest.ID(1)) // nobody leads yet
		stop := culler.start()
		synctest.Wait()
		c.drop(t, kubetest.ID(2))
		synctest.Wait()
		if inst, known := c.Instance(kubetest.ID(1)); known {
			t.Errorf("who did not lead remembers %+v", inst)
		}
		inst, _ := c.Instance(kubetest.ID(2))
		if inst.Status != instance.StatusDeleted || inst.Reason != "Gone" || inst.Message != "the pod was deleted from outside this service" {
			t.Errorf("got %+v, want it gone", inst)
		}
		stop()
		culler.wantCounts(t, nil, 0, 0)
		c.put(t, kubetest.Pod(kubetest.ID(3), time.Now()))
		c.drop(t, kubetest.ID(3)) // nobody leads any longer
		synctest.Wait()
		if inst, known := c.Instance(kubetest.ID(3)); known || len(culler.gone) > 0 {
			t.Errorf("who no longer leads remembers %+v, %t, and holds %d more", inst, known, len(culler.gone))
		}
	})
}

// Also while a sweep takes long.
func TestCullerRemembersDuringASweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mangled := kubetest.Pod(kubetest.ID(1), time.Now(), kubetest.WithAnnotation(instance.LastActivityAnnotation, "mangled"))
		c := startCluster(t, time.Now, mangled, kubetest.Pod(kubetest.ID(2), time.Now()))
		culler := newTestCuller(t, c)
		release := make(chan struct{})
		var asked atomic.Int32
		culler.now = func() time.Time {
			if asked.Add(1) == 3 { // after the beginning and the tick: of the repair
				<-release
			}
			return time.Now()
		}
		stop := culler.start()
		time.Sleep(culler.interval)
		synctest.Wait()
		if got := asked.Load(); got != 3 {
			t.Fatalf("the time was asked for %d times: no sweep is held up", got)
		}
		c.drop(t, kubetest.ID(2))
		synctest.Wait()
		if inst, _ := c.Instance(kubetest.ID(2)); inst.Reason != "Gone" {
			t.Errorf("during the sweep it is known as %+v, want it gone", inst)
		}
		close(release)
		stop()
	})
}

// What is remembered for a better reason stays so.
func TestCullerKeepsWhatIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now()))
		culler := newTestCuller(t, c)
		defer culler.start()()
		pod, _ := c.Pod(kubetest.ID(1))
		if err := culler.remover.Remove(t.Context(), pod, instance.EndStopped, launch.StoppedMessage, false); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if inst, _ := c.Instance(kubetest.ID(1)); inst.Reason != "Stopped" || inst.Message != launch.StoppedMessage {
			t.Errorf("got %+v, want it stopped", inst)
		}
	})
}

func TestCullerCannotRemember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now()))
		culler := newTestCuller(t, c)
		defer culler.start()()
		c.FailOn("patch", "events", errors.New("the API server is away"))
		synctest.Wait()
		c.drop(t, kubetest.ID(1))
		synctest.Wait()
		if !strings.Contains(culler.log.String(), `level=ERROR msg="deleted instance not remembered" id=`+kubetest.ID(1)) {
			t.Errorf("not in the log:\n%s", culler.log)
		}
	})
}

// The informer's goroutine is not held up by more than can be remembered.
func TestNoticeGoneNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		culler := newTestCuller(t, startCluster(t, time.Now))
		culler.leading.Store(true) // and yet nobody takes from the queue
		for n := range goneQueue + 1 {
			culler.noticeGone(kubetest.Pod(kubetest.ID(n), time.Now()))
		}
		if len(culler.gone) != goneQueue {
			t.Errorf("%d are held, want %d", len(culler.gone), goneQueue)
		}
		if got := strings.Count(culler.log.String(), "level=WARN"); got != 1 {
			t.Errorf("%d warnings, want one:\n%s", got, culler.log)
		}
	})
}
