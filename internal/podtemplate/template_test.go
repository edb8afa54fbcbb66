package podtemplate

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// mustBuildPod builds a pod of a template that is in order.
func mustBuildPod(t testing.TB, template *corev1.PodTemplate, timeout time.Duration) *corev1.Pod {
	t.Helper()
	pod, err := NewPod(template, kubetest.ID(1), kubetest.Noon, timeout)
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// The keys are written out, as in TestInstanceFromPodReadsTheContract: this is
// the contract's other side.
func TestBuildPodWritesTheContract(t *testing.T) {
	template := kubetest.Template("jupyter",
		kubetest.WithTemplateAnnotation("binder-project.org/port", "8080"),
		kubetest.WithTemplateAnnotation("binder-project.org/strip-prefix", "true"),
		kubetest.WithTemplateAnnotation("other.org/note", "is not for the pod"),
		func(tpl *corev1.PodTemplate) {
			tpl.Template.Labels = map[string]string{"team": "science", instance.PoolLabel: "warm", instance.PreloadLabel: "true", instance.IDLabel: "forged"}
			tpl.Template.Annotations = map[string]string{"note": "kept", instance.LastActivityAnnotation: "2099-01-01T00:00:00Z"}
		})
	pod := mustBuildPod(t, template, 90*time.Second)

	if got, want := pod.Name, "binder-00000000000000000000000000000001"; got != want || pod.Namespace != kubetest.Namespace {
		t.Errorf("got pod %s/%s, want %s/%s", pod.Namespace, got, kubetest.Namespace, want)
	}
	wantLabels := map[string]string{
		"team":                             "science",
		"app.kubernetes.io/managed-by":     "binder-deploy-kubernetes",
		"binder-project.org/id":            "00000000000000000000000000000001",
		"binder-project.org/template":      "jupyter",
		"binder-project.org/template-hash": Hash(template),
	}
	if !maps.Equal(pod.Labels, wantLabels) {
		t.Errorf("labels are\n%v, want\n%v", pod.Labels, wantLabels)
	}
	wantAnnotations := map[string]string{
		"note":                                    "kept",
		"binder-project.org/template-name":        "jupyter",
		"binder-project.org/launched":             "2026-01-02T12:00:00.000Z",
		"binder-project.org/last-activity":        "2026-01-02T12:00:00.000Z",
		"binder-project.org/last-activity-source": "launch",
		"binder-project.org/cull-timeout":         "1m30s",
		"binder-project.org/port":                 "8080",
		"binder-project.org/strip-prefix":         "true",
		"binder-project.org/ready-when":           "listening",
	}
	if !maps.Equal(pod.Annotations, wantAnnotations) {
		t.Errorf("annotations are\n%v, want\n%v", pod.Annotations, wantAnnotations)
	}
}

// What buildPod writes, instanceFromPod reads back.
func TestBuildPodIsReadBack(t *testing.T) {
	for _, name := range []string{"jupyter", strings.Repeat("long-name.", 20) + "x"} {
		pod := mustBuildPod(t, kubetest.Template(name), 0)
		pod.CreationTimestamp = metav1.NewTime(kubetest.Noon)
		got := instance.FromPod(pod, kubetest.Noon, kubetest.StartTimeout)
		want := instance.Instance{ID: kubetest.ID(1), Template: name, Status: instance.StatusPending, Message: "waiting for a node", Created: kubetest.Noon}
		if got != want {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		if !instance.IsInstance(pod) || !instance.Selector().Matches(labels.Set(pod.Labels)) {
			t.Errorf("the pod of template %q is not known for an instance: %v", name, pod.Labels)
		}
	}
}

func TestBuildPodCullTimeout(t *testing.T) {
	for _, test := range []struct {
		name     string
		Template *corev1.PodTemplate
		asked    time.Duration
		want     string // "" for no annotation
	}{
		{"the server's", kubetest.Template("t"), 0, ""},
		{"the template's", kubetest.Template("t", kubetest.WithTemplateAnnotation(instance.CullTimeoutAnnotation, "30m")), 0, "30m0s"},
		{"the launch's", kubetest.Template("t"), 1500 * time.Millisecond, "1.5s"},
		{"the launch's before the template's", kubetest.Template("t", kubetest.WithTemplateAnnotation(instance.CullTimeoutAnnotation, "30m")), time.Hour, "1h0m0s"},
	} {
		if got := mustBuildPod(t, test.Template, test.asked).Annotations[instance.CullTimeoutAnnotation]; got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

// Every variable of ours comes before the template's own, which may so refer
// to it, and no template can pass off another value under its name.
func TestBuildPodEnvironment(t *testing.T) {
	own := []corev1.EnvVar{{Name: "BINDER_ID", Value: "forged"}, {Name: "PREFIX", Value: "$(BINDER_BASE_URL)"}}
	pod := mustBuildPod(t, kubetest.Template("jupyter", func(tpl *corev1.PodTemplate) {
		spec := &tpl.Template.Spec
		spec.Containers[0].Env = own
		spec.Containers = append(spec.Containers, corev1.Container{Name: "sidecar"})
		spec.InitContainers = []corev1.Container{{Name: "init", Env: own}}
	}), 0)
	ours := []corev1.EnvVar{
		{Name: "BINDER_ID", Value: "00000000000000000000000000000001"},
		{Name: "BINDER_TEMPLATE", Value: "jupyter"},
		{Name: "BINDER_BASE_URL", Value: "/user/00000000000000000000000000000001/"},
	}
	withOwn := append(slices.Clone(ours), own[1])
	for _, test := range []struct {
		container corev1.Container
		want      []corev1.EnvVar
	}{
		{pod.Spec.Containers[0], withOwn}, {pod.Spec.Containers[1], ours}, {pod.Spec.InitContainers[0], withOwn},
	} {
		if !equality.Semantic.DeepEqual(test.container.Env, test.want) {
			t.Errorf("container %s has the environment\n%v, want\n%v", test.container.Name, test.container.Env, test.want)
		}
	}
}

func TestBuildPodReadinessProbe(t *testing.T) {
	listens := func(name string, port int32) corev1.Container {
		return corev1.Container{Name: name, Ports: []corev1.ContainerPort{{ContainerPort: port}}}
	}
	own := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready"}}}
	added := func(port int) *corev1.Probe {
		return &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(port)}},
			PeriodSeconds: 1, FailureThreshold: 3600,
		}
	}
	withOwn := listens("app", 8888)
	withOwn.ReadinessProbe = own
	for _, test := range []struct {
		name       string
		port       string // annotation; "" for none
		containers []corev1.Container
		want       []*corev1.Probe // of each container
	}{
		{"added", "", []corev1.Container{listens("app", 8000)}, []*corev1.Probe{added(8000)}},
		{"added to one that declares no port", "", []corev1.Container{{Name: "app"}}, []*corev1.Probe{added(8888)}},
		{"the template's own is kept", "", []corev1.Container{withOwn}, []*corev1.Probe{own}},
		{"added to the container that serves", "9000", []corev1.Container{listens("db", 5432), listens("app", 9000)}, []*corev1.Probe{nil, added(9000)}},
		{"to the first when none says so", "9000", []corev1.Container{listens("app", 80), listens("db", 5432)}, []*corev1.Probe{added(9000), nil}},
		{"another container's own is not enough", "9000", []corev1.Container{withOwn, listens("app", 9000)}, []*corev1.Probe{own, added(9000)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			template := kubetest.Template("jupyter", func(tpl *corev1.PodTemplate) {
				tpl.Template.Spec.Containers = test.containers
				if test.port != "" {
					tpl.Annotations[instance.PortAnnotation] = test.port
				}
			})
			for i, container := range mustBuildPod(t, template, 0).Spec.Containers {
				if !equality.Semantic.DeepEqual(container.ReadinessProbe, test.want[i]) {
					t.Errorf("container %s has probe %v, want %v", container.Name, container.ReadinessProbe, test.want[i])
				}
			}
		})
	}
}

// Untrusted code gets no identity in the cluster, whatever its template says.
func TestBuildPodTakesAway(t *testing.T) {
	pod := mustBuildPod(t, kubetest.Template("jupyter", func(tpl *corev1.PodTemplate) {
		tpl.Template.Spec.AutomountServiceAccountToken = new(true)
		tpl.Template.Spec.EnableServiceLinks = new(true)
	}), 0)
	if token := pod.Spec.AutomountServiceAccountToken; token == nil || *token {
		t.Error("the pod gets a service account token")
	}
	if links := pod.Spec.EnableServiceLinks; links == nil || *links {
		t.Error("the pod is told of the Services")
	}
}

// Templates are shared with the cache.
func TestBuildPodLeavesTheTemplate(t *testing.T) {
	template := kubetest.Template("jupyter", kubetest.WithTemplateAnnotation(instance.CullTimeoutAnnotation, "30m"), func(tpl *corev1.PodTemplate) {
		tpl.Template.Labels = map[string]string{instance.PoolLabel: "warm"}
		tpl.Template.Annotations = map[string]string{"note": "kept"}
		// With room behind their ends, for an append to write to.
		tpl.Template.Spec.Containers[0].Env = append(make([]corev1.EnvVar, 0, 8), corev1.EnvVar{Name: "BINDER_ID"}, corev1.EnvVar{Name: "A"})
		tpl.Template.Spec.InitContainers = []corev1.Container{{Env: []corev1.EnvVar{{Name: "BINDER_ID"}, {Name: "B"}}}}
	})
	before := template.DeepCopy()
	mustBuildPod(t, template, time.Minute)
	if !equality.Semantic.DeepEqual(template, before) {
		t.Errorf("buildPod changed its template from\n%v to\n%v", before, template)
	}
}

// An operator finds out which annotation is wrong, and what may be in it.
func TestBadTemplates(t *testing.T) {
	build := func(template *corev1.PodTemplate) error {
		_, err := NewPod(template, kubetest.ID(1), kubetest.Noon, 0)
		return err
	}
	limit := func(template *corev1.PodTemplate) error {
		_, err := MaxInstances(template)
		return err
	}
	for _, test := range []struct {
		key, allowed string
		values       []string
		check        func(*corev1.PodTemplate) error
	}{
		{"binder-project.org/port", "1 to 65535", []string{"", "http", "0", "-1", "65536", "80.5"}, build},
		{"binder-project.org/cull-timeout", "positive duration such as 30m", []string{"", "soon", "3600", "0s", "-1h"}, build},
		{"binder-project.org/max-instances", "positive whole number", []string{"", "many", "0", "-1", "1.5"}, limit},
	} {
		for _, value := range test.values {
			err := test.check(kubetest.Template("jupyter", kubetest.WithTemplateAnnotation(test.key, value)))
			if err == nil {
				t.Errorf("%s %q is taken", test.key, value)
				continue
			}
			for _, part := range []string{test.key, fmt.Sprintf("%q", value), test.allowed} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s %q: the error is %q, want %s in it", test.key, value, err, part)
				}
			}
		}
	}
	noContainer := kubetest.Template("empty", func(tpl *corev1.PodTemplate) { tpl.Template.Spec.Containers = nil })
	if err := build(noContainer); err == nil {
		t.Error("a template without a container is taken")
	}
}

