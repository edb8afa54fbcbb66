package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// What all fixtures have in common.
const (
	testNamespace    = "binder-instances"
	testStartTimeout = 5 * time.Minute
	testTemplate     = "jupyter"
	// patience limits every wait for something that comes at once.
	patience = 10 * time.Second
)

// noon is a time for tests that need no particular one.
var noon = time.Date(2026, time.January, 2, 12, 0, 0, 0, time.UTC)

// clockAt is a clock that stands still.
func clockAt(t time.Time) func() time.Time { return func() time.Time { return t } }

// instanceID is the id of the nth instance of a test.
func instanceID(n int) string { return fmt.Sprintf("%032x", n) }

// newPod is the pod of an instance that was created, became ready and was last
// used at a time, with changes made to it.
func newPod(id string, at time.Time, changes ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:              instance.PodName(id),
			Namespace:         testNamespace,
			UID:               types.UID("uid-of-" + id),
			ResourceVersion:   "7",
			CreationTimestamp: metav1.NewTime(at),
			Labels: map[string]string{
				instance.ManagedByLabel: instance.ManagerName, instance.IDLabel: id, instance.TemplateLabel: testTemplate, instance.TemplateHashLabel: "0123456789",
			},
			Annotations: map[string]string{
				instance.TemplateNameAnnotation: testTemplate, instance.LastActivityAnnotation: instance.FormatTime(at), instance.PortAnnotation: "8888",
			},
		},
		Spec: corev1.PodSpec{NodeName: "node-1", Containers: []corev1.Container{{Name: "notebook", Image: "jupyter:1"}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning,
			PodIP: "10.0.0.7",
			Conditions: []corev1.PodCondition{
				{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(at)},
				{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(at)},
			},
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: "notebook", Image: "jupyter:1",
				State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(at)}},
			}},
		},
	}
	for _, change := range changes {
		change(pod)
	}
	return pod
}

// unscheduled is a pod for which there is no node yet.
func unscheduled(pod *corev1.Pod) {
	pod.Spec.NodeName = ""
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodPending,
		Conditions: []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable",
			Message: "0/1 nodes are available", LastTransitionTime: pod.CreationTimestamp,
		}},
	}
}

// starting is a pod on a node that does not listen yet.
func starting(pod *corev1.Pod) {
	pod.Status.Phase = corev1.PodPending
	pod.Status.PodIP = ""
	pod.Status.Conditions[1].Status = corev1.ConditionFalse
	pod.Status.ContainerStatuses[0].State = waitingFor("ContainerCreating", "")
}

// broken is a pod whose container exited with code 1, at its creation.
func broken(pod *corev1.Pod) {
	pod.Status.Phase = corev1.PodFailed
	pod.Status.Conditions[1].Status = corev1.ConditionFalse
	pod.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: 1, Reason: "Error", FinishedAt: pod.CreationTimestamp,
	}}
}

// completed is a pod whose container exited with code 0, at its creation.
func completed(pod *corev1.Pod) {
	broken(pod)
	pod.Status.Phase = corev1.PodSucceeded
	pod.Status.ContainerStatuses[0].State.Terminated.ExitCode = 0
	pod.Status.ContainerStatuses[0].State.Terminated.Reason = "Completed"
}

// deleting is a pod that has been deleted and has not ended yet.
func deleting(pod *corev1.Pod) {
	pod.DeletionTimestamp = &pod.CreationTimestamp
}

func withLabel(key, value string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Labels[key] = value }
}

func withAnnotation(key, value string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Annotations[key] = value }
}

func lastUsed(at time.Time) func(*corev1.Pod) {
	return withAnnotation(instance.LastActivityAnnotation, instance.FormatTime(at))
}

func launchedOn(at time.Time) func(*corev1.Pod) {
	return withAnnotation(instance.LaunchedAnnotation, instance.FormatTime(at))
}

func ofTemplate(name string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Labels[instance.TemplateLabel], pod.Annotations[instance.TemplateNameAnnotation] = instance.TemplateLabelValue(name), name
	}
}

func waitingFor(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

// newTemplate is a template of one container that listens on 8888, with changes
// made to it.
func newTemplate(name string, changes ...func(*corev1.PodTemplate)) *corev1.PodTemplate {
	template := &corev1.PodTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: testNamespace, Annotations: map[string]string{}},
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "notebook", Image: "jupyter:1", Ports: []corev1.ContainerPort{{ContainerPort: 8888}},
		}}}},
	}
	for _, change := range changes {
		change(template)
	}
	return template
}

