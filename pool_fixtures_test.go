package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

const (
	poolNamespace    = "binder-instances"
	poolStartTimeout = 5 * time.Minute
)

// poolNoon is a time for tests that need no particular one.
var poolNoon = time.Date(2026, time.March, 4, 12, 0, 0, 0, time.UTC)

// poolTemplate is a template of one container with a pool of a size.
func poolTemplate(name, size string) *corev1.PodTemplate {
	return &corev1.PodTemplate{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: poolNamespace, Annotations: map[string]string{instance.PoolSizeAnnotation: size},
		},
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app:1"}}}},
	}
}

// poolPod is the nth warm pod of a template, created at a time and Ready a
// second later, with changes made to it.
func poolPod(t testing.TB, template *corev1.PodTemplate, n int, created time.Time, changes ...func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	pod, err := podtemplate.NewWarmPod(template, fmt.Sprintf("%032x", n))
	if err != nil {
		t.Fatal(err)
	}
	pod.UID = types.UID("uid-of-" + pod.Name)
	pod.ResourceVersion = "5"
	pod.CreationTimestamp = metav1.NewTime(created)
	poolReady(created.Add(time.Second))(pod)
	for _, change := range changes {
		change(pod)
	}
	return pod
}

func poolReady(at time.Time) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Spec.NodeName = "node-1"
		pod.Status = corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "10.0.0.9",
			Conditions: []corev1.PodCondition{
				{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(at)},
				{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(at)},
			},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}},
		}
	}
}

func poolStarting(pod *corev1.Pod) {
	pod.Status.PodIP = ""
	pod.Status.Phase = corev1.PodPending
	pod.Status.Conditions[1].Status = corev1.ConditionFalse
	pod.Status.Conditions[1].LastTransitionTime = pod.CreationTimestamp
	poolWaiting("ContainerCreating")(pod)
}

func poolWaiting(reason string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
	}
}

func poolPhase(phase corev1.PodPhase) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		poolStarting(pod)
		pod.Status.Phase = phase
	}
}

func poolDeleting(pod *corev1.Pod) { pod.DeletionTimestamp = &pod.CreationTimestamp }

func poolRestarted(times int32) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Status.ContainerStatuses[0].RestartCount = times }
}

// poolServer is client-go's fake with what pools rely on: creation times, UIDs,
// resourceVersions, and conflicts.
type poolServer struct {
	client *fake.Clientset
	now    func() time.Time

	mu      sync.Mutex
	version int
	refuse  func(verb string, name string) error // nil for none
	writes  []string                             // "<verb> <pod>", those that succeeded
}

func newPoolServer(now func() time.Time, objects ...runtime.Object) *poolServer {
	s := &poolServer{client: fake.NewClientset(objects...), now: now, version: 100}
	s.client.PrependReactor("create", "pods", s.create)
	s.client.PrependReactor("patch", "pods", s.patch)
	s.client.PrependReactor("delete", "pods", s.delete)
	return s
}

var poolPods = corev1.SchemeGroupVersion.WithResource("pods")

// locked takes note of a write unless it is to be refused.
func (s *poolServer) locked(verb, name string, write func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		if err := s.refuse(verb, name); err != nil {
			return err
		}
	}
	if err := write(); err != nil {
		return err
	}
	s.writes = append(s.writes, verb+" "+name)
	return nil
}

func (s *poolServer) create(action k8stesting.Action) (bool, runtime.Object, error) {
	pod := action.(k8stesting.CreateAction).GetObject().(*corev1.Pod).DeepCopy()
	return true, pod, s.locked("create", pod.Name, func() error {
		s.version++
		pod.UID, pod.ResourceVersion = types.UID("uid-of-"+pod.Name), fmt.Sprint(s.version)
		pod.CreationTimestamp = metav1.NewTime(s.now())
		return s.client.Tracker().Create(poolPods, pod, poolNamespace)
	})
}

func (s *poolServer) get(name string) (*corev1.Pod, error) {
	obj, err := s.client.Tracker().Get(poolPods, poolNamespace, name)
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Pod).DeepCopy(), nil
}