// A launch that asks for a timeout of its own does not depend on the template's.
func TestBuildPodIgnoresACullTimeoutThatIsNotUsed(t *testing.T) {
	mustBuildPod(t, kubetest.Template("jupyter", kubetest.WithTemplateAnnotation(instance.CullTimeoutAnnotation, "soon")), time.Minute)
}

func TestTemplatePort(t *testing.T) {
	ports := func(ports ...corev1.ContainerPort) corev1.Container { return corev1.Container{Ports: ports} }
	for _, test := range []struct {
		name       string
		annotation string
		containers []corev1.Container
		want       int
	}{
		{"the annotation", "9000", []corev1.Container{ports(corev1.ContainerPort{ContainerPort: 80})}, 9000},
		{"the least and the greatest", "1", nil, 1},
		{"the least and the greatest", "65535", nil, 65535},
		{"the first declared", "", []corev1.Container{ports(), ports(corev1.ContainerPort{ContainerPort: 80}, corev1.ContainerPort{ContainerPort: 81})}, 80},
		{"no UDP", "", []corev1.Container{ports(
			corev1.ContainerPort{ContainerPort: 53, Protocol: corev1.ProtocolUDP},
			corev1.ContainerPort{ContainerPort: 80, Protocol: corev1.ProtocolTCP})}, 80},
		{"a Binder image's", "", []corev1.Container{ports()}, 8888},
	} {
		template := kubetest.Template("t", func(tpl *corev1.PodTemplate) {
			tpl.Template.Spec.Containers = test.containers
			if test.annotation != "" {
				tpl.Annotations[instance.PortAnnotation] = test.annotation
			}
		})
		if got, err := Port(template); err != nil || got != test.want {
			t.Errorf("%s: got %d, %v; want %d", test.name, got, err, test.want)
		}
	}
}