func withTemplateAnnotation(key, value string) func(*corev1.PodTemplate) {
	return func(template *corev1.PodTemplate) { template.Annotations[key] = value }
}

// tombstoneOf is the Event that remembers a pod's instance, as the API server
// would return it.
func tombstoneOf(t testing.TB, pod *corev1.Pod, reason instance.EndReason, message string) *corev1.Event {
	t.Helper()
	raw, err := json.Marshal(newTombstone(pod, testNamespace, reason, message, pod.CreationTimestamp.Add(time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	event := &corev1.Event{}
	if err := json.Unmarshal(raw, event); err != nil {
		t.Fatal(err)
	}
	return event
}

// testCluster is a read model that runs, on a fake API server.
type testCluster struct {
	*Cluster
	*fakeServer
}

// startCluster starts a read model on a fake API server with objects in it, and
// returns when it has read them and watches. It ends with the test.
func startCluster(t testing.TB, now func() time.Time, objects ...runtime.Object) *testCluster {
	t.Helper()
	return startClusterOn(t, newFakeServer(now, objects...))
}

// startClusterOn starts one more read model on a fake API server.
func startClusterOn(t testing.TB, server *fakeServer) *testCluster {
	t.Helper()
	watches := len(server.calls("watch"))
	cluster, err := NewCluster(server.client, ClusterOptions{
		Namespace: "binder", InstancesNamespace: testNamespace, ProxyService: "binder-proxy", StartTimeout: testStartTimeout,
		Policy: cullPolicy{cullTimeout: time.Hour, startTimeout: testStartTimeout},
	}, server.now)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { cluster.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	eventually(t, "the caches have synced and the watches are open", func() bool {
		return cluster.Synced() && len(server.calls("watch")) >= watches+len(cluster.informers())
	})
	return &testCluster{Cluster: cluster, fakeServer: server}
}

// put creates or replaces a pod at the fake API server, under a new
// resourceVersion, and returns when the cache has it.
func (c *testCluster) put(t testing.TB, pod *corev1.Pod) {
	t.Helper()
	pod = pod.DeepCopy()
	pod.ResourceVersion = c.nextVersion()
	tracker := c.client.Tracker()
	err := tracker.Update(podResource, pod, pod.Namespace)
	if apierrors.IsNotFound(err) {
		err = tracker.Add(pod)
	}
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cache has pod "+pod.Name, func() bool {
		cached, ok := lookup[*corev1.Pod](c.pods, pod.Namespace+"/"+pod.Name)
		return ok && cached.ResourceVersion == pod.ResourceVersion
	})
}

// drop takes a pod away at the fake API server, and returns when it is no
// longer in the cache.
func (c *testCluster) drop(t testing.TB, id string) {
	t.Helper()
	if err := c.client.Tracker().Delete(podResource, testNamespace, instance.PodName(id)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cache has lost pod "+instance.PodName(id), func() bool {
		_, ok := c.Pod(id)
		return !ok
	})
}

// eventually waits for a condition, and fails the test when it does not come.
func eventually(t testing.TB, what string, met func() bool) {
	t.Helper()
	limit := time.Now().Add(patience)
	for !met() {
		if time.Now().After(limit) {
			t.Fatalf("after %s it is still not so that %s", patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}

// metric is the value of a series, whose labels have these values in the order
// of their names; of a histogram, how much was observed.
func metric(t testing.TB, m *Metrics, name string, labels ...string) float64 {
	t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, series := range family.GetMetric() {
			var values []string
			for _, label := range series.GetLabel() {
				values = append(values, label.GetValue())
			}
			if family.GetName() == name && slices.Equal(values, labels) {
				// All but one of these are nil, and so 0.
				return series.GetCounter().GetValue() + series.GetGauge().GetValue() + float64(series.GetHistogram().GetSampleCount())
			}
		}
	}
	t.Fatalf("there is no metric %s with labels %q", name, labels)
	return 0
}

// logBuffer holds what a logger wrote; any goroutine may write and read.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// recordLog is a logger of every level, and what it has written, as text.
func recordLog() (*slog.Logger, *logBuffer) {
	b := &logBuffer{}
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug})), b
}

// noLog is a logger that nobody reads.
func noLog() *slog.Logger { return slog.New(slog.DiscardHandler) }
