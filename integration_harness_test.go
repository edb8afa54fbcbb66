//go:build integration

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/transport"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// The integration tests run the service or its parts in this process, on a real API
// server. A scheduling gate keeps their pods from nodes, and the tests write the status
// that a kubelet would write.

// kubeconfigVariable is the environment variable with the path of an administrator's
// kubeconfig.
const kubeconfigVariable = "BINDER_TEST_KUBECONFIG"

// testGate keeps the scheduler away from a pod.
const testGate = "binder-project.org/test"

// adminConfig returns the administrator's configuration.
func adminConfig(t testing.TB) *rest.Config {
	t.Helper()
	path := os.Getenv(kubeconfigVariable)
	if path == "" {
		t.Fatalf("%s is not set: it must be the path of a kubeconfig", kubeconfigVariable)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatalf("%s: %v", kubeconfigVariable, err)
	}
	config.QPS = -1 // like the service
	return config
}

// connect returns a client whose requests go through wrappers. The first is the nearest to
// the API server.
func connect(t testing.TB, config *rest.Config, wrappers ...transport.WrapperFunc) kubernetes.Interface {
	t.Helper()
	config = rest.CopyConfig(config)
	for _, wrapper := range wrappers {
		config.Wrap(wrapper)
	}
	client, err := kubernetes.NewForConfig(config)
	noError(t, err)
	return client
}

// sandbox is a namespace for one test, with the administrator's access to it.
type sandbox struct {
	config    *rest.Config
	client    kubernetes.Interface
	namespace string
}

// parallelSandbox creates a namespace for a test that runs in parallel with others.
func parallelSandbox(t *testing.T) *sandbox {
	t.Parallel()
	return newSandbox(t, nil)
}

// newSandbox creates a namespace with labels. It is deleted when the test ends.
func newSandbox(t testing.TB, labels map[string]string) *sandbox {
	t.Helper()
	config := adminConfig(t)
	client := connect(t, config)
	namespace, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "binder-test-", Labels: labels},
	}, metav1.CreateOptions{})
	noError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), kubetest.Patience)
		defer cancel()
		if err := client.CoreV1().Namespaces().Delete(ctx, namespace.Name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("namespace %s is left behind: %v", namespace.Name, err)
		}
	})
	// Pods need it, and the controller that creates it can be slow.
	_, err = client.CoreV1().ServiceAccounts(namespace.Name).Create(t.Context(),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	return &sandbox{config: config, client: client, namespace: namespace.Name}
}

// createPod creates the pod that kubetest.Pod returns, with its status.
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
	noError(t, err)
	return s.setStatus(t, pod.Name, func(pod *corev1.Pod) {
		qos := pod.Status.QOSClass // immutable
		pod.Status = want.Status
		pod.Status.QOSClass = qos
	})
}

