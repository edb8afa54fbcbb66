package instance_test

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

func TestPhases(t *testing.T) {
	launched := time.Date(2026, 1, 2, 12, 0, 0, 400e6, time.UTC)
	second := func(n int) metav1.Time {
		return metav1.NewTime(launched.Truncate(time.Second).Add(time.Duration(n) * time.Second))
	}
	condition := func(kind corev1.PodConditionType, status corev1.ConditionStatus, n int) corev1.PodCondition {
		return corev1.PodCondition{Type: kind, Status: status, LastTransitionTime: second(n)}
	}
	running := func(n int) corev1.ContainerStatus {
		return corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: second(n)}}}
	}
	type times = []instance.PhaseTime
	for name, test := range map[string]struct {
		conditions []corev1.PodCondition
		containers []corev1.ContainerStatus
		want       times
	}{
		"all are noted": {
			[]corev1.PodCondition{condition(corev1.PodScheduled, corev1.ConditionTrue, 2), condition(corev1.PodReadyToStartContainers, corev1.ConditionTrue, 3)},
			[]corev1.ContainerStatus{running(5), running(9)},
			times{{instance.PhaseScheduled, 1600 * time.Millisecond}, {instance.PhaseSandbox, time.Second}, {instance.PhaseStarted, 6 * time.Second}, {instance.PhaseListening, time.Second}},
		},
		"in the second of the launch": {
			[]corev1.PodCondition{condition(corev1.PodScheduled, corev1.ConditionTrue, 0), condition(corev1.PodReadyToStartContainers, corev1.ConditionTrue, 0)},
			[]corev1.ContainerStatus{running(0)},
			times{{instance.PhaseScheduled, 0}, {instance.PhaseSandbox, 0}, {instance.PhaseStarted, 0}, {instance.PhaseListening, 9600 * time.Millisecond}},
		},
		"not all are noted": {
			[]corev1.PodCondition{condition(corev1.PodScheduled, corev1.ConditionTrue, 2), condition(corev1.PodReadyToStartContainers, corev1.ConditionFalse, 3)},
			[]corev1.ContainerStatus{running(5)},
			times{{instance.PhaseScheduled, 1600 * time.Millisecond}, {instance.PhaseStarted, 3 * time.Second}, {instance.PhaseListening, 5 * time.Second}},
		},
		"not all containers run yet": {
			[]corev1.PodCondition{condition(corev1.PodScheduled, corev1.ConditionTrue, 2)}, []corev1.ContainerStatus{running(5), {}}, nil,
		},
		"nothing is noted": {nil, nil, nil},
	} {
		pod := &corev1.Pod{Status: corev1.PodStatus{Conditions: test.conditions, ContainerStatuses: test.containers}}
		if got, ok := instance.Phases(pod, launched, second(10).Time); !slices.Equal(got, test.want) || ok != (test.want != nil) {
			t.Errorf("%s: got %v, %v, want %v", name, got, ok, test.want)
		}
	}
}
