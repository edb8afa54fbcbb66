package podstore

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func TestUsualStart(t *testing.T) {
	store := New(testRules(), func() time.Time { return kubetest.Noon })
	if got := store.UsualStart(kubetest.TemplateName); got != 0 {
		t.Errorf("without instances: got %s", got)
	}
	add := func(n int, age, start time.Duration, changes ...func(*corev1.Pod)) {
		created := kubetest.Noon.Add(-age)
		changes = append([]func(*corev1.Pod){kubetest.ReadySince(created.Add(start))}, changes...)
		if err := store.Add(store.Record(kubetest.Pod(kubetest.ID(n), created, changes...))); err != nil {
			t.Fatal(err)
		}
	}
	add(1, time.Hour, 5*time.Second)
	add(2, time.Hour, 9*time.Second)
	add(3, 2*time.Hour, time.Hour)                                                                                                             // it was restarted
	add(4, time.Hour, time.Second, kubetest.Broken)                                                                                            // it does not serve
	add(5, time.Hour, time.Second, kubetest.WithAnnotation(instance.LaunchedAnnotation, instance.FormatTime(kubetest.Noon.Add(-time.Minute)))) // from a pool
	// What has waited for a place began to start when it got it; one without a gate does not tell.
	waited := func(place time.Duration, scheduled int) []func(*corev1.Pod) {
		return []func(*corev1.Pod){
			kubetest.WithLabel(instance.QueueLabel, instance.QueueAdmitted),
			kubetest.WithAnnotation(instance.LaunchedAnnotation, instance.FormatTime(kubetest.Noon.Add(-time.Hour+place))),
			func(pod *corev1.Pod) {
				instance.Condition(pod, corev1.PodScheduled).LastTransitionTime = metav1.NewTime(kubetest.Noon.Add(-time.Hour + time.Duration(scheduled)*time.Second))
			},
		}
	}
	add(7, time.Hour, 67*time.Second, waited(time.Minute, 60)...)
	add(8, time.Hour, 67*time.Second, waited(time.Minute, 61)...)
	add(9, time.Hour, 61*time.Second, waited(time.Minute, 1)...)
	add(6, time.Hour, -time.Second) // by a clock that is behind
	if got := store.UsualStart(kubetest.TemplateName); got != 7*time.Second {
		t.Errorf("got %s, want the median", got)
	}
	for i := range startsRead { // newer ones
		add(100+i, time.Minute, 20*time.Second)
	}
	if got := store.UsualStart(kubetest.TemplateName); got != 20*time.Second {
		t.Errorf("got %s, want that of the newest", got)
	}
}