// setStatus changes the status of a pod, as the kubelet does.
func (s *sandbox) setStatus(t testing.TB, name string, change func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	for {
		pod, err := s.client.CoreV1().Pods(s.namespace).Get(t.Context(), name, metav1.GetOptions{})
		noError(t, err)
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

// wantActivity checks the last activity on a pod.
func (s *sandbox) wantActivity(t testing.TB, id string, want time.Time) {
	t.Helper()
	pod, _ := s.pod(t, id)
	if at, err := instance.LastActivity(pod); err != nil || !at.Equal(want) {
		t.Errorf("the activity of %s is %s, %v; want %s", id, at, err, want)
	}
}

// annotate sets an annotation of a pod.
func (s *sandbox) annotate(t testing.TB, id, key, value string) {
	t.Helper()
	patch := fmt.Sprintf(`{"metadata": {"annotations": {%q: %q}}}`, key, value)
	_, err := s.client.CoreV1().Pods(s.namespace).Patch(t.Context(), instance.PodName(id), types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	noError(t, err)
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
	noError(t, s.client.CoreV1().Pods(s.namespace).Delete(t.Context(), instance.PodName(id), metav1.DeleteOptions{}))
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

// putTemplate creates a template with the scheduling gate.
func (s *sandbox) putTemplate(t testing.TB, template *corev1.PodTemplate) {
	t.Helper()
	template = template.DeepCopy()
	template.Namespace = s.namespace
	template.Template.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: testGate}}
	if _, err := s.client.CoreV1().PodTemplates(s.namespace).Create(t.Context(), template, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// replica is a running read model with a client of its own, and the parts on top of it.
type replica struct {
	*Cache
	parts
	traffic *traffic
	stop    func() // ends the watches and waits for them; the client remains
}

// startReplica returns when the read model has synced. It ends with the test.
func (s *sandbox) startReplica(t testing.TB, now func() time.Time, wrappers ...transport.WrapperFunc) *replica {
	t.Helper()
	seen := &traffic{}
	client := connect(t, s.config, append([]transport.WrapperFunc{seen.wrap}, wrappers...)...)
	cache, err := NewCache(CacheDeps{
		Client: client, Now: now,
		Namespace: s.namespace, InstancesNamespace: s.namespace, ProxyService: "binder-proxy", Rules: testRules(),
	})
	noError(t, err)
	stop := runUntilEnd(t, cache.Run)
	kubetest.Eventually(t, "the caches have synced", cache.Synced)
	return &replica{cache, parts{client, s.namespace, cache, newTestMetrics(), now}, seen, stop}
}

// startReplicas starts two replicas whose requests of a method to some paths are held back
// at gates.
func (s *sandbox) startReplicas(t testing.TB, now func(n int) func() time.Time, method, inPath string) ([]*replica, []*barrier) {
	t.Helper()
	var replicas []*replica
	gates := []*barrier{newBarrier(method, inPath), newBarrier(method, inPath)}
	for n, g := range gates {
		replicas = append(replicas, s.startReplica(t, now(n), g.wrap))
	}
	return replicas, gates
}

// awaitPod waits until the cache has the same version of a pod as the API server, or
// neither has it.
func (r *replica) awaitPod(t testing.TB, s *sandbox, id string) {
	t.Helper()
	eventuallyWithin(t, kubetest.Patience, "the cache is up to date on pod "+instance.PodName(id), func() bool {
		pod, exists := s.pod(t, id)
		cached, known := r.Pod(id)
		return known == exists && (!known || cached.ResourceVersion == pod.ResourceVersion)
	})
}

// awaitPods waits until replicas are up to date on instances 0 to n-1.
func (s *sandbox) awaitPods(t testing.TB, replicas []*replica, n int) {
	t.Helper()
	for i := range n {
		for _, r := range replicas {
			r.awaitPod(t, s, kubetest.ID(i))
		}
	}
}

// putService creates a Service.
func (s *sandbox) putService(t testing.TB, name string) {
	t.Helper()
	_, err := s.client.CoreV1().Services(s.namespace).Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	noError(t, err)
}

// eventuallyWithin is kubetest.Eventually with another limit, and with pauses for
// conditions that send requests.
func eventuallyWithin(t testing.TB, limit time.Duration, what string, met func() bool) {
	t.Helper()
	deadline := time.After(limit)
	check := time.NewTicker(20 * time.Millisecond)
	defer check.Stop()
	for !met() {
		select {
		case <-check.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// runningApp is the whole service, running.
type runningApp struct {
	*app
	log  *kubetest.LogBuffer
	stop func() // waits for the end; it can be called again
}

// startApp runs the service with additional flags. It ends with the test.
func (s *sandbox) startApp(t testing.TB, client kubernetes.Interface, flags ...string) *runningApp {
	t.Helper()
	return s.startAppOn(t, clusterOf(client), flags...)
}

// startAppOn is startApp with the clients of a cluster.
func (s *sandbox) startAppOn(t testing.TB, k *cluster, flags ...string) *runningApp {
	t.Helper()
	log, lines := kubetest.RecordLog()
	service, err := newApp(testConfig(t, append([]string{
		"--namespace=" + s.namespace, "--instances-namespace=" + s.namespace, "--drain-timeout=1s", "--cull-interval=200ms",
	}, flags...)...), k, newTestMetrics(), log, time.Now, rand.Reader)
	noError(t, err)
	a := &runningApp{log: lines, app: service}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %s:\n%s", a.config.Identity, lines)
		}
	})
	a.stop = runUntilEnd(t, func(ctx context.Context) {
		if err := a.run(ctx); err != nil {
			t.Errorf("the service ended with %v", err)
		}
	})
	return a
}

func (a *runningApp) awaitReady(t testing.TB) {
	t.Helper()
	eventuallyWithin(t, kubetest.Patience, "the service is ready", func() bool { return a.probe(t, "/readyz") == http.StatusOK })
}

// probe returns the code of an answer on the metrics port.
func (a *runningApp) probe(t testing.TB, path string) int {
	t.Helper()
	return call(t, http.MethodGet, a.url(metricsServer, path), "").code
}

// api sends an authorised request to the API.
func (a *runningApp) api(t testing.TB, method, path, body string) answer {
	t.Helper()
	return call(t, method, a.url(apiServer, path), body)
}

// visit loads a page of an instance.
func (a *runningApp) visit(t testing.TB, id string) answer {
	t.Helper()
	return call(t, http.MethodGet, a.url(proxyServer, instance.BaseURL(id)), "")
}

// launch starts an instance of the test's template, and returns its id.
func (a *runningApp) launch(t testing.TB, body string) string {
	t.Helper()
	got := a.api(t, http.MethodPost, "/applications/"+kubetest.TemplateName, body)
	var launched struct{ ID string }
	if err := json.Unmarshal([]byte(got.body), &launched); err != nil || got.code != http.StatusOK || !instance.ValidID(launched.ID) {
		t.Fatalf("a launch got %d %s, want 200 and an id", got.code, got.body)
	}
	return launched.ID
}

// launchServing launches an instance and makes it Ready.
func (a *runningApp) launchServing(t testing.TB, s *sandbox, body string) string {
	t.Helper()
	id := a.launch(t, body)
	s.ready(t, id, loopback(id))
	a.awaitStatus(t, id, instance.StatusDeployed)
	return id
}

// loopback returns an address of this machine for an instance: no two instances may have
// the same.
func loopback(id string) string {
	raw, _ := hex.DecodeString(id[:6])
	return netip.AddrFrom4([4]byte{127, raw[0], raw[1], raw[2]}).String()
}

// status asks for an instance; the result is zero if there is no record.
func (a *runningApp) status(t testing.TB, id string) (status protocol.StatusResponse) {
	t.Helper()
	got := a.api(t, http.MethodGet, "/applications/"+kubetest.TemplateName+"/"+id, "")
	switch got.code {
	case http.StatusOK:
		noError(t, json.Unmarshal([]byte(got.body), &status))
	case http.StatusNotFound:
	default:
		t.Fatalf("a status got %d %s", got.code, got.body)
	}
	return status
}

func (a *runningApp) awaitStatus(t testing.TB, id string, want instance.Status) (last protocol.StatusResponse) {
	t.Helper()
	eventuallyWithin(t, kubetest.Patience, "instance "+id+" is "+string(want), func() bool {
		last = a.status(t, id)
		return last.Status == want
	})
	return last
}

func (a *runningApp) leads(t testing.TB) bool {
	t.Helper()
	return metric(t, a.metrics, "binder_leader") == 1
}

// startPage starts an application that answers every request. A pod with an address of
// loopback and the returned port serves it.
func startPage(t testing.TB) (port string) {
	t.Helper()
	page := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "a notebook") }))
	page.Listener.Close()
	var err error
	page.Listener, err = net.Listen("tcp4", "0.0.0.0:0")
	noError(t, err)
	page.Start()
	t.Cleanup(page.Close)
	_, port, err = net.SplitHostPort(page.Listener.Addr().String())
	noError(t, err)
	return port
}

