package podtemplate

import (
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// FuzzNewPod makes pods of templates that anyone wrote. A template that has no problem that
// prevents launches becomes a pod, which is the instance of its id, and only the values of
// annotations that are valid get there.
func FuzzNewPod(f *testing.F) {
	for _, seed := range []string{
		`{"template": {"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80}]}]}}}`, `{}`,
		`{"metadata": {"name": "x/y", "annotations": {"binder-project.org/port": "0", "binder-project.org/max-age": "-1h"}}, "template": {"spec": {"containers": [{}]}}}`,
		`{"metadata": {"name": "t", "annotations": {"binder-project.org/idle-paths": "(a{1000}){1000}", "binder-project.org/heartbeat-frames": "1 x", "binder-project.org/activity-probe": "../x", "binder-project.org/strip-prefix": "yes"}},
			"template": {"metadata": {"labels": {"binder-project.org/id": "x", "binder-project.org/pool": "warm", "binder-project.org/client": "c"}, "annotations": {"binder-project.org/launched": "2000-01-01T00:00:00Z"}},
			"spec": {"serviceAccountName": "x", "automountServiceAccountToken": true, "enableServiceLinks": true, "initContainers": [{"name": "i", "env": [{"name": "BINDER_ID", "value": "x"}]}], "containers": [{"name": "a"}, {"name": "b", "ports": [{"containerPort": 8888, "protocol": "UDP"}]}]}}}`,
	} {
		f.Add([]byte(seed))
	}
	id := kubetest.ID(1)
	f.Fuzz(func(t *testing.T, data []byte) {
		var template corev1.PodTemplate
		if json.Unmarshal(data, &template) != nil {
			return
		}
		prevented, invalid := len(template.Template.Spec.Containers) == 0, map[string]bool{}
		for _, problem := range Problems(&template) {
			prevented = prevented || problem.PreventsLaunch
			invalid[problem.Annotation] = true
			if len(problem.Err.Error()) > 2048 {
				t.Errorf("%q: the problem has %d bytes", data, len(problem.Err.Error()))
			}
		}
		pod, err := NewPod(&template, id)
		if (err != nil) != prevented {
			t.Fatalf("%q: got %v, and the problems prevent a launch: %t", data, err, prevented)
		}
		if err != nil {
			return
		}
		if *pod.Spec.AutomountServiceAccountToken || *pod.Spec.EnableServiceLinks || pod.Labels[instance.ManagedByLabel] != instance.ManagerName ||
			!instance.IsInstance(pod) || pod.Labels[instance.IDLabel] != id || pod.Labels[instance.ClientLabel] != "" || pod.Annotations[instance.LaunchedAnnotation] != "" {
			t.Errorf("%q becomes %+v", data, pod)
		}
		if name := instance.TemplateOf(pod); name != template.Name && template.Name != "" || len(validation.IsValidLabelValue(pod.Labels[instance.TemplateLabel])) > 0 {
			t.Errorf("%q is of the template %q, with the label %q", data, name, pod.Labels[instance.TemplateLabel])
		}
		for key := range invalid {
			if value, ok := pod.Annotations[key]; ok {
				t.Errorf("%q: the pod has %s: %q", data, key, value)
			}
		}
		for _, container := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
			count := 0
			for _, variable := range container.Env {
				if variable.Name == "BINDER_ID" {
					count++
				}
			}
			if count != 1 || container.Env[0].Value != id {
				t.Errorf("%q: a container has the environment %v", data, container.Env)
			}
		}
		if Hash(&template) != pod.Labels[instance.TemplateHashLabel] {
			t.Errorf("%q: making a pod changed the template", data)
		}
	})
}
