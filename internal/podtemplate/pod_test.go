package podtemplate_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// newPod makes a pod of a valid template, and checks that the template, which is
// shared with the read model, stays as it was.
func newPod(t testing.TB, template *corev1.PodTemplate) *corev1.Pod {
	t.Helper()
	before := template.DeepCopy()
	pod, err := podtemplate.NewPod(template, kubetest.ID(1), kubetest.Token)
	if err != nil {
		t.Fatal(err)
	}
	if !equality.Semantic.DeepEqual(template, before) {
		t.Errorf("the template changed from\n%v to\n%v", before, template)
	}
	return pod
}

// The keys are written out: they are a contract, and not only with this code.
func TestNewPodWritesTheContract(t *testing.T) {
	template := kubetest.Template("jupyter", func(template *corev1.PodTemplate) {
		template.Annotations = map[string]string{
			"binder-project.org/port":             "08080",
			"binder-project.org/cull-timeout":     "90s",
			"binder-project.org/max-age":          "90m",
			"binder-project.org/strip-prefix":     "true",
			"binder-project.org/idle-paths":       "poll",
			"binder-project.org/activity-probe":   "status",
			"binder-project.org/idle-requests":    "POST /poll",
			"binder-project.org/heartbeat-frames": "4 ws/.*",
			"binder-project.org/pool-size":        "3",
			"binder-project.org/max-instances":    "5",
			"binder-project.org/token-header":     "X-Key: $(BINDER_TOKEN)",
			"other.org/note":                      "is not for the pod",
		}
		template.Template.Labels = map[string]string{
			"team": "science", instance.PoolLabel: "warm", instance.PreloadLabel: "true", instance.ClientLabel: "forged", instance.PreloadNameLabel: "x", instance.IDLabel: "forged",
		}
		template.Template.Annotations = map[string]string{"note": "kept"}
	})
	pod := newPod(t, template)
	if want := instance.PodName(kubetest.ID(1)); pod.Name != want || pod.Namespace != kubetest.Namespace {
		t.Errorf("got pod %s/%s, want %s/%s", pod.Namespace, pod.Name, kubetest.Namespace, want)
	}
	wantLabels := map[string]string{
		"team":                             "science",
		"app.kubernetes.io/managed-by":     "binder-deploy-kubernetes",
		"binder-project.org/id":            "00000000000000000000000000000001",
		"binder-project.org/template":      "jupyter",
		"binder-project.org/template-hash": podtemplate.Hash(template),
	}
	if !maps.Equal(pod.Labels, wantLabels) {
		t.Errorf("labels are\n%v, want\n%v", pod.Labels, wantLabels)
	}
	wantAnnotations := map[string]string{
		"note":                                "kept",
		"binder-project.org/template-name":    "jupyter",
		"binder-project.org/cull-timeout":     "1m30s",
		"binder-project.org/max-age":          "1h30m0s",
		"binder-project.org/port":             "8080",
		"binder-project.org/strip-prefix":     "true",
		"binder-project.org/idle-paths":       "poll",
		"binder-project.org/activity-probe":   "status",
		"binder-project.org/idle-requests":    "POST /poll",
		"binder-project.org/heartbeat-frames": "4 ws/.*",
		"binder-project.org/ready-when":       "listening",
		"binder-project.org/token":            kubetest.Token,
		"binder-project.org/token-header":     "X-Key: $(BINDER_TOKEN)",

		"kubectl.kubernetes.io/default-container": "notebook",
	}
	if !maps.Equal(pod.Annotations, wantAnnotations) {
		t.Errorf("annotations are\n%v, want\n%v", pod.Annotations, wantAnnotations)
	}
}

// The pod in a template cannot set what belongs on the template or comes from a
// launch, and gets no identity in the cluster: it runs untrusted code.
func TestNewPodTakesAway(t *testing.T) {
	pod := newPod(t, kubetest.Template("jupyter", func(template *corev1.PodTemplate) {
		template.Template.Annotations = map[string]string{instance.ReadyWhenAnnotation: instance.ReadyWhenListening, instance.TokenAnnotation: "forged"}
		for key := range instance.LaunchAnnotations(kubetest.Noon, 0) {
			template.Template.Annotations[key] = "forged"
		}
		for _, row := range annotationRows {
			template.Template.Annotations[row.key] = row.valid[0]
		}
		spec := &template.Template.Spec
		spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/ready"}}
		spec.AutomountServiceAccountToken, spec.EnableServiceLinks = new(true), new(true)
	}))
	want := map[string]string{instance.TemplateNameAnnotation: "jupyter", instance.PortAnnotation: "8888", instance.DefaultContainerAnnotation: "notebook", instance.TokenAnnotation: kubetest.Token}
	if !maps.Equal(pod.Annotations, want) {
		t.Errorf("annotations are\n%v, want\n%v", pod.Annotations, want)
	}
	if token, links := pod.Spec.AutomountServiceAccountToken, pod.Spec.EnableServiceLinks; token == nil || *token || links == nil || *links {
		t.Error("the pod gets a service account token, or is told of the Services")
	}
}