func (s *poolServer) patch(action k8stesting.Action) (bool, runtime.Object, error) {
	patch := action.(k8stesting.PatchAction)
	var pod *corev1.Pod
	return true, pod, s.locked("patch", patch.GetName(), func() (err error) {
		if pod, err = s.get(patch.GetName()); err != nil {
			return err
		}
		var body struct {
			Metadata struct {
				ResourceVersion     string
				Labels, Annotations map[string]*string
			}
		}
		if err := json.Unmarshal(patch.GetPatch(), &body); err != nil {
			return err
		}
		if body.Metadata.ResourceVersion != pod.ResourceVersion {
			return apierrors.NewConflict(poolPods.GroupResource(), pod.Name, errors.New("another version"))
		}
		merge := func(into map[string]string, from map[string]*string) {
			for key, value := range from {
				if value == nil {
					delete(into, key)
				} else {
					into[key] = *value
				}
			}
		}
		merge(pod.Labels, body.Metadata.Labels)
		merge(pod.Annotations, body.Metadata.Annotations)
		return s.update(pod)
	})
}

func (s *poolServer) update(pod *corev1.Pod) error {
	s.version++
	pod.ResourceVersion = fmt.Sprint(s.version)
	return s.client.Tracker().Update(poolPods, pod, poolNamespace)
}

func (s *poolServer) delete(action k8stesting.Action) (bool, runtime.Object, error) {
	del := action.(k8stesting.DeleteActionImpl)
	return true, nil, s.locked("delete", del.Name, func() error {
		pod, err := s.get(del.Name)
		if err != nil {
			return err
		}
		only := del.DeleteOptions.Preconditions
		if only == nil || only.UID == nil || only.ResourceVersion == nil {
			return errors.New("a warm pod is deleted with no preconditions")
		}
		if *only.UID != pod.UID || *only.ResourceVersion != pod.ResourceVersion {
			return apierrors.NewConflict(poolPods.GroupResource(), pod.Name, errors.New("another version"))
		}
		return s.client.Tracker().Delete(poolPods, poolNamespace, pod.Name)
	})
}

// change writes to a pod as the kubelet would.
func (s *poolServer) change(t testing.TB, name string, change func(*corev1.Pod)) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	pod, err := s.get(name)
	if err == nil {
		change(pod)
		err = s.update(pod)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// pods are those that the server has.
func (s *poolServer) pods(t testing.TB) []corev1.Pod {
	t.Helper()
	list, err := s.client.CoreV1().Pods(poolNamespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// written are the writes of a kind that succeeded.
func (s *poolServer) written(verb string) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, write := range s.writes {
		if name, ok := strings.CutPrefix(write, verb+" "); ok {
			names = append(names, name)
		}
	}
	return names
}

func (s *poolServer) refusing(refuse func(verb, name string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = refuse
}

// poolCluster is a read model of the server that has not read anything yet; read
// starts it, and it ends with the test. What registers handlers comes in between.
func poolCluster(t testing.TB, server *poolServer) (cluster *Cluster, read func()) {
	t.Helper()
	cluster, err := NewCluster(server.client, ClusterOptions{
		Namespace: "binder", InstancesNamespace: poolNamespace, ProxyService: "binder-proxy", StartTimeout: poolStartTimeout,
	}, server.now)
	if err != nil {
		t.Fatal(err)
	}
	return cluster, func() {
		t.Helper()
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { cluster.Run(ctx) })
		t.Cleanup(func() {
			cancel()
			running.Wait()
		})
		poolEventually(t, "the caches have synced and the watches are open", func() bool {
			watches := 0
			for _, action := range server.client.Actions() {
				if action.GetVerb() == "watch" {
					watches++
				}
			}
			return cluster.Synced() && watches >= len(cluster.informers())
		})
	}
}

// poolEventually waits for a condition, and fails the test when it does not come.
func poolEventually(t testing.TB, what string, met func() bool) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); !met(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("it is still not so that %s", what)
		}
	}
}

// poolLog is a logger that nobody reads.
func poolLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

// poolMetric is the value of the series with a label, or of the one without any;
// of a histogram, how much was observed.
func poolMetric(t testing.TB, m *metrics.Metrics, name, label string) float64 {
	t.Helper()
	families, err := m.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, series := range family.GetMetric() {
			labels := series.GetLabel()
			if family.GetName() == name && (len(labels) == 0 && label == "" || len(labels) == 1 && labels[0].GetValue() == label) {
				// All but one of these are nil, and so 0.
				return series.GetCounter().GetValue() + series.GetGauge().GetValue() + float64(series.GetHistogram().GetSampleCount())
			}
		}
	}
	t.Fatalf("there is no metric %s with label %q", name, label)
	return 0
}
