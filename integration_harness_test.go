//go:build integration

package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/transport"

	"github.com/binder-project/binder-deploy-kubernetes/internal/activity"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/tombstone"

	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// The integration tests run parts of the service, or all of it, in this process
// and on a real API server. No node ever runs their pods, which a scheduling gate
// keeps away: the tests play the kubelet by writing the pods' status.

// kubeconfigVariable names the environment variable that says where the cluster
// is. Its user must be an administrator's.
const kubeconfigVariable = "BINDER_TEST_KUBECONFIG"

// testGate keeps the scheduler away from a pod.
const testGate = "binder-project.org/test"

// adminConfig is how the cluster is reached, as its administrator.
func adminConfig(t testing.TB) *rest.Config {
	t.Helper()
	path := os.Getenv(kubeconfigVariable)
	if path == "" {
		t.Fatalf("%s is not set: it must name the kubeconfig file of a cluster to test on", kubeconfigVariable)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatalf("%s: %v", kubeconfigVariable, err)
	}
	config.QPS = -1 // as the service has it
	return config
}

// connect makes a client whose requests go through the wrappers, the first of
// them being the nearest to the API server.
func connect(t testing.TB, config *rest.Config, wrappers ...transport.WrapperFunc) kubernetes.Interface {
	t.Helper()
	config = rest.CopyConfig(config)
	for _, wrapper := range wrappers {
		config.Wrap(wrapper)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// sandbox is a namespace of a test's own, and the administrator's view of it.
type sandbox struct {
	config    *rest.Config
	client    kubernetes.Interface
	namespace string
}

// newSandbox makes a namespace, with labels, that goes when the test ends.
func newSandbox(t testing.TB, labels map[string]string) *sandbox {
	t.Helper()
	config := adminConfig(t)
	client := connect(t, config)
	namespace, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "binder-test-", Labels: labels},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), kubetest.Patience)
		defer cancel()
		if err := client.CoreV1().Namespaces().Delete(ctx, namespace.Name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("namespace %s is left behind: %v", namespace.Name, err)
		}
	})
	// Without it no pod is let in, and the controller that makes it takes its time.
	_, err = client.CoreV1().ServiceAccounts(namespace.Name).Create(t.Context(),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	return &sandbox{config: config, client: client, namespace: namespace.Name}
}