// A container with a message of its own keeps its policy. The API server has filled in the
// policy File of all others.
func TestNewPodSetsTerminationMessagePolicy(t *testing.T) {
	file, logs := corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError
	for _, test := range []struct {
		path         string
		policy, want corev1.TerminationMessagePolicy
	}{
		{"", "", logs}, {corev1.TerminationMessagePathDefault, file, logs}, {"/dev/termination-log", logs, logs},
		{"/tmp/why", file, file}, {"/tmp/why", logs, logs},
	} {
		own := corev1.Container{Name: "x", TerminationMessagePath: test.path, TerminationMessagePolicy: test.policy}
		pod := newPod(t, kubetest.Template("jupyter", func(template *corev1.PodTemplate) {
			spec := &template.Template.Spec
			spec.InitContainers, spec.Containers = []corev1.Container{own}, append(spec.Containers, own)
		}))
		if got := []corev1.TerminationMessagePolicy{pod.Spec.InitContainers[0].TerminationMessagePolicy, pod.Spec.Containers[1].TerminationMessagePolicy}; got[0] != test.want || got[1] != test.want {
			t.Errorf("%s, %s: got %s", test.path, test.policy, got)
		}
	}
}

func TestNewPodIsReadBack(t *testing.T) {
	for _, name := range []string{"jupyter", strings.Repeat("long-name.", 20) + "x"} {
		pod := newPod(t, kubetest.Template(name))
		pod.CreationTimestamp = metav1.NewTime(kubetest.Noon)
		got := instance.FromPod(pod, nil, kubetest.Noon, kubetest.StartTimeout)
		if got.ID != kubetest.ID(1) || got.Template != name || got.Status != instance.StatusPending {
			t.Errorf("template %q: got %+v", name, got)
		}
		if !instance.IsInstance(pod) || !instance.Selector().Matches(labels.Set(pod.Labels)) {
			t.Errorf("the pod of template %q does not count as an instance: %v", name, pod.Labels)
		}
	}
}

// Our variables come before the template's own, which can refer to them, and a
// template cannot give them other values.
func TestNewPodEnvironment(t *testing.T) {
	own := append(make([]corev1.EnvVar, 0, 8), // room for an append to write to
		corev1.EnvVar{Name: "BINDER_TOKEN", Value: "forged"}, corev1.EnvVar{Name: "PREFIX", Value: "$(BINDER_BASE_URL)"})
	spec := newPod(t, kubetest.Template("jupyter", func(template *corev1.PodTemplate) {
		spec := &template.Template.Spec
		spec.Containers[0].Env = own
		spec.Containers = append(spec.Containers, corev1.Container{Name: "sidecar"})
		spec.InitContainers = []corev1.Container{{Name: "init", Env: slices.Clone(own)}}
	})).Spec
	ours := []corev1.EnvVar{
		{Name: "BINDER_ID", Value: "00000000000000000000000000000001"},
		{Name: "BINDER_TEMPLATE", Value: "jupyter"},
		{Name: "BINDER_BASE_URL", Value: "/user/00000000000000000000000000000001/"},
		{Name: "BINDER_TOKEN", Value: kubetest.Token},
	}
	withOwn := append(slices.Clone(ours), own[1])
	for _, test := range []struct {
		container corev1.Container
		want      []corev1.EnvVar
	}{{spec.Containers[0], withOwn}, {spec.Containers[1], ours}, {spec.InitContainers[0], withOwn}} {
		if !slices.Equal(test.container.Env, test.want) {
			t.Errorf("container %s has the environment\n%v, want\n%v", test.container.Name, test.container.Env, test.want)
		}
	}
}

func TestHash(t *testing.T) {
	hash := podtemplate.Hash(kubetest.Template("jupyter"))
	seen := map[string]string{hash: "nothing"}
	change := func(what string, change func(*corev1.PodTemplate), want bool) {
		t.Helper()
		got := podtemplate.Hash(kubetest.Template("jupyter", change))
		if before, ok := seen[got]; ok && want || !want && got != hash {
			t.Errorf("a change of %s changes the hash: %t, want %t; it is as for a change of %s", what, got != hash, want, before)
		}
		seen[got] = what
	}
	change("the image", func(template *corev1.PodTemplate) { template.Template.Spec.Containers[0].Image = "jupyter:2" }, true)
	change("a label", func(template *corev1.PodTemplate) { template.Template.Labels = map[string]string{"a": "b"} }, true)
	for _, row := range annotationRows {
		onlyTemplate := row.key == instance.MaxInstancesAnnotation || row.key == instance.PoolSizeAnnotation || row.key == instance.PoolScheduleAnnotation ||
			row.key == instance.TitleAnnotation || row.key == instance.DescriptionAnnotation || row.key == instance.IconAnnotation
		change(row.key, kubetest.WithTemplateAnnotation(row.key, "1"), !onlyTemplate)
	}
	change("the resourceVersion", func(template *corev1.PodTemplate) { template.ResourceVersion = "2" }, false)
	change("an annotation of others", kubetest.WithTemplateAnnotation("kubectl.kubernetes.io/last-applied-configuration", "{}"), false)
}
