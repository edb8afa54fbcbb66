//go:build record

package instance_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// This file records the pods of testdata on a real cluster: CONTRIBUTING.md says how. The
// node must have the local cluster's image binder-jupyter, which has a shell. It must be
// this machine, because it pulls images from a registry on 127.0.0.1.

const recordNamespace = "binder-record"

var only = flag.String("only", "", "record only cases whose names match this regular expression")

// recorded is a case: a pod, and for how long its changes are recorded.
type recorded struct {
	name   string
	last   time.Duration
	change func(pod *corev1.PodSpec)
}

func app(pod *corev1.PodSpec) *corev1.Container { return &pod.Containers[0] }

// shell makes the application a shell script.
func shell(script string, policy corev1.RestartPolicy) func(*corev1.PodSpec) {
	return func(pod *corev1.PodSpec) {
		app(pod).Command = []string{"/bin/sh", "-c", script}
		pod.RestartPolicy = policy
	}
}

func image(name string, policy corev1.PullPolicy) func(*corev1.PodSpec) {
	return func(pod *corev1.PodSpec) { app(pod).Image, app(pod).ImagePullPolicy = name, policy }
}

// beside adds a container that runs a script.
func beside(script string) func(*corev1.PodSpec) {
	return func(pod *corev1.PodSpec) {
		helper := corev1.Container{Name: "helper", Image: "localhost/binder-jupyter:dev", Command: []string{"/bin/sh", "-c", script}}
		pod.Containers = append(pod.Containers, helper)
	}
}

// before adds an init container that runs a script.
func before(script string, policy *corev1.ContainerRestartPolicy) func(*corev1.PodSpec) {
	return func(pod *corev1.PodSpec) {
		pod.InitContainers = append(pod.InitContainers, corev1.Container{
			Name: "before", Image: "localhost/binder-jupyter:dev", Command: []string{"/bin/sh", "-c", script}, RestartPolicy: policy,
		})
	}
}

func secretEnv(name string) []corev1.EnvFromSource {
	return []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}}
}

func limit(name corev1.ResourceName, value string) func(*corev1.PodSpec) {
	return func(pod *corev1.PodSpec) {
		app(pod).Resources.Limits = corev1.ResourceList{name: resource.MustParse(value)}
	}
}

func both(changes ...func(*corev1.PodSpec)) func(*corev1.PodSpec) {
	return func(pod *corev1.PodSpec) {
		for _, change := range changes {
			change(pod)
		}
	}
}