// createPod makes the pod of an instance, and gives it the status that it would
// have were it one of newPod's.
func (s *sandbox) createPod(t testing.TB, id string, changes ...func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	want := kubetest.Pod(id, time.Now(), changes...)
	pod, err := s.client.CoreV1().Pods(s.namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: want.Name, Labels: want.Labels, Annotations: want.Annotations},
		Spec: corev1.PodSpec{
			SchedulingGates: []corev1.PodSchedulingGate{{Name: testGate}},
			Containers:      want.Spec.Containers,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s.setStatus(t, pod.Name, func(pod *corev1.Pod) {
		qos := pod.Status.QOSClass // given at creation, and for good
		pod.Status = want.Status
		pod.Status.QOSClass = qos
	})
}

// setStatus changes the status of a pod, as the kubelet does.
func (s *sandbox) setStatus(t testing.TB, name string, change func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	for {
		pod, err := s.client.CoreV1().Pods(s.namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		change(pod)
		pod, err = s.client.CoreV1().Pods(s.namespace).UpdateStatus(t.Context(), pod, metav1.UpdateOptions{})
		if err == nil {
			return pod
		}
		if !apierrors.IsConflict(err) {
			t.Fatal(err)
		}
	}
}

// ready makes a pod Ready at an address.
func (s *sandbox) ready(t testing.TB, id, ip string) {
	t.Helper()
	s.setStatus(t, instance.PodName(id), func(pod *corev1.Pod) {
		pod.Status.Phase, pod.Status.PodIP = corev1.PodRunning, ip
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{
			Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now(),
		})
	})
}

// touch writes a pod's last activity, as another replica does.
func (s *sandbox) touch(t testing.TB, id string, at time.Time) {
	t.Helper()
	s.annotate(t, id, instance.LastActivityAnnotation, instance.FormatTime(at))
}

// annotate sets an annotation of a pod, whatever it was.
func (s *sandbox) annotate(t testing.TB, id, key, value string) {
	t.Helper()
	patch := fmt.Sprintf(`{"metadata": {"annotations": {%q: %q}}}`, key, value)
	_, err := s.client.CoreV1().Pods(s.namespace).Patch(t.Context(), instance.PodName(id), types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// pod reads an instance's pod from the API server.
func (s *sandbox) pod(t testing.TB, id string) (*corev1.Pod, bool) {
	t.Helper()
	pod, err := s.client.CoreV1().Pods(s.namespace).Get(t.Context(), instance.PodName(id), metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return pod, err == nil
}

// deletePod deletes an instance's pod, as kubectl does.
func (s *sandbox) deletePod(t testing.TB, id string) {
	t.Helper()
	if err := s.client.CoreV1().Pods(s.namespace).Delete(t.Context(), instance.PodName(id), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// tombstone reads an instance's tombstone from the API server.
func (s *sandbox) tombstone(t testing.TB, id string) (*corev1.Event, bool) {
	t.Helper()
	event, err := s.client.CoreV1().Events(s.namespace).Get(t.Context(), instance.TombstoneName(id), metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return event, err == nil
}

// putTemplate makes a template for pods that no node runs.
func (s *sandbox) putTemplate(t testing.TB, template *corev1.PodTemplate) {
	t.Helper()
	template = template.DeepCopy()
	template.Namespace = s.namespace
	template.Template.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: testGate}}
	if _, err := s.client.CoreV1().PodTemplates(s.namespace).Create(t.Context(), template, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// replica is a read model on a client of its own, as each process has one, and
// what is put on top of it.
type replica struct {
	*Cache
	client    kubernetes.Interface
	namespace string
	traffic   *traffic
	now       func() time.Time
	metrics   *metrics.Metrics
	stop      func() // returns when the watches have ended; the client remains
}

// startReplica returns when the read model has read everything. It ends with
// the test, or with stop.
func (s *sandbox) startReplica(t testing.TB, now func() time.Time, wrappers ...transport.WrapperFunc) *replica {
	t.Helper()
	r := &replica{namespace: s.namespace, traffic: &traffic{}, now: now, metrics: newTestMetrics()}
	r.client = connect(t, s.config, append([]transport.WrapperFunc{r.traffic.wrap}, wrappers...)...)
	var err error
	r.Cache, err = NewCache(r.client, CacheOptions{
		Namespace: s.namespace, InstancesNamespace: s.namespace, ProxyService: "binder-proxy", Rules: testRules(),
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	r.stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(r.stop)
	kubetest.Eventually(t, "the caches have synced", r.Synced)
	return r
}

func (r *replica) podClient() typedcorev1.PodInterface { return r.client.CoreV1().Pods(r.namespace) }

func (r *replica) remover() *tombstone.Remover {
	return &tombstone.Remover{Client: r.client, Namespace: r.namespace, Now: r.now, Log: kubetest.NoLog()}
}

func (r *replica) tracker() *activity.Tracker {
	return activity.New(activity.Deps{
		Pods: r.podClient(), Cache: r.Cache, Rules: testRules(), Metrics: r.metrics, Log: kubetest.NoLog(), Now: r.now,
	})
}

func (r *replica) launcher(t testing.TB) *launch.Launcher {
	t.Helper()
	launcher, err := launch.New(launch.Deps{
		Pods: r.podClient(), Cache: r.Cache, Templates: r.Cache, Remover: r.remover(),
		RepeatableID: protocol.NewAPIKey("a key").InstanceID, StartTimeout: kubetest.StartTimeout,
		Metrics: r.metrics, Log: kubetest.NoLog(), Now: r.now, Random: rand.Reader,
	})
	if err != nil {
		t.Fatal(err)
	}
	return launcher
}

func (r *replica) culler(t testing.TB) *Culler {
	t.Helper()
	culler, err := NewCuller(CullerDeps{
		Pods: r.podClient(), Cache: r.Cache, Remover: r.remover(), Rules: testRules(), Hold: lifetime.NewHold(time.Hour),
		Interval: time.Second, Metrics: r.metrics, Log: kubetest.NoLog(), Now: r.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return culler
}

// awaitPod waits until the cache has a pod in the very version that the API
// server has, or none where there is none.
func (r *replica) awaitPod(t testing.TB, s *sandbox, id string) {
	t.Helper()
	eventuallyWithin(t, kubetest.Patience, "the cache is up to date on pod "+instance.PodName(id), func() bool {
		pod, exists := s.pod(t, id)
		cached, known := r.Pod(id)
		return known == exists && (!known || cached.ResourceVersion == pod.ResourceVersion)
	})
}

// putService makes a Service of a name, with no address of its own outside the
// cluster.
func (s *sandbox) putService(t testing.TB, name string) {
	t.Helper()
	_, err := s.client.CoreV1().Services(s.namespace).Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// eventuallyWithin is eventually with a limit of its own, and with pauses: for
// what is asked over the network, or takes the intervals of leader election or
// of client-go's retries.
func eventuallyWithin(t testing.TB, limit time.Duration, what string, met func() bool) {
	t.Helper()
	deadline := time.After(limit)
	check := time.NewTicker(20 * time.Millisecond)
	defer check.Stop()
	for !met() {
		select {
		case <-check.C:
		case <-deadline:
			t.Fatalf("after %s it is still not so that %s", limit, what)
		}
	}
}
