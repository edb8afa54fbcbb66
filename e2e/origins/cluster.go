//go:build e2e

package origins

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// instances is the namespace of instances.
const instances = "binder-instances"

// cluster is as much of an API server as the service needs to launch and stop instances.
// Each pod runs as soon as it is created, at an address of its own on this machine.
type cluster struct {
	kubeconfig string
	port       string // of the application, at every pod's address
	otherPorts string // instance.PortsAnnotation of the template

	mu      sync.Mutex
	pods    map[string]*corev1.Pod
	created int
	held    bool // new pods do not start

	addresses int                  // of pods, so far
	watchers  map[chan []byte]bool // of pods
}

func startCluster(t *testing.T, port, otherPorts string) *cluster {
	t.Helper()
	c := &cluster{port: port, otherPorts: otherPorts, pods: map[string]*corev1.Pod{}, watchers: map[chan []byte]bool{}}
	server := httptest.NewServer(c)
	t.Cleanup(server.CloseClientConnections)
	c.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "it",
		"contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
		"clusters": [{"name": "it", "cluster": {"server": %q}}],
		"users": [{"name": "it", "user": {}}]}`, server.URL)
	require.NoError(t, os.WriteFile(c.kubeconfig, []byte(text), 0o600))
	return c
}

// launches returns how many pods were created.
func (c *cluster) launches() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.created
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, resource, _ := strings.Cut(r.URL.Path, "/namespaces/")
	parts := append(strings.Split(resource, "/"), "", "") // namespace, resource, name
	kind, name := parts[1], parts[2]
	switch {
	case r.Method == http.MethodGet && r.URL.Query().Get("watch") != "":
		c.watch(w, r, kind)
	case r.Method == http.MethodGet && name == "":
		writeObject(w, map[string]any{"kind": "List", "apiVersion": "v1", "metadata": map[string]string{"resourceVersion": "1"}, "items": c.list(kind)})
	case r.Method == http.MethodPost && kind == "pods":
		c.create(w, r)
	case r.Method == http.MethodPatch && kind == "pods":
		c.mu.Lock()
		defer c.mu.Unlock()
		writeObject(w, c.pods[name]) // nothing here depends on the change
	case r.Method == http.MethodDelete && kind == "pods":
		c.remove(w, r, name)
	default: // there is no Lease, so nobody leads
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}`)
	}
}

func writeObject(w http.ResponseWriter, object any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(object)
}

// list returns the objects of a kind. Every template has the same pods.
func (c *cluster) list(kind string) []any {
	c.mu.Lock()
	defer c.mu.Unlock()
	objects := []any{}
	if kind == "podtemplates" {
		objects = append(objects, &corev1.PodTemplate{
			TypeMeta:   metav1.TypeMeta{Kind: "PodTemplate", APIVersion: "v1"},
			ObjectMeta: metav1.ObjectMeta{Name: template, Namespace: instances, ResourceVersion: "1", UID: "1", Annotations: map[string]string{instance.PortsAnnotation: c.otherPorts}},
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{
				Name: "app", Image: "app:1", Ports: []corev1.ContainerPort{{ContainerPort: portNumber(c.port)}},
			}}}},
		})
	}
	if kind == "pods" {
		for _, pod := range c.pods {
			objects = append(objects, pod)
		}
	}
	return objects
}

// create makes a pod, which runs unless pods are held.
func (c *cluster) create(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	object, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
	pod, ok := object.(*corev1.Pod)
	if err != nil || !ok {
		http.Error(w, fmt.Sprint(err), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.created++
	now := metav1.NewTime(time.Now())
	pod.TypeMeta = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
	pod.Namespace, pod.CreationTimestamp, pod.UID = instances, now, "uid-of-"+pod.UID
	pod.ResourceVersion = fmt.Sprint(100 + c.created)
	pod.Spec.NodeName = "node-1"
	pod.Status = corev1.PodStatus{Phase: corev1.PodPending}
	if !c.held {
		c.run(pod)
	}
	c.pods[pod.Name] = pod
	c.tell("ADDED", pod)
	writeObject(w, pod)
}

// run makes a pod run, at the next address.
func (c *cluster) run(pod *corev1.Pod) {
	now := metav1.NewTime(time.Now())
	condition := func(kind corev1.PodConditionType) corev1.PodCondition {
		return corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: now}
	}
	c.addresses++
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: fmt.Sprintf("127.0.1.%d", c.addresses),
		Conditions: []corev1.PodCondition{condition(corev1.PodScheduled), condition(corev1.ContainersReady), condition(corev1.PodReady)},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: "app", Image: "app:1", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		}},
	}
}

// hold keeps new pods from starting, or lets all of them start.
func (c *cluster) hold(held bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = held
	for name, pod := range c.pods {
		if !held && pod.Status.Phase == corev1.PodPending {
			started := pod.DeepCopy()
			started.ResourceVersion = fmt.Sprint(10_000 + c.addresses)
			c.run(started)
			c.pods[name] = started
			c.tell("MODIFIED", started)
		}
	}
}

func (c *cluster) remove(w http.ResponseWriter, r *http.Request, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pod := c.pods[name]
	if pod != nil && r.URL.Query().Get("dryRun") == "" {
		delete(c.pods, name)
		c.tell("DELETED", pod)
	}
	writeObject(w, pod)
}

// end begins to delete the pod of an instance.
func (c *cluster) end(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, pod := range c.pods {
		if pod.Labels[instance.IDLabel] == id {
			ending, now := pod.DeepCopy(), metav1.NewTime(time.Now())
			ending.DeletionTimestamp, ending.ResourceVersion = &now, fmt.Sprint(20_000+c.created)
			c.pods[name] = ending
			c.tell("MODIFIED", ending)
		}
	}
}

// tell sends a change of a pod to all watches. c.mu is held.
func (c *cluster) tell(kind string, pod *corev1.Pod) {
	line, _ := json.Marshal(map[string]any{"type": kind, "object": pod})
	for watcher := range c.watchers {
		watcher <- line
	}
}

// watch streams what there is, a bookmark, and then the changes of pods.
func (c *cluster) watch(w http.ResponseWriter, r *http.Request, kind string) {
	changes := make(chan []byte, 100)
	send := func(line []byte) {
		_, _ = w.Write(append(line, '\n'))
		_ = http.NewResponseController(w).Flush()
	}
	w.Header().Set("Content-Type", "application/json")
	if kind == "pods" {
		c.mu.Lock()
		c.watchers[changes] = true
		c.mu.Unlock()
		defer func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.watchers, changes)
		}()
	}
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		for _, object := range c.list(kind) {
			line, _ := json.Marshal(map[string]any{"type": "ADDED", "object": object})
			send(line)
		}
		send([]byte(bookmark(kind)))
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case line := <-changes:
			send(line)
		}
	}
}

// bookmark ends the initial events of a watch.
func bookmark(kind string) string {
	version, name := "v1", map[string]string{
		"pods": "Pod", "events": "Event", "podtemplates": "PodTemplate", "services": "Service", "daemonsets": "DaemonSet",
	}[kind]
	if kind == "daemonsets" {
		version = "apps/v1"
	}
	return fmt.Sprintf(`{"type": "BOOKMARK", "object": {"kind": %q, "apiVersion": %q, "metadata": {"resourceVersion": "1",
 "annotations": {"k8s.io/initial-events-end": "true"}}}}`, name, version)
}
