package preload

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

const helperImage = "pause:1"

func withImage(image string) func(*corev1.PodTemplate) {
	return func(t *corev1.PodTemplate) { t.Template.Spec.Containers[0].Image = image }
}

// newSet returns what is built from a template with a name and changes made to it.
func newSet(t testing.TB, name string, changes ...func(*corev1.PodTemplate)) *appsv1.DaemonSet {
	t.Helper()
	set, err := newDaemonSet(kubetest.Template(name, changes...), kubetest.Namespace, helperImage)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestImages(t *testing.T) {
	for _, test := range []struct {
		name string
		spec corev1.PodSpec
		want []corev1.ImageVolumeSource
	}{
		{"one container", corev1.PodSpec{Containers: []corev1.Container{{Image: "a"}}},
			[]corev1.ImageVolumeSource{{Reference: "a"}}},
		{"init containers first, because they start first", corev1.PodSpec{
			InitContainers: []corev1.Container{{Image: "b"}},
			Containers:     []corev1.Container{{Image: "a"}, {Image: "c"}},
		}, []corev1.ImageVolumeSource{{Reference: "b"}, {Reference: "a"}, {Reference: "c"}}},
		{"each once", corev1.PodSpec{Containers: []corev1.Container{{Image: "a"}, {Image: "b"}, {Image: "a"}}},
			[]corev1.ImageVolumeSource{{Reference: "a"}, {Reference: "b"}}},
		{"the pull policy is the template's", corev1.PodSpec{Containers: []corev1.Container{{Image: "a", ImagePullPolicy: corev1.PullNever}}},
			[]corev1.ImageVolumeSource{{Reference: "a", PullPolicy: corev1.PullNever}}},
		{"image volumes are images too, other volumes are not", corev1.PodSpec{
			Containers: []corev1.Container{{Image: "a"}},
			Volumes: []corev1.Volume{
				{Name: "x", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "data"}}},
				{Name: "y", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			},
		}, []corev1.ImageVolumeSource{{Reference: "a"}, {Reference: "data"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			set := newSet(t, "x", func(t *corev1.PodTemplate) { t.Template.Spec = test.spec })
			pod := set.Spec.Template.Spec
			var got []corev1.ImageVolumeSource
			for i, volume := range pod.Volumes {
				got = append(got, *volume.Image)
				if mount := pod.Containers[0].VolumeMounts[i]; mount.Name != volume.Name || !mount.ReadOnly {
					t.Errorf("mount %d is %+v, want %s read-only: the kubelet does not wait for other volumes", i, mount, volume.Name)
				}
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("images are %+v, want %+v", got, test.want)
			}
			if len(pod.Containers) != 1 || len(pod.InitContainers) != 0 || pod.Containers[0].Image != helperImage {
				t.Errorf("what runs is %+v, want only %s", pod.Containers, helperImage)
			}
		})
	}
	if set, err := newDaemonSet(kubetest.Template("x", withImage("")), kubetest.Namespace, helperImage); err == nil {
		t.Errorf("a template without an image gives %+v, want an error", set.Spec)
	}
}

// TestTakesOver: the template says where and with which credentials images are
// pulled. Nothing else of it is taken over.
func TestTakesOver(t *testing.T) {
	node := &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{}}
	set := newSet(t, "x", func(t *corev1.PodTemplate) {
		t.Template.Labels = map[string]string{"app": "x"}
		t.Template.Annotations = map[string]string{"sidecar": "inject"}
		spec := &t.Template.Spec
		spec.NodeSelector = map[string]string{"disk": "ssd"}
		spec.Tolerations = []corev1.Toleration{{Key: "users"}}
		spec.Affinity = &corev1.Affinity{NodeAffinity: node, PodAntiAffinity: &corev1.PodAntiAffinity{}}
		spec.RuntimeClassName = new("gvisor")
		spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
		spec.ServiceAccountName = "puller"
		spec.HostNetwork = true
		spec.AutomountServiceAccountToken = new(true)
		spec.RestartPolicy = corev1.RestartPolicyNever
		spec.Containers[0].Command = []string{"start"}
		spec.Containers[0].Env = []corev1.EnvVar{{Name: "SECRET", Value: "x"}}
		spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: new(true)}
		spec.Containers[0].ReadinessProbe = &corev1.Probe{}
	})
	pod := set.Spec.Template.Spec
	for what, got := range map[string][2]any{
		"node selector":   {pod.NodeSelector, map[string]string{"disk": "ssd"}},
		"tolerations":     {pod.Tolerations, []corev1.Toleration{{Key: "users"}}},
		"affinity":        {pod.Affinity, &corev1.Affinity{NodeAffinity: node}},
		"runtime class":   {pod.RuntimeClassName, new("gvisor")},
		"pull secrets":    {pod.ImagePullSecrets, []corev1.LocalObjectReference{{Name: "pull"}}},
		"service account": {pod.ServiceAccountName, "puller"},
		"token":           {pod.AutomountServiceAccountToken, new(false)},
		"host network":    {pod.HostNetwork, false},
		"restart policy":  {pod.RestartPolicy, corev1.RestartPolicy("")},
		"command":         {pod.Containers[0].Command, []string(nil)},
		"environment":     {pod.Containers[0].Env, []corev1.EnvVar(nil)},
		"probe":           {pod.Containers[0].ReadinessProbe, (*corev1.Probe)(nil)},
		"label":           {set.Spec.Template.Labels["app"], ""},
		"annotation":      {set.Spec.Template.Annotations["sidecar"], ""},
	} {
		if !reflect.DeepEqual(got[0], got[1]) {
			t.Errorf("%s is %+v, want %+v", what, got[0], got[1])
		}
	}
	if plain := newSet(t, "x").Spec.Template.Spec; plain.Tolerations != nil || plain.NodeSelector != nil {
		t.Errorf("of a template with neither, tolerations are %+v and the node selector %+v, want none", plain.Tolerations, plain.NodeSelector)
	}
}