func recordings(registry string) []recorded {
	const short, long = 20 * time.Second, 140 * time.Second
	never, always := corev1.RestartPolicyNever, corev1.RestartPolicyAlways
	policy := func(p corev1.RestartPolicy) func(*corev1.PodSpec) {
		return func(pod *corev1.PodSpec) { pod.RestartPolicy = p }
	}
	const forever = "trap 'exit 0' TERM; while :; do sleep 1; done"
	return []recorded{
		{"deployed", short, func(*corev1.PodSpec) {}},
		{"image-not-found", 70 * time.Second, image(registry+"/missing:dev", corev1.PullAlways)},
		{"image-denied", 40 * time.Second, image(registry+"/denied:dev", corev1.PullAlways)},
		{"image-registry-overloaded", 70 * time.Second, image(registry+"/overloaded:dev", corev1.PullAlways)},
		{"image-registry-refuses", 40 * time.Second, image("localhost:1/refused:dev", corev1.PullAlways)},
		{"image-registry-unknown", 40 * time.Second, image("nowhere.example/unknown:dev", corev1.PullAlways)},
		{"image-broken", 70 * time.Second, image(registry+"/broken:dev", corev1.PullAlways)},
		{"image-name-invalid", short, image("localhost/UPPER:dev", corev1.PullAlways)},
		{"image-never-pulled", short, image("localhost/binder-missing:dev", corev1.PullNever)},
		{"secret-missing", short, func(pod *corev1.PodSpec) { app(pod).EnvFrom = secretEnv("missing") }},
		{"secret-missing-helper", short, both(beside(forever), func(pod *corev1.PodSpec) { pod.Containers[1].EnvFrom = secretEnv("missing") })},
		{"configmap-volume-missing", 40 * time.Second, func(pod *corev1.PodSpec) {
			pod.Volumes = []corev1.Volume{{Name: "files", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "missing"}}}}}
			app(pod).VolumeMounts = []corev1.VolumeMount{{Name: "files", MountPath: "/files"}}
		}},
		{"claim-missing", short, func(pod *corev1.PodSpec) {
			pod.Volumes = []corev1.Volume{{Name: "home", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "missing"}}}}
		}},
		{"host-path-missing", 40 * time.Second, func(pod *corev1.PodSpec) {
			kind := corev1.HostPathDirectory
			pod.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/missing", Type: &kind}}}}
			app(pod).VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
		}},
		{"runs-as-root", short, func(pod *corev1.PodSpec) {
			app(pod).SecurityContext = &corev1.SecurityContext{RunAsNonRoot: new(true), RunAsUser: new(int64(0))}
		}},
		{"command-not-found", 40 * time.Second, func(pod *corev1.PodSpec) { app(pod).Command = []string{"/missing"} }},
		{"command-not-found-never", short, both(func(pod *corev1.PodSpec) { app(pod).Command = []string{"/missing"} }, policy(never))},
		{"working-directory-invalid", short, func(pod *corev1.PodSpec) { app(pod).WorkingDir = "/proc/1/no" }},
		{"exit-3", short, shell("echo the reason >/dev/termination-log; exit 3", never)},
		{"exit-3-restarts", long, shell("exit 3", always)},
		{"exit-0-restarts", long, shell("exit 0", always)},
		{"exit-0", short, shell("exit 0", never)},
		{"exit-3-helper-runs", short, both(shell("sleep 3; exit 3", never), beside(forever))},
		{"exit-0-helper-runs", short, both(shell("sleep 3; exit 0", never), beside(forever))},
		{"helper-exits", short, both(policy(never), beside("sleep 3; exit 4"))},
		{"sidecar-is-killed", short, both(before("while :; do sleep 1; done", new(corev1.ContainerRestartPolicyAlways)), shell("sleep 3; exit 3", never))},
		{"sidecar-crashes", long, both(before("exit 5", new(corev1.ContainerRestartPolicyAlways)), policy(always))},
		{"init-fails", short, both(before("exit 6", nil), policy(never))},
		{"init-fails-restarts", long, both(before("exit 6", nil), policy(always))},
		{"out-of-memory", short, both(shell("sleep 2; tail /dev/zero", never), limit(corev1.ResourceMemory, "64Mi"))},
		{"out-of-memory-restarts", 40 * time.Second, both(shell("python3 -m http.server 8888 & sleep 6; tail /dev/zero", always), limit(corev1.ResourceMemory, "64Mi"))},
		{"crashes-after-ready", 40 * time.Second, shell("python3 -m http.server 8888 & sleep 6; exit 7", always)},
		{"unschedulable", short, func(pod *corev1.PodSpec) { pod.NodeSelector = map[string]string{"missing": "true"} }},
		{"cluster-full", short, func(pod *corev1.PodSpec) {
			app(pod).Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("9000")}
		}},
		{"gated", short, func(pod *corev1.PodSpec) {
			pod.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/wait"}}
		}},
		{"out-of-cpu", short, func(pod *corev1.PodSpec) {
			pod.NodeName = os.Getenv("BINDER_TEST_NODE")
			app(pod).Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("9000")}
		}},
		{"node-does-not-fit", short, func(pod *corev1.PodSpec) {
			pod.NodeName, pod.NodeSelector = os.Getenv("BINDER_TEST_NODE"), map[string]string{"missing": "true"}
		}},
		{"not-listening", 50 * time.Second, shell(forever, always)},
		{"listens-on-localhost", 50 * time.Second, shell("python3 -m http.server --bind 127.0.0.1 8888", always)},
		{"not-ready-by-http", 50 * time.Second, both(shell("python3 -m http.server 8888", always), func(pod *corev1.PodSpec) {
			app(pod).ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/missing", Port: intstr.FromInt(8888)}}}
		})},
		{"liveness-fails", 40 * time.Second, both(shell("python3 -m http.server 8888", always), func(pod *corev1.PodSpec) {
			app(pod).LivenessProbe = &corev1.Probe{PeriodSeconds: 3, FailureThreshold: 1, InitialDelaySeconds: 5, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"false"}}}}
		})},
		{"post-start-fails", 40 * time.Second, func(pod *corev1.PodSpec) {
			app(pod).Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"/missing"}}}}
		}},
		{"deadline", short, func(pod *corev1.PodSpec) { pod.ActiveDeadlineSeconds = new(int64(5)) }},
		{"evicted", 60 * time.Second, both(shell("dd if=/dev/zero of=/tmp/big bs=1M count=20; sleep 300", never), limit(corev1.ResourceEphemeralStorage, "4Mi"))},
	}
}

