package main

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

const (
	waitNamespace    = "wait-instances"
	waitTemplate     = "echo"
	waitStartTimeout = 5 * time.Minute
	waitID           = "00000000000000000000000000000a17"
	// waitPatience limits what comes at once.
	waitPatience = 10 * time.Second
)

// waitCluster is a read model that runs on a fake API server.
type waitCluster struct {
	*Cluster
	client *fake.Clientset
}

// startWaitCluster returns when the read model watches; it ends with the test.
func startWaitCluster(t testing.TB, client *fake.Clientset) *waitCluster {
	t.Helper()
	return newWaitCluster(t, client).start(t)
}

func newWaitCluster(t testing.TB, client *fake.Clientset) *waitCluster {
	t.Helper()
	cluster, err := NewCluster(client, ClusterOptions{
		Namespace: "binder", InstancesNamespace: waitNamespace, ProxyService: "binder-proxy", StartTimeout: waitStartTimeout,
	}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return &waitCluster{cluster, client}
}

func (c *waitCluster) start(t testing.TB) *waitCluster {
	t.Helper()
	before := c.watches()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	waitUntil(t, "the cluster is watched", func() bool {
		return c.Synced() && c.watches()-before >= len(c.informers())
	})
	return c
}

func (c *waitCluster) watches() int {
	count := 0
	for _, action := range c.client.Actions() {
		if action.GetVerb() == "watch" {
			count++
		}
	}
	return count
}

// put makes a pod what it is at the fake API server, and returns when the read
// model has it.
func (c *waitCluster) put(t testing.TB, pod *corev1.Pod) {
	t.Helper()
	pods := c.client.CoreV1().Pods(waitNamespace)
	_, err := pods.Update(t.Context(), pod, metav1.UpdateOptions{})
	if err != nil {
		_, err = pods.Create(t.Context(), pod, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the cache has the pod", func() bool {
		cached, ok := c.Pod(pod.Labels[instance.IDLabel])
		return ok && cached.ResourceVersion == pod.ResourceVersion
	})
}

func waitUntil(t testing.TB, what string, met func() bool) {
	t.Helper()
	for limit := time.Now().Add(waitPatience); !met(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("after %s it is still not so that %s", waitPatience, what)
		}
	}
}

// waitPod is a pod on a node whose application does not listen yet, with a
// readiness probe of ours.
func waitPod(version string, changes ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: instance.PodName(waitID), Namespace: waitNamespace, UID: types.UID("uid-1"), ResourceVersion: version,
			CreationTimestamp: metav1.Now(),
			Labels:            map[string]string{instance.ManagedByLabel: instance.ManagerName, instance.IDLabel: waitID, instance.TemplateLabel: waitTemplate},
			Annotations: map[string]string{
				instance.TemplateNameAnnotation: waitTemplate, instance.PortAnnotation: "8888", instance.ReadyWhenAnnotation: instance.ReadyWhenListening,
			},
		},
		Spec: corev1.PodSpec{NodeName: "node-1"},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning,
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: "app", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
			}},
		},
	}
	for _, change := range changes {
		change(pod)
	}
	return pod
}

func waitHasIP(pod *corev1.Pod) { pod.Status.PodIP = "192.0.2.7" }

func waitReady(pod *corev1.Pod) {
	waitHasIP(pod)
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
}

func waitFailed(pod *corev1.Pod) {
	pod.Status.Phase = corev1.PodFailed
	pod.Status.Reason = "Evicted"
}

func waitDeleting(pod *corev1.Pod) { pod.DeletionTimestamp = new(metav1.Now()) }

// waitLauncher launches what is there already.
type waitLauncher struct{ requests []launch.Request }

func (l *waitLauncher) Launch(_ context.Context, req launch.Request) (string, error) {
	l.requests = append(l.requests, req)
	return waitID, nil
}

func (l *waitLauncher) Stop(context.Context, string, string) error { return nil }

// waitAPI is an API over a read model, and what begins its draining.
func waitAPI(t testing.TB, instances InstanceReader) (*API, context.CancelFunc) {
	draining, drain := context.WithCancel(context.Background())
	t.Cleanup(drain)
	return &API{
		Instances: instances, Launcher: &waitLauncher{}, Key: protocol.NewAPIKey("key"), MaxCullTimeout: time.Hour,
		Location: func(id, _ string) string { return "binder.example/user/" + id },
		Draining: draining, Metrics: metrics.New("test", metricValues()), Log: slog.New(slog.DiscardHandler),
	}, drain
}

// waitAsk sends a request through all routes and returns the answer.
func waitAsk(api *API, method, path string, header ...string) *httptest.ResponseRecorder {
	return waitAskAs(context.Background(), api, method, path, header...)
}

func waitAskAs(ctx context.Context, api *API, method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	res := httptest.NewRecorder()
	api.Routes().ServeHTTP(res, r)
	return res
}
