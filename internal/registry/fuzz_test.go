package registry

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// FuzzPodOfAnswer makes a pod of a registry's answer. A hostile registry decides on the
// image, its port, its command and its limits. All else is the pod of an honest answer.
func FuzzPodOfAnswer(f *testing.F) {
	const honest = `{"name": "p", "image-source": "i"}`
	for _, seed := range []string{
		honest, `{"name": "p", "image-source": "r.example:5000/a/b@sha256:0", "port": 80, "command": ["a", "", "$(X)"], "limits": {"cpu": 2, "memory": "1.5Gi", "ephemeral-storage": null}}`,
		`{"name": "p", "image-source": "i", "spec": {"serviceAccountName": "x", "hostNetwork": true}, "volumes": [{"hostPath": {"path": "/"}}], "annotations": {"binder-project.org/max-age": "1h"}}`,
		`{"name": "p", "image-source": "i", "limits": {"nvidia.com/gpu": 1}}`, `{"name": "p", "image-source": "i", "limits": {"cpu": "0.0001", "memory": "1m"}}`,
		`{"NAME": "p", "Image-Source": "i", "name": "p", "port": 65536}`, `{"name": "p", "image-source": "i", "services": [1]}`, `null`, `[]`, `{"name": "p", "image-source": "-i"}`,
		`{"name": "p", "image-source": "i", "command": ["x", "\u0000"]}`, `{"name": "p", "image-source": "i\n"}`, `{"name": "p", "image-source": "i", "limits": {"cpu": "9999999999999.999999999T"}}`,
	} {
		f.Add(seed)
	}
	want, err := podOf(honest)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body string) {
		pod, err := podOf(body)
		if err != nil {
			if pod != nil || len(err.Error()) > 4096 {
				t.Errorf("%q: the error has %d bytes", body, len(err.Error()))
			}
			return
		}
		container := &pod.Spec.Containers[0]
		if len(container.Image) > maxImageLength+len(":latest") || strings.ContainsAny(container.Image, " \t\n\\$") || container.Command[0] == "" || len(strings.Join(container.Command, " ")) > maxCommandLength {
			t.Errorf("%q: the image is %q and the command %q", body, container.Image, container.Command)
		}
		if port := container.Ports[0].ContainerPort; port < 1 || port > 65535 || len(container.Ports) != 1 {
			t.Errorf("%q: the ports are %v", body, container.Ports)
		}
		for name, limit := range container.Resources.Limits {
			request, ok := container.Resources.Requests[name]
			if !ok || request.Cmp(limit) > 0 || limit.Sign() <= 0 || !slices.Contains([]corev1.ResourceName{"cpu", "memory", "ephemeral-storage"}, name) {
				t.Errorf("%q: of %s, %s are requested and %s are allowed", body, name, &request, &limit)
			}
		}
		if demands := strings.Contains(strings.Join(container.Command, " "), "$(BINDER_TOKEN)"); demands != (pod.Annotations[instance.TokenHeaderAnnotation] != "") {
			t.Errorf("%q: the command is %q, and the token is shown: %t", body, container.Command, !demands)
		}
		pod.Annotations[instance.TokenHeaderAnnotation] = want.Annotations[instance.TokenHeaderAnnotation]
		own := &want.Spec.Containers[0]
		container.Image, container.Command, container.Ports, container.Resources, container.ReadinessProbe = own.Image, own.Command, own.Ports, own.Resources, own.ReadinessProbe
		pod.Annotations[instance.PortAnnotation] = want.Annotations[instance.PortAnnotation]
		pod.Labels[instance.TemplateHashLabel] = want.Labels[instance.TemplateHashLabel]
		if !reflect.DeepEqual(pod, want) {
			t.Errorf("%q sets more of the pod:\n got %+v\nwant %+v", body, pod, want)
		}
	})
}

// podOf makes a pod of a registry's answer to the question for the template p.
func podOf(body string) (*corev1.Pod, error) {
	described, err := parse("p", []byte(body))
	if err != nil {
		return nil, err
	}
	template, err := described.podTemplate(kubetest.Namespace)
	if err != nil {
		return nil, err
	}
	return podtemplate.NewPod(template, kubetest.ID(1), kubetest.Token)
}
