package instance

import (
	"encoding/json"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A pod waits until somebody gives it a place: then its start counts from there, and the gates of
// others stay.
func TestQueuedPod(t *testing.T) {
	created := time.Date(2026, time.January, 2, 12, 0, 0, 0, time.UTC)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Labels: map[string]string{IDLabel: "0123456789abcdef0123456789abcdef"}, CreationTimestamp: metav1.NewTime(created),
			Annotations: LaunchAnnotations(created, time.Hour),
		},
		Spec: corev1.PodSpec{SchedulingGates: []corev1.PodSchedulingGate{{Name: "example.com/budget"}}},
	}
	if IsQueued(pod) {
		t.Error("it waits from the start")
	}
	Enqueue(pod)
	Enqueue(pod)
	if len(pod.Spec.SchedulingGates) != 2 || !IsQueued(pod) {
		t.Errorf("queued %t with the gates %v", IsQueued(pod), pod.Spec.SchedulingGates)
	}
	late := created.Add(time.Hour)
	inst := FromPod(pod, nil, late, time.Minute)
	if inst.Status != StatusPending || inst.Reason != ReasonQueued || inst.Message == "" || inst.Fault != "" {
		t.Errorf("an hour later, it is %+v", inst)
	}
	metadata, spec := Admission(pod, late, time.Hour)
	patch, err := json.Marshal(map[string]any{"metadata": metadata, "spec": spec})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"metadata":{"annotations":{"binder-project.org/last-activity":"2026-01-02T13:00:00.000Z",` +
		`"binder-project.org/last-activity-source":"launch","binder-project.org/launched":"2026-01-02T13:00:00.000Z"},` +
		`"labels":{"binder-project.org/queue":"admitted"}},"spec":{"schedulingGates":[{"name":"example.com/budget"}]}}`
	if string(patch) != want {
		t.Errorf("the patch is %s, want %s", patch, want)
	}
	pod.Labels[QueueLabel] = QueueAdmitted
	if !IsQueued(pod) {
		t.Error("it does not wait, though the gate is there")
	}
	pod.Spec.SchedulingGates = pod.Spec.SchedulingGates[:1]
	pod.Annotations[LaunchedAnnotation] = FormatTime(late)
	for _, row := range []struct {
		after time.Duration
		want  Status
	}{{0, StatusPending}, {time.Minute, StatusPending}, {time.Minute + ReportLag, StatusFailed}} {
		if inst := FromPod(pod, nil, late.Add(row.after), time.Minute); inst.Status != row.want || !inst.Launched.Equal(late) {
			t.Errorf("%s after its admission it is %s, launched %s; want %s", row.after, inst.Status, inst.Launched, row.want)
		}
	}
}

// A warm pod that was claimed for a launch that waits is nobody's until it has its place, though it
// is ready.
func TestQueuedWarmPod(t *testing.T) {
	now := time.Now()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{QueueLabel: QueueWaiting}, CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "192.0.2.1", Conditions: []corev1.PodCondition{
			{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour))},
		}},
	}
	if inst := FromPod(pod, nil, now, time.Minute); inst.Status != StatusPending || inst.Reason != ReasonQueued || inst.Address != "" {
		t.Errorf("it is %+v", inst)
	}
	metadata, spec := Admission(pod, now, time.Hour)
	if spec["activeDeadlineSeconds"] != int64(3*3600) || metadata["labels"] == nil { // an hour old, its max age, and the margin
		t.Errorf("its admission writes %v, %v", metadata, spec)
	}
	pod.Labels[QueueLabel] = QueueAdmitted
	if inst := FromPod(pod, nil, now, time.Minute); inst.Status != StatusDeployed || inst.Address == "" {
		t.Errorf("admitted, it is %+v", inst)
	}
}

// While an instance that had to wait starts, it tells for how long it has waited.
func TestWaited(t *testing.T) {
	created := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	place := created.Add(90*time.Second + 250*time.Millisecond)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Labels: map[string]string{QueueLabel: QueueWaiting}, CreationTimestamp: metav1.NewTime(created), Annotations: LaunchAnnotations(created, 0),
	}}
	if waited := FromPod(pod, nil, created.Add(time.Minute), time.Minute).Waited; waited != 0 {
		t.Errorf("without its place, it says that it has waited for %s", waited)
	}
	pod.Labels[QueueLabel], pod.Annotations = QueueAdmitted, LaunchAnnotations(place, 0)
	if inst := FromPod(pod, nil, place, time.Minute); inst.Waited != 90250*time.Millisecond || inst.Status != StatusPending {
		t.Errorf("with its place, it is %+v", inst)
	}
	pod.Labels = nil // never queued, such as a warm pod
	if waited := FromPod(pod, nil, place, time.Minute).Waited; waited != 0 {
		t.Errorf("without a queue, it says that it has waited for %s", waited)
	}
}

func TestQueuedMessage(t *testing.T) {
	for ahead, want := range map[int]string{
		0: "Waiting for a free place: the next one is yours.", 3: "Waiting for a free place: 3 before you.",
	} {
		if got := QueuedMessage(ahead); got != want {
			t.Errorf("%d ahead: %q", ahead, got)
		}
	}
}