// TestRecord creates the pod of every case, and writes what it went through.
func TestRecord(t *testing.T) {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("BINDER_TEST_KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	config.QPS, config.Burst = 100, 200
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: recordNamespace}}
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.CoreV1().Namespaces().Delete(context.Background(), recordNamespace, metav1.DeleteOptions{})
	})
	nodes, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) == 0 {
		t.Fatal("no node", err)
	}
	t.Setenv("BINDER_TEST_NODE", nodes.Items[0].Name)
	registry := httptest.NewServer(http.HandlerFunc(answerAsRegistry))
	defer registry.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(registry.URL, "http://"), ":")
	var running sync.WaitGroup
	defer running.Wait()
	slots := make(chan struct{}, 8) // the machine is small
	for n, r := range recordings("localhost:" + port) {
		if !regexp.MustCompile(*only).MatchString(r.name) {
			continue
		}
		running.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := record(t, client, nodes.Items[0].Name, port, n, r); err != nil {
				t.Errorf("%s: %v", r.name, err)
			}
		})
	}
}

// answerAsRegistry fails in the way that the image's name asks for.
func answerAsRegistry(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.Contains(r.URL.Path, "denied"):
		http.Error(w, "denied", http.StatusForbidden)
	case strings.Contains(r.URL.Path, "overloaded"):
		http.Error(w, "later", http.StatusServiceUnavailable)
	case strings.Contains(r.URL.Path, "broken"):
		fmt.Fprint(w, "<html>")
	default:
		http.NotFound(w, r)
	}
}

func record(t *testing.T, client kubernetes.Interface, node, port string, n int, r recorded) error {
	template := kubetest.Template("recorded", func(template *corev1.PodTemplate) {
		template.Namespace = recordNamespace
		spec := &template.Template.Spec
		spec.TerminationGracePeriodSeconds = new(int64(1))
		app(spec).Name, app(spec).Image = "app", "localhost/binder-jupyter:dev"
		app(spec).Command = []string{"python3", "-m", "http.server", "8888"}
		r.change(spec)
	})
	id := kubetest.ID(n + 1)
	pod, err := podtemplate.NewPod(template, id, kubetest.Token)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), r.last+time.Minute)
	defer cancel()
	if pod, err = client.CoreV1().Pods(recordNamespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return err
	}
	defer func() {
		_ = client.CoreV1().Pods(recordNamespace).Delete(context.Background(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
	}()
	var moments []moment
	last := ""
	err = wait.PollUntilContextTimeout(ctx, 250*time.Millisecond, r.last, true, func(ctx context.Context) (bool, error) {
		now := time.Now()
		m, err := look(ctx, client, pod)
		if err != nil {
			return false, err
		}
		m.After = now.Sub(pod.CreationTimestamp.Time).Round(time.Second).String()
		if state := essence(m); state != last && len(moments) < 40 {
			moments, last = append(moments, m), state
		}
		return false, nil
	})
	if err != nil && !wait.Interrupted(err) { // r.last has passed
		return err
	}
	return write(r.name, node, port, pod, moments)
}

func look(ctx context.Context, client kubernetes.Interface, of *corev1.Pod) (m moment, err error) {
	pod, err := client.CoreV1().Pods(recordNamespace).Get(ctx, of.Name, metav1.GetOptions{})
	if err != nil {
		return m, err
	}
	events, err := client.CoreV1().Events(recordNamespace).List(ctx, metav1.ListOptions{
		FieldSelector: "type=Warning,involvedObject.kind=Pod,involvedObject.uid=" + string(of.UID),
	})
	if err != nil {
		return m, err
	}
	pod.Spec = instance.SlimSpec(pod)
	pod.ManagedFields, pod.Status.HostIP, pod.Status.HostIPs, pod.Status.PodIPs = nil, "", nil, nil
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range statuses {
			statuses[i].VolumeMounts, statuses[i].AllocatedResources, statuses[i].User = nil, nil, nil
		}
	}
	m.Pod = *pod
	for _, event := range events.Items {
		if instance.SlimWarning(&event).Reason == "" {
			continue
		}
		m.Warnings = append(m.Warnings, corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Name: event.Name, Namespace: event.Namespace}, InvolvedObject: event.InvolvedObject,
			Type: event.Type, Reason: event.Reason, Message: event.Message, Count: event.Count,
			FirstTimestamp: event.FirstTimestamp, LastTimestamp: event.LastTimestamp, EventTime: event.EventTime, Series: event.Series,
		})
	}
	return m, nil
}

