package main

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/activity"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
)

// lifetimes are when instances were last used, and when they were deleted.
type lifetimes struct {
	mu      sync.Mutex
	used    map[string]time.Time
	deleted map[string]time.Time
}

// watchDeletes notes each delete at the API server, refused or not.
func (l *lifetimes) watchDeletes(server *kubetest.Server) {
	server.React("delete", "pods", func(action k8stesting.Action) (bool, runtime.Object, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		id := strings.TrimPrefix(action.(k8stesting.DeleteAction).GetName(), "binder-")
		l.deleted[id] = time.Now()
		return false, nil, nil
	})
}

// use is a visitor, at a replica, that uses an instance every so often until a
// time, unless it is gone.
func (l *lifetimes) use(id string, every time.Duration, until time.Time, replicas ...*activity.Tracker) {
	for n := 0; time.Now().Before(until); n++ {
		l.mu.Lock()
		if _, gone := l.deleted[id]; !gone {
			l.used[id] = time.Now()
			replicas[n%len(replicas)].Touch(id, instance.SourceHTTP)
		}
		l.mu.Unlock()
		time.Sleep(every)
	}
}

// wantDeleted checks when an instance was deleted: not before what it is due
// to, and not long after.
func (l *lifetimes) wantDeleted(t testing.TB, name, id string, due time.Time, within time.Duration) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	at, deleted := l.deleted[id]
	if late := at.Sub(due); !deleted || late < 0 || late > within {
		t.Errorf("%s: deleted %t, %s after it was due; want from 0s to %s", name, deleted, late, within)
	}
}

// TestLifetimes runs two replicas, of which one leads, for an hour and a half. Whichever
// replica an instance is used through, it lives until its cull timeout after
// that, and not much longer; also when a replica dies with what it knew.
func TestLifetimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			timeout  = 10 * time.Minute
			lag      = timeout/12 + 2*time.Second
			interval = 30 * time.Second // of the sweeps
		)
		began := time.Now()
		pod := func(n int) runtime.Object {
			return kubetest.Pod(kubetest.ID(n), began, kubetest.WithAnnotation(instance.CullTimeoutAnnotation, timeout.String()))
		}
		server := kubetest.NewServer(time.Now, pod(1), pod(2), pod(3), pod(4), pod(5), kubetest.Pod(kubetest.ID(6), began, kubetest.Unscheduled))
		seen := &lifetimes{used: map[string]time.Time{}, deleted: map[string]time.Time{}}
		seen.watchDeletes(server)
		leading, other := startCacheOn(t, server), startCacheOn(t, server)
		culler := newTestCuller(t, leading)
		culler.leads(t)
		runUntilEnd(t, culler.Run)
		leader, follower := leading.tracker(), other.tracker()
		runUntilEnd(t, leader.Run)
		kill := runUntilEnd(t, follower.Run)

		var visitors sync.WaitGroup
		killed := began.Add(time.Hour)
		visitors.Go(func() { seen.use(kubetest.ID(1), 7*time.Second, began.Add(90*time.Minute), leader) })
		visitors.Go(func() { seen.use(kubetest.ID(2), timeout-time.Second, killed, follower) })
		visitors.Go(func() { seen.use(kubetest.ID(3), 11*time.Second, killed, follower, leader) })
		visitors.Go(func() { // somebody mangles this one's annotation, twice
			for range 2 {
				time.Sleep(5 * time.Minute)
				patch := []byte(`{"metadata":{"annotations":{"` + instance.LastActivityAnnotation + `":"mangled"}}}`)
				_, err := server.Client.CoreV1().Pods(kubetest.Namespace).Patch(t.Context(), instance.PodName(kubetest.ID(5)), types.MergePatchType, patch, metav1.PatchOptions{})
				if err != nil {
					t.Error(err)
				}
			}
		})
		time.Sleep(time.Until(killed))
		kill() // and what it had not written is lost
		visitors.Wait()
		time.Sleep(timeout + 2*lag + interval)
		synctest.Wait()

		for name, id := range map[string]string{
			"used at the leader all the time": kubetest.ID(1), "used at the follower now and then": kubetest.ID(2), "used at both": kubetest.ID(3),
		} {
			// At most the lag of the annotation is added to that of the others'.
			seen.wantDeleted(t, name, id, seen.used[id].Add(timeout), lag+interval+time.Second)
		}
		seen.wantDeleted(t, "never used", kubetest.ID(4), began.Add(timeout+lag), interval)
		seen.wantDeleted(t, "mangled, and never used", kubetest.ID(5), began.Add(10*time.Minute+timeout+lag), 2*interval)
		seen.wantDeleted(t, "never started", kubetest.ID(6), began.Add(kubetest.StartTimeout+lifetime.FailedRetention), interval)
		culler.wantCounts(t, map[instance.EndReason]float64{instance.EndCulled: 5, instance.EndFailed: 1}, 0, 2)
	})
}
