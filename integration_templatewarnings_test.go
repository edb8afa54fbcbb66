//go:build integration

package main

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// The API server takes the Events about a template's annotations, and they are found
// by the template.
func TestIntegrationTemplateWarning(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, nil)
	s.putTemplate(t, kubetest.Template("my-project",
		kubetest.WithTemplateAnnotation(instance.IdlePathsAnnotation, "api/(kernels"),
		kubetest.WithTemplateAnnotation(instance.PortAnnotation, "http")))
	log, out := kubetest.RecordLog()
	r := s.startReplica(t, time.Now)
	warnings, err := podtemplate.NewWarnings(podtemplate.Deps{Events: r.client.CoreV1().Events(s.namespace), Templates: r.Cache, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	runUntilEnd(t, warnings.Run)
	var found []corev1.Event
	eventuallyWithin(t, kubetest.Patience, "the Events are there", func() bool {
		events, err := s.client.CoreV1().Events(s.namespace).List(t.Context(), metav1.ListOptions{
			FieldSelector: "involvedObject.kind=PodTemplate,involvedObject.name=my-project,reason=InvalidAnnotation",
		})
		if err != nil {
			t.Fatal(err)
		}
		found = events.Items
		return len(found) == 2
	})
	for _, event := range found {
		if event.Type != corev1.EventTypeWarning || len(event.Labels) > 0 ||
			!strings.Contains(event.Message, instance.IdlePathsAnnotation) && !strings.Contains(event.Message, instance.PortAnnotation) {
			t.Errorf("got %+v", event)
		}
	}
	if strings.Contains(out.String(), "level=ERROR") {
		t.Errorf("the log is\n%s", out)
	}
}
