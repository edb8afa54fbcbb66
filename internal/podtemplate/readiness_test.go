package podtemplate_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// listens is the probe that a template without one gets.
func listens(port int) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(port)}},
		PeriodSeconds: 1, FailureThreshold: 3600,
	}
}

var ownProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready"}}}

func TestReadinessProbe(t *testing.T) {
	declares := func(name string, port int32) corev1.Container {
		return corev1.Container{Name: name, Ports: []corev1.ContainerPort{{ContainerPort: port}}}
	}
	withOwn := declares("app", 8888)
	withOwn.ReadinessProbe = ownProbe
	for _, test := range []struct {
		name       string
		port       string // annotation; "" for none
		containers []corev1.Container
		want       []*corev1.Probe // of each container
	}{
		{"added", "", []corev1.Container{declares("app", 8000)}, []*corev1.Probe{listens(8000)}},
		{"added without a declared port", "", []corev1.Container{{Name: "app"}}, []*corev1.Probe{listens(8888)}},
		{"the template's own is kept", "", []corev1.Container{withOwn}, []*corev1.Probe{ownProbe}},
		{"added to the container that serves", "9000", []corev1.Container{declares("db", 5432), declares("app", 9000)}, []*corev1.Probe{nil, listens(9000)}},
		{"added to the first if none declares the port", "9000", []corev1.Container{declares("app", 80), declares("db", 5432)}, []*corev1.Probe{listens(9000), nil}},
		{"another container's own is not enough", "9000", []corev1.Container{withOwn, declares("app", 9000)}, []*corev1.Probe{ownProbe, listens(9000)}},
	} {
		template := kubetest.Template("jupyter", func(template *corev1.PodTemplate) {
			template.Template.Spec.Containers = test.containers
			if test.port != "" {
				template.Annotations[instance.PortAnnotation] = test.port
			}
		})
		for i, container := range newPod(t, template).Spec.Containers {
			if !equality.Semantic.DeepEqual(container.ReadinessProbe, test.want[i]) {
				t.Errorf("%s: container %s has probe %v, want %v", test.name, container.Name, container.ReadinessProbe, test.want[i])
			}
		}
	}
}

// A pod that is Ready for more than its port must not count as ready when the port
// answers.
func TestReadyWhenListens(t *testing.T) {
	delayed := listens(8888)
	delayed.InitialDelaySeconds = 10
	for _, test := range []struct {
		name   string
		change func(*corev1.PodSpec)
		want   bool
	}{
		{"no probe", func(*corev1.PodSpec) {}, true},
		{"a second container", func(spec *corev1.PodSpec) { spec.Containers = append(spec.Containers, corev1.Container{}) }, true},
		{"a liveness probe", func(spec *corev1.PodSpec) { spec.Containers[0].LivenessProbe = ownProbe }, true},
		{"a readiness probe", func(spec *corev1.PodSpec) { spec.Containers[0].ReadinessProbe = ownProbe }, false},
		{"a TCP probe with a delay", func(spec *corev1.PodSpec) { spec.Containers[0].ReadinessProbe = delayed }, false},
		{"a postStart hook", func(spec *corev1.PodSpec) {
			spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}}
		}, false},
		{"a startup probe", func(spec *corev1.PodSpec) { spec.Containers[0].StartupProbe = ownProbe }, false},
		{"a probe of a second container", func(spec *corev1.PodSpec) {
			spec.Containers = append(spec.Containers, corev1.Container{ReadinessProbe: ownProbe})
		}, false},
		{"a probe of a sidecar", func(spec *corev1.PodSpec) { spec.InitContainers = []corev1.Container{{StartupProbe: ownProbe}} }, false},
		{"a readiness gate", func(spec *corev1.PodSpec) {
			spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/fed"}}
		}, false},
	} {
		pod := newPod(t, kubetest.Template("jupyter", func(template *corev1.PodTemplate) { test.change(&template.Template.Spec) }))
		if got := pod.Annotations[instance.ReadyWhenAnnotation] == instance.ReadyWhenListening; got != test.want {
			t.Errorf("%s: the annotations are %v, want it among them: %t", test.name, pod.Annotations, test.want)
		}
	}
}
