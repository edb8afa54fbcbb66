package preload

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// user is the user and group id of the waiting process: any but root. 65532 is what
// images without a user of their own commonly call "nonroot".
const user = 65532

// newDaemonSet makes the DaemonSet that pulls a template's images onto every node
// that its instances may run on, and keeps them there. The images are volumes of a
// pod that only waits: the kubelet pulls them, and nothing in them runs. A DaemonSet
// is never changed: another version of the template, or of this function, gives
// another name.
func newDaemonSet(template *corev1.PodTemplate, namespace, helperImage string) (*appsv1.DaemonSet, error) {
	volumes := imageVolumes(&template.Template.Spec)
	if len(volumes) == 0 {
		return nil, errors.New("it has no image")
	}
	labels := map[string]string{
		instance.ManagedByLabel:    instance.ManagerName,
		instance.PreloadLabel:      "true",
		instance.TemplateLabel:     instance.TemplateLabelValue(template.Name),
		instance.TemplateHashLabel: podtemplate.Hash(template),
	}
	annotations := map[string]string{instance.TemplateNameAnnotation: template.Name}
	pod := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: annotations},
		Spec:       podSpec(&template.Template.Spec, volumes, helperImage),
	}
	name := nameOf(pod)
	// The selector must match no other preload's pods: for a moment, two versions of
	// a template have one.
	pod.Labels = maps.Clone(labels)
	pod.Labels[instance.PreloadNameLabel] = name
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: labels, Annotations: annotations},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{instance.PreloadNameLabel: name}},
			Template: pod,
		},
	}, nil
}

// nameOf returns a name that is a hash of what is pulled, where and how.
func nameOf(pod corev1.PodTemplateSpec) string {
	data, err := json.Marshal(pod)
	if err != nil { // plain data cannot fail to encode
		panic(err)
	}
	sum := sha256.Sum256(data)
	return "binder-preload-" + hex.EncodeToString(sum[:5])
}

// imageVolumes returns the images that an instance needs, each once.
func imageVolumes(spec *corev1.PodSpec) []corev1.Volume {
	var sources []corev1.ImageVolumeSource
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for _, c := range containers {
			sources = append(sources, corev1.ImageVolumeSource{Reference: c.Image, PullPolicy: c.ImagePullPolicy})
		}
	}
	for _, v := range spec.Volumes {
		if v.Image != nil {
			sources = append(sources, *v.Image)
		}
	}
	var volumes []corev1.Volume
	seen := map[corev1.ImageVolumeSource]bool{}
	for _, source := range sources {
		if source.Reference == "" || seen[source] {
			continue
		}
		seen[source] = true
		volumes = append(volumes, corev1.Volume{
			Name:         fmt.Sprintf("image-%d", len(volumes)),
			VolumeSource: corev1.VolumeSource{Image: &source},
		})
	}
	return volumes
}

// podSpec takes from the template's pod only what says onto which nodes and with
// which credentials images are pulled. The rest is accepted by any namespace of
// instances: it meets the restricted pod security standard, has small limits and
// needs no token.
func podSpec(spec *corev1.PodSpec, volumes []corev1.Volume, helperImage string) corev1.PodSpec {
	var mounts []corev1.VolumeMount
	for _, v := range volumes { // the kubelet does not wait for volumes that are not mounted
		mounts = append(mounts, corev1.VolumeMount{Name: v.Name, MountPath: "/images/" + v.Name, ReadOnly: true})
	}
	pod := corev1.PodSpec{
		NodeSelector:       maps.Clone(spec.NodeSelector),
		Tolerations:        slices.Clone(spec.Tolerations),
		RuntimeClassName:   spec.RuntimeClassName,
		ImagePullSecrets:   slices.Clone(spec.ImagePullSecrets),
		ServiceAccountName: spec.ServiceAccountName, // it may have pull secrets

		AutomountServiceAccountToken:  new(false),
		EnableServiceLinks:            new(false),
		TerminationGracePeriodSeconds: new(int64(1)), // the process has nothing to clean up
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot:   new(true),
			RunAsUser:      new(int64(user)),
			RunAsGroup:     new(int64(user)),
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Containers: []corev1.Container{{
			Name:         "wait",
			Image:        helperImage,
			VolumeMounts: mounts,
			Resources: corev1.ResourceRequirements{
				Requests: resources("1m", "8Mi", "1Mi"),
				Limits:   resources("100m", "32Mi", "16Mi"),
			},
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: new(false),
				ReadOnlyRootFilesystem:   new(true),
				Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
		}},
		Volumes: volumes,
	}
	// Affinity to other pods is meant for instances, and would exclude nodes here.
	if spec.Affinity != nil && spec.Affinity.NodeAffinity != nil {
		pod.Affinity = &corev1.Affinity{NodeAffinity: spec.Affinity.NodeAffinity.DeepCopy()}
	}
	return pod
}

func resources(cpu, memory, storage string) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse(cpu),
		corev1.ResourceMemory:           resource.MustParse(memory),
		corev1.ResourceEphemeralStorage: resource.MustParse(storage),
	}
}
