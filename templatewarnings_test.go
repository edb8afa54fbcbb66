package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// One warning for each version of what is wrong, however often it is seen.
func TestWarningOfIdleness(t *testing.T) {
	server := kubetest.NewServer(time.Now, kubetest.Template("jupyter", kubetest.WithTemplateAnnotation(instance.IdlePathsAnnotation, "(")),
		kubetest.Template("other", kubetest.WithTemplateAnnotation(instance.IdlePathsAnnotation, "poll"), kubetest.WithTemplateAnnotation(instance.ActivityProbeAnnotation, "/x")))
	c := startClusterOn(t, server)
	log, out := kubetest.RecordLog()
	if _, err := podtemplate.NewWarnings(server.Client, c.Cluster, log, time.Now); err != nil {
		t.Fatal(err)
	}
	change := func(annotation, value, version string) {
		t.Helper()
		template := kubetest.Template("jupyter", kubetest.WithTemplateAnnotation(instance.IdlePathsAnnotation, "("), kubetest.WithTemplateAnnotation("x", version))
		template.Annotations[annotation], template.ResourceVersion = value, version
		if _, err := server.Client.CoreV1().PodTemplates(kubetest.Namespace).Update(context.Background(), template, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		kubetest.Eventually(t, "the cache has the template", func() bool {
			cached, ok := c.PodTemplate("jupyter")
			return ok && cached.Annotations["x"] == version
		})
	}
	change("y", "z", "101") // something else
	change(instance.IdlePathsAnnotation, "[", "102")
	for _, want := range []string{
		"template=jupyter annotation=" + instance.IdlePathsAnnotation + ` problem="error parsing regexp: missing closing ): ` + "`(`",
		"template=jupyter annotation=" + instance.IdlePathsAnnotation + ` problem="error parsing regexp: missing closing ]: ` + "`[`",
		"template=other annotation=" + instance.ActivityProbeAnnotation,
	} {
		kubetest.Eventually(t, "the log has "+want, func() bool { return strings.Contains(out.String(), want) })
	}
	if got := strings.Count(out.String(), "level=WARN"); got != 3 {
		t.Errorf("%d warnings, want 3:\n%s", got, out)
	}
}

// An operator finds it where he looks, once, however many replicas there are.
func TestTemplateWarningIsAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := strings.Repeat("t", 253)
		server := kubetest.NewServer(time.Now, kubetest.Template("jupyter", kubetest.WithTemplateAnnotation(instance.IdlePathsAnnotation, "(")),
			kubetest.Template(long, kubetest.WithTemplateAnnotation(instance.ActivityProbeAnnotation, "/x")), kubetest.Template("fine"))
		ctx, cancel := context.WithCancel(t.Context())
		for range 2 {
			warnings, err := podtemplate.NewWarnings(server.Client, startClusterOn(t, server).Cluster, kubetest.NoLog(), time.Now)
			if err != nil {
				t.Fatal(err)
			}
			go warnings.Run(ctx)
		}
		synctest.Wait()
		cancel()
		events, err := server.Client.CoreV1().Events(kubetest.Namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil || len(events.Items) != 2 {
			t.Fatalf("got %d events, %v; want one of each template: %v", len(events.Items), err, events)
		}
		for _, event := range events.Items {
			about := event.InvolvedObject
			annotation := map[string]string{"jupyter": instance.IdlePathsAnnotation, long: instance.ActivityProbeAnnotation}[about.Name]
			if about.Kind != "PodTemplate" || annotation == "" || !strings.HasPrefix(event.Message, annotation+" is not valid") ||
				event.Type != corev1.EventTypeWarning || event.Reason != "InvalidAnnotation" {
				t.Errorf("got %+v", event)
			}
			if len(event.Name) > 253 || len(event.Labels) > 0 {
				t.Errorf("its name has %d characters, its labels are %v", len(event.Name), event.Labels)
			}
		}
	})
}

func TestTemplateWarningThatIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := kubetest.NewServer(time.Now, kubetest.Template("jupyter", kubetest.WithTemplateAnnotation(instance.IdlePathsAnnotation, "(")))
		mend := server.FailOn("patch", "events", errors.New("the API server is away"))
		log, out := kubetest.RecordLog()
		warnings, err := podtemplate.NewWarnings(server.Client, startClusterOn(t, server).Cluster, log, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go warnings.Run(ctx)
		synctest.Wait()
		if !strings.Contains(out.String(), `level=ERROR msg="the template's Event was not written, will be tried again" template=jupyter`) {
			t.Errorf("the log is\n%s", out)
		}
		mend()
		for range 2 { // what the API server drops comes again
			time.Sleep(podtemplate.WarningRenewal)
			synctest.Wait()
			events := server.Client.CoreV1().Events(kubetest.Namespace)
			if all, err := events.List(t.Context(), metav1.ListOptions{}); err != nil || len(all.Items) != 1 {
				t.Fatalf("got %v, %v; want the Event", all, err)
			}
			if err := events.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		cancel()
	})
}

// The informer's goroutine is not held up by more than can be told.
func TestTemplateWarningsAreBounded(t *testing.T) {
	log, out := kubetest.RecordLog()
	warnings := &podtemplate.Warnings{Log: log, Queue: make(chan podtemplate.TemplateWarning, podtemplate.WarningQueue)}
	for n := range podtemplate.WarningQueue + 1 {
		warnings.Look(nil, kubetest.Template(fmt.Sprint("t", n), kubetest.WithTemplateAnnotation(instance.IdlePathsAnnotation, "(")))
	}
	if got := strings.Count(out.String(), "one has no Event"); got != 1 {
		t.Errorf("told %d times, want once", got)
	}
}