// TestIsRestricted: the pods pass whatever the namespace of instances enforces.
func TestIsRestricted(t *testing.T) {
	pod := newSet(t, "x").Spec.Template.Spec
	container := pod.Containers[0]
	if s := pod.SecurityContext; !*s.RunAsNonRoot || *s.RunAsUser == 0 || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the pod's security context is %+v", s)
	}
	if s := container.SecurityContext; *s.AllowPrivilegeEscalation || s.Privileged != nil || !*s.ReadOnlyRootFilesystem ||
		!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || s.Capabilities.Add != nil {
		t.Errorf("the container's security context is %+v", s)
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		request, limit := container.Resources.Requests[name], container.Resources.Limits[name]
		if request.IsZero() || limit.Cmp(request) < 0 {
			t.Errorf("%s: request %s, limit %s; want both, because a quota may require either", name, &request, &limit)
		}
	}
}

// TestLabels: the pods are found, and none is an instance.
func TestLabels(t *testing.T) {
	long := strings.Repeat("x", 100)
	set := newSet(t, long)
	for what, meta := range map[string]metav1.Object{"DaemonSet": set, "pod": &set.Spec.Template} {
		if l := labels.Set(meta.GetLabels()); !instance.Selector().Matches(l) || l[instance.PreloadLabel] != "true" || l[instance.TemplateHashLabel] == "" {
			t.Errorf("%s: labels are %v", what, l)
		}
		if got := instance.TemplateOf(meta); got != long {
			t.Errorf("%s: template is %q, want %q", what, got, long)
		}
	}
	if instance.HasID(&corev1.Pod{ObjectMeta: set.Spec.Template.ObjectMeta}) {
		t.Error("the pod passes for an instance")
	}
	selects, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil {
		t.Fatal(err)
	}
	other := newSet(t, long, withImage("app:2"))
	if !selects.Matches(labels.Set(set.Spec.Template.Labels)) || selects.Matches(labels.Set(other.Spec.Template.Labels)) {
		t.Errorf("selector %s must select its own pods %v and not those of another version %v", selects, set.Spec.Template.Labels, other.Spec.Template.Labels)
	}
}

// TestName: equal preloads have the same name, others do not.
func TestName(t *testing.T) {
	base := newSet(t, "x")
	if again := newSet(t, "x"); again.Name != base.Name {
		t.Errorf("built again, the name is %s and not %s", again.Name, base.Name)
	}
	helper, err := newDaemonSet(kubetest.Template("x"), kubetest.Namespace, "pause:2")
	if err != nil {
		t.Fatal(err)
	}
	for what, other := range map[string]*appsv1.DaemonSet{
		"template": newSet(t, "y"),
		"image":    newSet(t, "x", withImage("app:2")),
		"nodes": newSet(t, "x", func(t *corev1.PodTemplate) {
			t.Template.Spec.NodeSelector = map[string]string{"a": "b"}
		}),
		"helper": helper,
	} {
		if other.Name == base.Name {
			t.Errorf("with another %s, the name is still %s", what, base.Name)
		}
	}
}
