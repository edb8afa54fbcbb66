package podstore

import (
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func BenchmarkNewRecord(b *testing.B) {
	pod, rules := kubetest.ServedPod(1), testRules()
	b.ReportAllocs()
	for b.Loop() {
		NewRecord(pod, rules, kubetest.Noon)
	}
}

func BenchmarkRecord(b *testing.B) {
	record, now := NewRecord(kubetest.ServedPod(1), testRules(), kubetest.Noon), kubetest.Noon.Add(time.Minute)
	b.Run("Pod", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			record.Pod()
		}
	})
	b.Run("Instance", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := record.Instance(now); !ok {
				b.Fatal("it is not answered")
			}
		}
	})
	b.Run("StaysAt", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !record.StaysAt(now) {
				b.Fatal("it does not stay")
			}
		}
	})
}