// essence is what makes a moment worth recording.
func essence(m moment) string {
	var parts []any
	for _, c := range append(m.Pod.Status.InitContainerStatuses, m.Pod.Status.ContainerStatuses...) {
		switch s := c.State; {
		case s.Waiting != nil:
			parts = append(parts, s.Waiting.Reason)
		case s.Terminated != nil:
			parts = append(parts, s.Terminated.Reason)
		}
		parts = append(parts, c.Ready, c.RestartCount)
	}
	for _, condition := range m.Pod.Status.Conditions {
		parts = append(parts, condition.Type, condition.Status, condition.Reason)
	}
	for _, event := range m.Warnings {
		parts = append(parts, event.Reason, event.Message)
	}
	return fmt.Sprint(m.Pod.Status.Phase, m.Pod.Status.Reason, parts)
}

var (
	longHex   = regexp.MustCompile(`[0-9a-f]{64}`)
	uids      = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	addresses = regexp.MustCompile(`\b10\.\d+\.\d+\.\d+\b`)
	times     = regexp.MustCompile(`20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
)

// unread are the names of fields that nothing reads.
var unread = []string{
	"resourceVersion", "generation", "observedGeneration", "lastProbeTime", "qosClass", "source", "reportingComponent", "reportingInstance",
	"imageID", "containerID", "apiVersion", "namespace", "started", "stopSignal", "requests",
}

// withoutUnread removes fields that nothing reads, and empty ones.
func withoutUnread(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for name, field := range value {
			field = withoutUnread(field)
			if list, ok := field.([]any); field == nil || ok && len(list) == 0 || slices.Contains(unread, name) {
				delete(value, name)
				continue
			}
			value[name] = field
		}
	case []any:
		for i := range value {
			value[i] = withoutUnread(value[i])
		}
	}
	return value
}

// write writes the moments of a case, without what another run would have different.
func write(name, node, port string, pod *corev1.Pod, moments []moment) error {
	var lines []string
	for _, m := range moments {
		raw, err := json.Marshal(m)
		if err != nil {
			return err
		}
		var fields any
		if err := json.Unmarshal(raw, &fields); err != nil {
			return err
		}
		if raw, err = json.Marshal(withoutUnread(fields)); err != nil {
			return err
		}
		lines = append(lines, string(raw))
	}
	text := longHex.ReplaceAllString("[\n"+strings.Join(lines, ",\n")+"\n]", strings.Repeat("0", 8))
	text = uids.ReplaceAllString(text, "uid")
	text = addresses.ReplaceAllString(text, "192.0.2.7")
	text = strings.NewReplacer(pod.Name, instance.PodName(kubetest.ID(1)), pod.Labels[instance.IDLabel], kubetest.ID(1),
		node, "node-1", "localhost:"+port, "localhost:5000", "127.0.0.1:"+port, "127.0.0.1:5000").Replace(text)
	shift := kubetest.Noon.Sub(pod.CreationTimestamp.Time)
	text = times.ReplaceAllStringFunc(text, func(stamp string) string {
		at, err := time.Parse(time.RFC3339, stamp)
		if err != nil || at.Year() < 2020 {
			return stamp
		}
		return at.Add(shift).UTC().Format("2006-01-02T15:04:05.000000Z")
	})
	text = strings.ReplaceAll(text, ".000000Z", "Z")
	return os.WriteFile(filepath.Join("testdata", name+".json"), []byte(text+"\n"), 0o644)
}
