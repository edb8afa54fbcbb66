package harness

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// CopyTemplate creates a changed copy of a template. When the test ends, it deletes
// the copy and waits until its preload is gone.
func (s *Suite) CopyTemplate(t testing.TB, from, name string, changes ...func(*corev1.PodTemplate)) {
	t.Helper()
	templates := s.Kube.Client.CoreV1().PodTemplates(InstancesNamespace)
	original, err := templates.Get(t.Context(), from, metav1.GetOptions{})
	if err != nil {
		t.Fatalf("get template %s: %v", from, err)
	}
	template := &corev1.PodTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: original.Annotations},
		Template:   original.Template,
	}
	for _, change := range changes {
		change(template)
	}
	if _, err := templates.Create(t.Context(), template, metav1.CreateOptions{}); err != nil {
		t.Fatalf("create template %s: %v", name, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
		defer cancel()
		if err := templates.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("delete template %s: %v", name, err)
		}
		if err := poll(ctx, cleanupTimeout, func(ctx context.Context) error { return s.NothingPreloaded(ctx, name) }); err != nil {
			t.Errorf("preload of %s: %v", name, err)
		}
	})
	s.AwaitTemplate(t, name)
}

// AwaitTemplate waits until every replica knows a template that was just created.
func (s *Suite) AwaitTemplate(t testing.TB, name string) {
	t.Helper()
	for _, replica := range s.Replicas(t) {
		Until(t, 20*time.Second, replica.Name+" knows template "+name, func(ctx context.Context) error {
			answer, err := replica.API.Try(ctx, http.MethodGet, "/preload/"+name, "", "Authorization", s.API.key)
			if err == nil && answer.Code != http.StatusOK {
				err = fmt.Errorf("it returned %d: %s", answer.Code, answer.Body)
			}
			return err
		})
	}
}

// ChangeTemplate updates a template.
func (s *Suite) ChangeTemplate(t testing.TB, name string, change func(*corev1.PodTemplate)) {
	t.Helper()
	templates := s.Kube.Client.CoreV1().PodTemplates(InstancesNamespace)
	template, err := templates.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatalf("get template %s: %v", name, err)
	}
	change(template)
	if _, err := templates.Update(t.Context(), template, metav1.UpdateOptions{}); err != nil {
		t.Fatalf("change template %s: %v", name, err)
	}
}

// NothingPreloaded returns nil if a template has no preload DaemonSet and no
// preload pod.
func (s *Suite) NothingPreloaded(ctx context.Context, template string) error {
	options := metav1.ListOptions{LabelSelector: "binder-project.org/preload=true,binder-project.org/template=" + template}
	sets, err := s.Kube.Client.AppsV1().DaemonSets(InstancesNamespace).List(ctx, options)
	if err != nil {
		return err
	}
	pods, err := s.Kube.Client.CoreV1().Pods(InstancesNamespace).List(ctx, options)
	if err != nil {
		return err
	}
	if len(sets.Items)+len(pods.Items) > 0 {
		return fmt.Errorf("%d DaemonSets and %d pods still exist", len(sets.Items), len(pods.Items))
	}
	return nil
}
