//go:build e2e

package e2e

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestInvalidAnnotationIsReported checks that an operator sees on the template which of
// its annotations is invalid.
func TestInvalidAnnotationIsReported(t *testing.T) {
	t.Parallel()
	const template = "invalid-annotation"
	suite.CopyTemplate(t, "echo", template, func(template *corev1.PodTemplate) {
		template.Annotations["binder-project.org/cull-timeout"] = "soon"
	})
	harness.Until(t, 30*time.Second, "an Event tells of the annotation", func(ctx context.Context) error {
		events, err := suite.Kube.Client.CoreV1().Events(harness.InstancesNamespace).List(ctx, metav1.ListOptions{
			FieldSelector: "involvedObject.kind=PodTemplate,involvedObject.name=" + template + ",reason=InvalidAnnotation",
		})
		if err == nil && len(events.Items) == 0 {
			err = errors.New("there is none")
		}
		return err
	})
}
