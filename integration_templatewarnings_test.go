//go:build integration

package main

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// The API server takes a warning's Event, from several replicas, as one, which is
// found by what it is about.
func TestIntegrationTemplateWarning(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, nil)
	s.putTemplate(t, kubetest.Template("my-project", kubetest.WithTemplateAnnotation(instance.IdlePathsAnnotation, "api/(kernels")))
	log, out := kubetest.RecordLog()
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 2 {
		r := s.startReplica(t, time.Now)
		warnings, err := podtemplate.NewWarnings(r.client, r.Cache, log, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() { warnings.Run(ctx) })
	}
	var found []corev1.Event
	eventuallyWithin(t, kubetest.Patience, "the Event is there", func() bool {
		events, err := s.client.CoreV1().Events(s.namespace).List(ctx, metav1.ListOptions{
			FieldSelector: "involvedObject.kind=PodTemplate,involvedObject.name=my-project",
		})
		if err != nil {
			t.Fatal(err)
		}
		found = events.Items
		return len(found) > 0
	})
	if len(found) != 1 || found[0].Type != corev1.EventTypeWarning || !strings.Contains(found[0].Message, "missing closing )") {
		t.Errorf("got %+v", found)
	}
	if strings.Contains(out.String(), "level=ERROR") {
		t.Errorf("the log is\n%s", out)
	}
}
