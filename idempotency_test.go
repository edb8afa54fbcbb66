package main

import (
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// retryLauncher is one replica's launcher; all replicas of a test share the
// API server and the key.
func retryLauncher(t testing.TB, client *fake.Clientset) (*launch.Launcher, *waitCluster) {
	t.Helper()
	cluster := newWaitCluster(t, client)
	launcher, err := launch.New(client.CoreV1().Pods(waitNamespace), cluster.Cluster, kubetest.StartTimeout, clusterTemplates{cluster.Cluster}, nil,
		metrics.New("test", metricValues()), slog.New(slog.DiscardHandler), time.Now, rand.Reader, protocol.NewAPIKey("key").InstanceID)
	if err != nil {
		t.Fatal(err)
	}
	cluster.start(t)
	return launcher, cluster
}

func retryTemplate(name string, annotations map[string]string) *corev1.PodTemplate {
	template := &corev1.PodTemplate{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: waitNamespace, Annotations: annotations}}
	template.Template.Spec.Containers = []corev1.Container{{Name: "app", Image: "echo:1"}}
	return template
}

func retryPods(t testing.TB, client *fake.Clientset) int {
	t.Helper()
	pods, err := client.CoreV1().Pods(waitNamespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return len(pods.Items)
}

// elsewhere has another replica create the pod of the request just before this
// one tries to, which is refused with an error.
func elsewhere(t testing.TB, client *fake.Clientset, refusal error) {
	t.Helper()
	pod := waitPod("1")
	pod.Labels[instance.IDLabel] = protocol.NewAPIKey("key").InstanceID("retry", "echo")
	pod.Name = instance.PodName(pod.Labels[instance.IDLabel])
	client.PrependReactor("create", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
		if err := client.Tracker().Add(pod); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Error(err)
		}
		return true, nil, refusal
	})
}

func mustLaunch(t testing.TB, launcher *launch.Launcher, template, key string) string {
	t.Helper()
	id, err := launcher.Launch(t.Context(), launch.Request{Template: template, IdempotencyKey: key})
	if err != nil || !instance.ValidID(id) {
		t.Fatalf("launched %q, %v", id, err)
	}
	return id
}

func TestInstanceIDOfKey(t *testing.T) {
	id := protocol.NewAPIKey("key").InstanceID("retry", "echo")
	if !instance.ValidID(id) {
		t.Errorf("%q is no id", id)
	}
	if again := protocol.NewAPIKey("key").InstanceID("retry", "echo"); again != id {
		t.Errorf("another replica makes %s of it, and not %s", again, id)
	}
	for name, other := range map[string]string{
		"API key":         protocol.NewAPIKey("another").InstanceID("retry", "echo"),
		"idempotency key": protocol.NewAPIKey("key").InstanceID("retry2", "echo"),
		"template":        protocol.NewAPIKey("key").InstanceID("retry", "echo2"),
		"border":          protocol.NewAPIKey("key").InstanceID("retrye", "cho"),
	} {
		if other == id {
			t.Errorf("another %s makes the same id", name)
		}
	}
}

func TestReadIdempotencyKey(t *testing.T) {
	for _, row := range []struct {
		name   string
		values []string
		ok     bool
	}{
		{"none", nil, true},
		{"a UUID", []string{"8e03978e-40d5-43e8-bc93-6894a57f9324"}, true},
		{"the shortest", []string{"!"}, true},
		{"the longest", []string{strings.Repeat("~", 255)}, true},
		{"too long", []string{strings.Repeat("x", 256)}, false},
		{"empty", []string{""}, false},
		{"two words", []string{"a b"}, false},
		{"a tab", []string{"a\tb"}, false},
		{"a control character", []string{"a\x00b"}, false},
		{"no ASCII", []string{"clé"}, false},
		{"given twice", []string{"a", "a"}, false},
	} {
		r := httptest.NewRequest(http.MethodPost, "/applications/echo", nil)
		if row.values != nil {
			r.Header["Idempotency-Key"] = row.values
		}
		launcher := &waitLauncher{}
		api, _ := waitAPI(t, nil)
		api.Launcher = launcher
		res := httptest.NewRecorder()
		api.Routes().ServeHTTP(res, r)
		switch {
		case row.ok:
			want := strings.Join(row.values, "")
			if res.Code != http.StatusOK || len(launcher.requests) != 1 || launcher.requests[0] != (launch.Request{Template: "echo", IdempotencyKey: want}) {
				t.Errorf("%s: answered %d, launched %+v", row.name, res.Code, launcher.requests)
			}
		case res.Code != http.StatusUnprocessableEntity || !strings.Contains(res.Body.String(), "Idempotency-Key") || len(launcher.requests) > 0:
			t.Errorf("%s: answered %d %s, launched %+v", row.name, res.Code, res.Body, launcher.requests)
		}
	}
}

