package main

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// Only what is ours is read, and from two namespaces only: the Role allows no
// more. A namespace and a selector for each resource.
func TestCacheWatchesOnlyItsOwn(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon))
	want := map[string]string{
		"pods":         "binder-instances app.kubernetes.io/managed-by=binder-deploy-kubernetes ",
		"events":       "binder-instances app.kubernetes.io/managed-by=binder-deploy-kubernetes ",
		"podtemplates": "binder-instances  ",
		"daemonsets":   "binder-instances app.kubernetes.io/managed-by=binder-deploy-kubernetes ",
		"services":     "binder  metadata.name=binder-proxy",
	}
	verbs := map[string][]string{}
	for _, action := range c.Client.Actions() {
		var opts metav1.ListOptions
		switch action := action.(type) {
		case k8stesting.ListActionImpl:
			opts = action.ListOptions
		case k8stesting.WatchActionImpl:
			opts = action.ListOptions
		}
		resource := action.GetResource().Resource
		verbs[resource] = append(verbs[resource], action.GetVerb())
		got := strings.Join([]string{action.GetNamespace(), opts.LabelSelector, opts.FieldSelector}, " ")
		if got != want[resource] {
			t.Errorf("%s %s: got %q, want %q", action.GetVerb(), resource, got, want[resource])
		}
	}
	for resource := range want {
		if got, want := verbs[resource], []string{"list", "watch"}; !slices.Equal(got, want) {
			t.Errorf("calls of %s are %v, want %v", resource, got, want)
		}
	}
}

func TestCacheSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := kubetest.NewServer(time.Now, kubetest.Pod(kubetest.ID(1), time.Now()))
		// Of all errors this is the one that client-go does not slow down by a
		// clock from outside the bubble.
		mend := server.FailOn("list", "podtemplates", apierrors.NewResourceExpired("too old resource version"))
		cluster, err := NewCache(server.Client, CacheOptions{InstancesNamespace: kubetest.Namespace}, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		if cluster.Synced() {
			t.Error("synced before it runs")
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { cluster.Run(ctx) })
		time.Sleep(time.Minute)
		if cluster.Synced() {
			t.Error("synced although the templates could not be read")
		}
		if _, known := cluster.Instance(kubetest.ID(1)); !known {
			t.Error("what could be read is not known")
		}
		mend()
		time.Sleep(2 * time.Minute) // above the longest pause between two attempts
		if !cluster.Synced() {
			t.Error("not synced although everything can be read")
		}
		cancel()
		running.Wait() // or the bubble reports a deadlock
	})
}

func TestOnPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCache(t, time.Now, kubetest.Pod(kubetest.ID(1), kubetest.Noon))
		var heard []string
		hear := func(what string) func(*corev1.Pod) {
			return func(pod *corev1.Pod) { heard = append(heard, what+" "+pod.Labels[instance.IDLabel][31:]) }
		}
		if err := c.OnPod(hear("updated"), hear("gone")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.put(t, kubetest.Pod(kubetest.ID(2), kubetest.Noon))
		c.put(t, kubetest.Pod(kubetest.ID(2), kubetest.Noon, kubetest.Starting))
		c.put(t, kubetest.Pod(kubetest.ID(3), kubetest.Noon, kubetest.WithLabel(instance.PoolLabel, "warm"))) // nobody's
		c.drop(t, kubetest.ID(2))
		c.Client.Tracker().Delete(kubetest.PodResource, kubetest.Namespace, instance.PodName(kubetest.ID(3)))
		synctest.Wait()
		if want := []string{"updated 1", "updated 2", "updated 2", "gone 2"}; !slices.Equal(heard, want) {
			t.Errorf("heard %v, want %v", heard, want)
		}
	})
}

func TestOnPodAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, err := NewCache(kubetest.NewServer(time.Now).Client, CacheOptions{}, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		cluster.Run(ctx)
		nothing := func(*corev1.Pod) {}
		if err := cluster.OnPod(nothing, nothing); err == nil {
			t.Error("a handler that will never be called is no error")
		}
	})
}