func TestTemplateMaxInstances(t *testing.T) {
	for _, test := range []struct {
		Template *corev1.PodTemplate
		want     int
	}{
		{kubetest.Template("t"), 0},
		{kubetest.Template("t", kubetest.WithTemplateAnnotation(instance.MaxInstancesAnnotation, "1")), 1},
		{kubetest.Template("t", kubetest.WithTemplateAnnotation(instance.MaxInstancesAnnotation, "250")), 250},
	} {
		if got, err := MaxInstances(test.Template); err != nil || got != test.want {
			t.Errorf("annotations %v: got %d, %v; want %d", test.Template.Annotations, got, err, test.want)
		}
	}
}

func TestTemplateHash(t *testing.T) {
	hash := Hash(kubetest.Template("jupyter"))
	for name, change := range map[string]func(*corev1.PodTemplate){
		"the image":        func(tpl *corev1.PodTemplate) { tpl.Template.Spec.Containers[0].Image = "jupyter:2" },
		"a label":          func(tpl *corev1.PodTemplate) { tpl.Template.Labels = map[string]string{"a": "b"} },
		"the port":         kubetest.WithTemplateAnnotation(instance.PortAnnotation, "1"),
		"the cull timeout": kubetest.WithTemplateAnnotation(instance.CullTimeoutAnnotation, "1"), // the same value under another key
		"the max age":      kubetest.WithTemplateAnnotation(instance.MaxAgeAnnotation, "1"),
		"the prefix":       kubetest.WithTemplateAnnotation(instance.StripPrefixAnnotation, "1"),
		"the idle paths":   kubetest.WithTemplateAnnotation(instance.IdlePathsAnnotation, "1"),
		"the probe":        kubetest.WithTemplateAnnotation(instance.ActivityProbeAnnotation, "1"),
	} {
		if Hash(kubetest.Template("jupyter", change)) == hash {
			t.Errorf("%s does not change the hash", name)
		}
	}
	if Hash(kubetest.Template("t", kubetest.WithTemplateAnnotation(instance.PortAnnotation, "1"))) ==
		Hash(kubetest.Template("t", kubetest.WithTemplateAnnotation(instance.CullTimeoutAnnotation, "1"))) {
		t.Error("the hash does not tell which annotation has a value")
	}
	for name, change := range map[string]func(*corev1.PodTemplate){
		"the resourceVersion":     func(tpl *corev1.PodTemplate) { tpl.ResourceVersion = "2" },
		"an annotation of others": kubetest.WithTemplateAnnotation("kubectl.kubernetes.io/last-applied-configuration", "{}"),
		"what is not of the pod":  kubetest.WithTemplateAnnotation(instance.MaxInstancesAnnotation, "5"),
	} {
		if Hash(kubetest.Template("jupyter", change)) != hash {
			t.Errorf("%s changes the hash", name)
		}
	}
}

func TestTemplateError(t *testing.T) {
	cause := errors.New("it has no container")
	var err error = &Error{Template: "jupyter", Err: cause}
	if !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
	if got, want := err.Error(), `template "jupyter" cannot be launched: it has no container`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
