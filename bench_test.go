package main

import (
	"fmt"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// filledCache returns a read model that has the pods of many instances, and does not run.
func filledCache(t testing.TB, instances int) *testCache {
	t.Helper()
	c := newTestCache(t, kubetest.NewServer(kubetest.ClockAt(kubetest.Noon.Add(time.Minute))))
	for n := range instances {
		noError(t, c.pods.Add(kubetest.ServedPod(n)))
	}
	return c
}

func BenchmarkCacheInstance(b *testing.B) {
	c, n := filledCache(b, 10_000), 0
	b.ReportAllocs()
	for b.Loop() {
		n = (n + 1) % 10_000
		if inst, ok := c.Instance(kubetest.ID(n)); !ok || inst.Status != instance.StatusDeployed {
			b.Fatal(inst)
		}
	}
}

func BenchmarkCacheInstances(b *testing.B) {
	c := filledCache(b, 10_000)
	b.ReportAllocs()
	for b.Loop() {
		if all := c.Instances(""); len(all) != 10_000 {
			b.Fatal(len(all))
		}
	}
}

// One look of the culler at 50,000 instances, none of which is due.
func BenchmarkJudgeAll(b *testing.B) {
	c := filledCache(b, 50_000)
	culler := newTestCuller(b, c)
	b.ReportAllocs()
	for b.Loop() {
		if work := culler.judgeAll(b.Context(), c.Server.Now()); len(work) > 0 {
			b.Fatal(work)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/50_000, "ns/instance")
}

func BenchmarkScrape(b *testing.B) {
	c := filledCache(b, 10_000)
	m := newTestMetrics()
	noError(b, registerCollectors(m, c.Cache, newTestCuller(b, c).Culler))
	for b.Loop() {
		if res := ask(m.Handler(), http.MethodGet, "/metrics", ""); res.Code != http.StatusOK {
			b.Fatal(res.Code)
		}
	}
}

// Memory of the read model for each instance.
func BenchmarkHeap(b *testing.B) {
	for _, instances := range []int{10_000, 50_000} {
		b.Run(fmt.Sprint(instances), func(b *testing.B) {
			for b.Loop() {
				before := liveHeap()
				c := filledCache(b, instances)
				for range c.EachEncoded("") { // it is kept
				}
				b.ReportMetric(float64(liveHeap()-before)/float64(instances), "B/instance")
				runtime.KeepAlive(c)
			}
		})
	}
}

// liveHeap returns how many bytes are in use.
func liveHeap() uint64 {
	runtime.GC()
	runtime.GC() // for what finalizers and weak pointers have held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
