package main

import (
	"context"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

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

// One warning for each version of what is wrong, however often it is seen.
func TestWarningOfIdleness(t *testing.T) {
	server := newFakeServer(time.Now, newTemplate("jupyter", withTemplateAnnotation(idlePathsAnnotation, "(")),
		newTemplate("other", withTemplateAnnotation(idlePathsAnnotation, "poll"), withTemplateAnnotation(activityProbeAnnotation, "/x")))
	c := startClusterOn(t, server)
	log, out := recordLog()
	if err := warnOfIdleness(c.Cluster, log); err != nil {
		t.Fatal(err)
	}
	change := func(annotation, value, version string) {
		t.Helper()
		template := newTemplate("jupyter", withTemplateAnnotation(idlePathsAnnotation, "("), withTemplateAnnotation("x", version))
		template.Annotations[annotation], template.ResourceVersion = value, version
		if _, err := server.client.CoreV1().PodTemplates(testNamespace).Update(context.Background(), template, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the cache has the template", func() bool {
			cached, ok := c.PodTemplate("jupyter")
			return ok && cached.Annotations["x"] == version
		})
	}
	change("y", "z", "101") // something else
	change(idlePathsAnnotation, "[", "102")
	for _, want := range []string{
		"template=jupyter annotation=" + idlePathsAnnotation + ` problem="error parsing regexp: missing closing ): ` + "`(`",
		"template=jupyter annotation=" + idlePathsAnnotation + ` problem="error parsing regexp: missing closing ]: ` + "`[`",
		"template=other annotation=" + activityProbeAnnotation,
	} {
		eventually(t, "the log has "+want, func() bool { return strings.Contains(out.String(), want) })
	}
	if got := strings.Count(out.String(), "level=WARN"); got != 3 {
		t.Errorf("%d warnings, want 3:\n%s", got, out)
	}
}