// A replica writes the activity that only it knows before it ends.
func TestIntegrationAppWritesActivityAtItsEnd(t *testing.T) {
	s := parallelSandbox(t)
	s.putTemplate(t, kubetest.Template(kubetest.TemplateName, kubetest.WithTemplateAnnotation(instance.PortAnnotation, startPage(t))))
	app := s.startApp(t, s.client)
	app.awaitReady(t)
	id := app.launchServing(t, s, "")
	used := time.Now()
	if got := app.visit(t, id); got.code != http.StatusOK || got.body != "a notebook" {
		t.Fatalf("the instance answered %d %q", got.code, got.body)
	}
	before, _ := s.pod(t, id)
	if at, err := instance.LastActivity(before); err != nil || at.After(used) {
		t.Fatalf("the activity is already %s, %v", at, err)
	}
	app.stop()
	after, _ := s.pod(t, id)
	if at, err := instance.LastActivity(after); err != nil || at.Before(used.Truncate(time.Millisecond)) {
		t.Errorf("the activity is %s, %v; want the use at %s", at, err, used)
	}
}

// A replica that starts while the API server is away waits for it and is not ready.
func TestIntegrationAppWaitsForTheAPIServer(t *testing.T) {
	s := parallelSandbox(t)
	way, config := forward(t, s.config)
	way.cut()
	app := s.startApp(t, connect(t, config))
	awaitCode(t, app.url(metricsServer, "/healthz"), http.StatusOK)
	wantEqual(t, "readyz", app.probe(t, "/readyz"), http.StatusServiceUnavailable)
	way.restore(t)
	app.awaitReady(t)
}

// A replica that is told to end while it waits ends.
func TestIntegrationAppEndsWhileItWaits(t *testing.T) {
	s := parallelSandbox(t)
	way, config := forward(t, s.config)
	way.cut()
	app := s.startApp(t, connect(t, config))
	ended := make(chan struct{})
	go func() {
		app.stop()
		close(ended)
	}()
	receive(t, ended)
}