// A pod that is deleted while the watch is broken is missed when all is read
// again: then too its end is told, and who waits for it is woken.
func TestPodDeletedDuringABrokenWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := kubetest.NewServer(time.Now, kubetest.Pod(kubetest.ID(1), kubetest.Noon))
		broken := server.BreakFirstPodWatch()
		c := startCacheOn(t, server)
		var gone []string
		err := c.OnPod(func(*corev1.Pod) {}, func(pod *corev1.Pod) { gone = append(gone, pod.Labels[instance.IDLabel]) })
		if err != nil {
			t.Fatal(err)
		}
		changed, stop := c.waiters.Add(kubetest.ID(1))
		defer stop()

		if err := c.Client.Tracker().Delete(kubetest.PodResource, kubetest.Namespace, instance.PodName(kubetest.ID(1))); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(gone) > 0 || woken(changed) {
			t.Fatal("the watch is not broken")
		}
		broken.Expire()
		time.Sleep(2 * time.Minute) // above the longest pause between two attempts
		synctest.Wait()
		if !slices.Equal(gone, []string{kubetest.ID(1)}) {
			t.Errorf("gone are %v, want the one", gone)
		}
		if !woken(changed) {
			t.Error("who waits for a change was not woken")
		}
		if _, known := c.Instance(kubetest.ID(1)); known {
			t.Error("the instance is still known")
		}
	})
}

// woken reports whether a wake-up is there to be received, and receives it.
func woken(changed <-chan struct{}) bool {
	select {
	case <-changed:
		return true
	default:
		return false
	}
}

func isDeployed(inst instance.Instance, known bool) bool {
	return known && inst.Status == instance.StatusDeployed
}

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCache(t, time.Now, kubetest.Pod(kubetest.ID(1), time.Now(), kubetest.Starting))
		for _, test := range []struct {
			name   string
			id     string
			change *corev1.Pod     // after a second; nil for none
			want   instance.Status // "" for unknown
			after  time.Duration
		}{
			{"deployed already", kubetest.ID(2), nil, instance.StatusDeployed, 0},
			{"comes to be deployed", kubetest.ID(1), kubetest.Pod(kubetest.ID(1), time.Now()), instance.StatusDeployed, time.Second},
			{"comes to be known", kubetest.ID(3), kubetest.Pod(kubetest.ID(3), time.Now()), instance.StatusDeployed, time.Second},
			{"a change that is not it", kubetest.ID(4), kubetest.Pod(kubetest.ID(4), time.Now(), kubetest.Starting), instance.StatusDeploying, time.Minute},
			{"another's change", kubetest.ID(5), kubetest.Pod(kubetest.ID(6), time.Now()), "", time.Minute},
			{"never", kubetest.ID(7), nil, "", time.Minute},
		} {
			if test.want == instance.StatusDeployed && test.change == nil {
				c.put(t, kubetest.Pod(test.id, time.Now()))
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			var changing sync.WaitGroup
			changing.Go(func() {
				time.Sleep(time.Second)
				if test.change != nil {
					c.put(t, test.change)
				}
			})
			began := time.Now()
			inst, known := c.Await(ctx, test.id, isDeployed)
			if took := time.Since(began); took != test.after {
				t.Errorf("%s: took %s, want %s", test.name, took, test.after)
			}
			if inst.Status != test.want || known != (test.want != "") {
				t.Errorf("%s: got %+v, %t; want status %q", test.name, inst, known, test.want)
			}
			cancel()
			changing.Wait()
		}
		for n := range 8 {
			if c.waiters.Any(kubetest.ID(n)) {
				t.Errorf("somebody still waits for instance %d", n)
			}
		}
	})
}

// A tombstone is a change too.
func TestAwaitATombstone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCache(t, time.Now)
		var waiting sync.WaitGroup
		waiting.Go(func() {
			inst, known := c.Await(t.Context(), kubetest.ID(1), func(_ instance.Instance, known bool) bool { return known })
			if !known || inst.Status != instance.StatusDeleted {
				t.Errorf("got %+v, %t", inst, known)
			}
		})
		synctest.Wait()
		event := kubetest.Tombstone(kubetest.Pod(kubetest.ID(1), kubetest.Noon), instance.EndCulled, "")
		if err := c.Client.Tracker().Add(event); err != nil {
			t.Fatal(err)
		}
		waiting.Wait()
	})
}

// What the watch brings between the first look and the waiting is not missed.
func TestAwaitLooksAgain(t *testing.T) {
	c := startCache(t, kubetest.ClockAt(kubetest.Noon))
	looks := 0
	_, known := c.Await(t.Context(), kubetest.ID(1), func(_ instance.Instance, known bool) bool {
		if looks++; looks == 1 {
			c.put(t, kubetest.Pod(kubetest.ID(1), kubetest.Noon)) // nobody waits yet who could be woken
		}
		return known
	})
	if !known {
		t.Error("the instance is not known")
	}
}
