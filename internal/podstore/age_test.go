package podstore

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func TestSortByAge(t *testing.T) {
	var records []*Record
	for _, created := range []time.Time{{}, kubetest.Noon, kubetest.Noon.Add(time.Second), kubetest.Noon.Add(-time.Hour)} {
		for _, id := range []string{"", "a", "abcdefgh", "abcdefgh1", "abcdefgh2", "abcdefgi", "b", "\xff"} {
			pod := kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.WithLabel(instance.IDLabel, id))
			pod.CreationTimestamp = metav1.NewTime(created)
			records = append(records, NewRecord(pod, testRules(), kubetest.Noon))
		}
	}
	want := slices.SortedFunc(slices.Values(records), func(a, b *Record) int { return a.CompareAge(b.Created, b.ID) })
	for range 20 {
		rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		SortByAge(records)
		if !slices.Equal(records, want) {
			t.Fatalf("got\n%v, want\n%v", records, want)
		}
	}
}
