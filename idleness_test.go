package main

import (
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

func TestPodHasItsTemplatesIdleness(t *testing.T) {
	template := kubetest.Template("jupyter", kubetest.WithTemplateAnnotation(instance.IdlePathsAnnotation, "poll"), kubetest.WithTemplateAnnotation(instance.ActivityProbeAnnotation, "status"))
	pod, err := podtemplate.NewPod(template, kubetest.ID(1), kubetest.Noon, 0)
	if err != nil {
		t.Fatal(err)
	}
	if pod.Annotations[instance.IdlePathsAnnotation] != "poll" || pod.Annotations[instance.ActivityProbeAnnotation] != "status" {
		t.Errorf("got %v", pod.Annotations)
	}
	if got := instance.FromPod(pod, kubetest.Noon, kubetest.StartTimeout).IdlePaths; got != "poll" {
		t.Errorf("the instance has idle paths %q", got)
	}
}

// A template works without what is not valid.
func TestPodWithoutInvalidIdleness(t *testing.T) {
	template := kubetest.Template("jupyter", kubetest.WithTemplateAnnotation(instance.IdlePathsAnnotation, "("), kubetest.WithTemplateAnnotation(instance.ActivityProbeAnnotation, "http://10.0.0.1/"))
	pod, err := podtemplate.NewPod(template, kubetest.ID(1), kubetest.Noon, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{instance.IdlePathsAnnotation, instance.ActivityProbeAnnotation} {
		if value, has := pod.Annotations[name]; has {
			t.Errorf("the pod has %s: %q", name, value)
		}
	}
}