// TestLaunchRepeated: the same request, to this replica or another, finds what
// it made.
func TestLaunchRepeated(t *testing.T) {
	client := fake.NewClientset(retryTemplate("echo", nil), retryTemplate("other", nil))
	one, _ := retryLauncher(t, client)
	two, _ := retryLauncher(t, client)
	id := mustLaunch(t, one, "echo", "retry")
	for _, launcher := range []*launch.Launcher{one, two} {
		if again := mustLaunch(t, launcher, "echo", "retry"); again != id {
			t.Errorf("repeated, it is %s and not %s", again, id)
		}
	}
	if err := client.CoreV1().PodTemplates(waitNamespace).Delete(t.Context(), "echo", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the template is gone", func() bool { _, ok := one.Instances.(*Cluster).PodTemplate("echo"); return !ok })
	if again := mustLaunch(t, one, "echo", "retry"); again != id {
		t.Errorf("without its template it is %s and not %s", again, id)
	}
	if got := retryPods(t, client); got != 1 {
		t.Errorf("there are %d pods, want 1", got)
	}
	others := []string{id, mustLaunch(t, one, "other", "retry"), mustLaunch(t, one, "other", "retry2"), mustLaunch(t, one, "other", ""), mustLaunch(t, one, "other", "")}
	slices.Sort(others)
	if len(slices.Compact(others)) != 5 {
		t.Errorf("other launches share an id: %q", others)
	}
}

// TestLaunchAtOnce: what has not been delivered to a replica yet is found by the
// API server's refusal to create it twice.
func TestLaunchAtOnce(t *testing.T) {
	client := fake.NewClientset(retryTemplate("echo", nil))
	one, _ := retryLauncher(t, client)
	two, _ := retryLauncher(t, client)
	ids := make([]string, 20)
	var launches sync.WaitGroup
	for i := range ids {
		launches.Go(func() { ids[i] = mustLaunch(t, []*launch.Launcher{one, two}[i%2], "echo", "retry") })
	}
	launches.Wait()
	slices.Sort(ids)
	if ids = slices.Compact(ids); len(ids) != 1 {
		t.Errorf("one request has launched %q", ids)
	}
	if got := retryPods(t, client); got != 1 {
		t.Errorf("there are %d pods, want 1", got)
	}
}

// TestLaunchRefusedAsExisting: a replica that meets its pod only at the API
// server does not measure a launch whose beginning it does not know.
func TestLaunchRefusedAsExisting(t *testing.T) {
	client := fake.NewClientset(retryTemplate("echo", nil))
	launcher, _ := retryLauncher(t, client)
	elsewhere(t, client, apierrors.NewAlreadyExists(corev1.Resource("pods"), "binder-x"))
	id := mustLaunch(t, launcher, "echo", "retry")
	if id != protocol.NewAPIKey("key").InstanceID("retry", "echo") {
		t.Errorf("it is %s", id)
	}
	launcher.Mu.Lock()
	defer launcher.Mu.Unlock()
	if len(launcher.Launching) > 0 {
		t.Errorf("it measures %v", launcher.Launching)
	}
}

// TestLaunchAfterTheEnd: a request that comes late does not launch anew what is
// over.
func TestLaunchAfterTheEnd(t *testing.T) {
	id := protocol.NewAPIKey("key").InstanceID("retry", "echo")
	tombstone := &corev1.Event{ObjectMeta: metav1.ObjectMeta{
		Name: instance.TombstoneName(id), Namespace: waitNamespace,
		Labels:      map[string]string{instance.ManagedByLabel: instance.ManagerName, instance.IDLabel: id, instance.TemplateLabel: "echo"},
		Annotations: map[string]string{instance.TemplateNameAnnotation: "echo"},
	}, Reason: string(instance.EndCulled)}
	client := fake.NewClientset(retryTemplate("echo", nil), tombstone)
	launcher, _ := retryLauncher(t, client)
	if got := mustLaunch(t, launcher, "echo", "retry"); got != id || retryPods(t, client) > 0 {
		t.Errorf("it is %s and not %s, and there are %d pods", got, id, retryPods(t, client))
	}
}

// TestLaunchTookTheLastPlace: a repeated request is not told that there is no
// place, if the first one has it.
func TestLaunchTookTheLastPlace(t *testing.T) {
	quota := apierrors.NewForbidden(corev1.Resource("pods"), "binder-x", errors.New("exceeded quota: instances"))
	client := fake.NewClientset(retryTemplate("echo", nil))
	launcher, _ := retryLauncher(t, client)
	elsewhere(t, client, quota)
	id, err := launcher.Launch(t.Context(), launch.Request{Template: "echo", IdempotencyKey: "retry"})
	if err != nil || id != protocol.NewAPIKey("key").InstanceID("retry", "echo") {
		t.Errorf("launched %q, %v", id, err)
	}
	for _, key := range []string{"", "another"} {
		if id, err := launcher.Launch(t.Context(), launch.Request{Template: "echo", IdempotencyKey: key}); id != "" || !errors.Is(err, launch.ErrCapacity) {
			t.Errorf("with the key %q: launched %q, %v", key, id, err)
		}
	}
}
