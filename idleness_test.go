package main

import "testing"

func TestPodHasItsTemplatesIdleness(t *testing.T) {
	template := newTemplate("jupyter", withTemplateAnnotation(idlePathsAnnotation, "poll"), withTemplateAnnotation(activityProbeAnnotation, "status"))
	pod, err := buildPod(template, instanceID(1), noon, 0)
	if err != nil {
		t.Fatal(err)
	}
	if pod.Annotations[idlePathsAnnotation] != "poll" || pod.Annotations[activityProbeAnnotation] != "status" {
		t.Errorf("got %v", pod.Annotations)
	}
	if got := instanceFromPod(pod, noon, testStartTimeout).IdlePaths; got != "poll" {
		t.Errorf("the instance has idle paths %q", got)
	}
}

// A template works without what is not valid.
func TestPodWithoutInvalidIdleness(t *testing.T) {
	template := newTemplate("jupyter", withTemplateAnnotation(idlePathsAnnotation, "("), withTemplateAnnotation(activityProbeAnnotation, "http://10.0.0.1/"))
	pod, err := buildPod(template, instanceID(1), noon, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{idlePathsAnnotation, activityProbeAnnotation} {
		if value, has := pod.Annotations[name]; has {
			t.Errorf("the pod has %s: %q", name, value)
		}
	}
}
