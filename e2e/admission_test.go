//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestServiceCannotUseOthersSecrets creates pods and DaemonSets with the service's
// account, as a dry run: the admission policy refuses those that use what no
// template may use.
func TestServiceCannotUseOthersSecrets(t *testing.T) {
	t.Parallel()
	const (
		allowed    = ""
		secrets    = `no Secret or ConfigMap but those`
		accounts   = `no service account but`
		tokens     = `no token of a service account`
		priority   = `no priority that is as high`
		volumes    = `no such volume`
		projected  = `no such projected volume`
		projection = `{"volumes": [{"name": "v", "projected": {"sources": [`
		variable   = `{"name": "X", "valueFrom": {`
	)
	for _, name := range []string{"other", "template-a"} {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
		_, err := suite.Kube.Client.CoreV1().ServiceAccounts(harness.InstancesNamespace).Create(t.Context(), account, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	inEnv := func(container, source string) string {
		return `{"` + container + `": [{"name": "app", "env": [{"name": "A", "value": "b"}, ` + variable + source + `}}]}]}`
	}
	for spec, want := range map[string]string{
		`{}`:                                      allowed,
		`{"serviceAccountName": "default"}`:       allowed,
		`{"serviceAccountName": "template-a"}`:    allowed,
		`{"serviceAccountName": "other"}`:         accounts,
		`{"serviceAccount": "other"}`:             accounts, // the deprecated field
		`{"automountServiceAccountToken": true}`:  tokens,
		`{"imagePullSecrets": [{"name": "any"}]}`: allowed,

		`{"priorityClassName": "system-cluster-critical"}`:   priority,
		`{"priorityClassName": "` + harness.Namespace + `"}`: priority,

		`{"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "downwardAPI": {}}]}`:                 allowed,
		`{"volumes": [{"name": "v", "image": {"reference": "a"}}]}`:                                      allowed,
		`{"volumes": [{"name": "v", "secret": {"secretName": "template-a"}}]}`:                           allowed,
		`{"volumes": [{"name": "v", "secret": {"secretName": "other"}}]}`:                                volumes,
		`{"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "secret": {"secretName": "other"}}]}`: volumes,
		`{"volumes": [{"name": "v", "secret": {"secretName": "other", "optional": true}}]}`:              volumes,
		`{"volumes": [{"name": "v", "configMap": {"name": "template-a"}}]}`:                              allowed,
		`{"volumes": [{"name": "v", "configMap": {"name": "kube-root-ca.crt"}}]}`:                        volumes,
		`{"volumes": [{"name": "v", "csi": {"driver": "secrets-store.csi.k8s.io"}}]}`:                    volumes,

		projection + `{"secret": {"name": "template-a"}}, {"downwardAPI": {}}]}}]}`:                    allowed,
		projection + `{"downwardAPI": {}}, {"secret": {"name": "other"}}]}}]}`:                         projected,
		projection + `{"configMap": {"name": "other"}}]}}]}`:                                           projected,
		projection + `{"serviceAccountToken": {"path": "t"}}]}}]}`:                                     projected,
		projection + `{"clusterTrustBundle": {"name": "b", "path": "p"}}]}}]}`:                         projected,
		projection + `{"serviceAccountToken": {"path": "t"}}]}}], "serviceAccountName": "template-a"}`: allowed,

		inEnv("containers", `"fieldRef": {"fieldPath": "metadata.name"}`):                                    allowed,
		inEnv("containers", `"secretKeyRef": {"name": "template-a", "key": "k"}`):                            allowed,
		inEnv("containers", `"secretKeyRef": {"name": "other", "key": "k"}`):                                 secrets,
		inEnv("containers", `"configMapKeyRef": {"name": "other", "key": "k"}`):                              secrets,
		inEnv("initContainers", `"secretKeyRef": {"name": "other", "key": "k"}`):                             secrets,
		`{"containers": [{"name": "app", "envFrom": [{"secretRef": {"name": "other"}}]}]}`:                   secrets,
		`{"containers": [{"name": "app", "envFrom": [{"prefix": "A", "configMapRef": {"name": "other"}}]}]}`: secrets,
		`{"containers": [{"name": "app", "envFrom": [{"configMapRef": {"name": "template-a"}}]}]}`:           allowed,
	} {
		t.Run(spec, func(t *testing.T) {
			pod := podSpec(t, spec)
			client := suite.Kube.AsService(t)
			dryRun := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
			check := func(kind string, err error) {
				if want == allowed {
					assert.NoError(t, err, kind)
				} else {
					assert.ErrorContains(t, err, want, kind)
				}
			}
			_, err := client.CoreV1().Pods(harness.InstancesNamespace).Create(t.Context(), &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "policy"}, Spec: pod,
			}, dryRun)
			check("Pod", err)
			labels := map[string]string{"policy": "test"}
			_, err = client.AppsV1().DaemonSets(harness.InstancesNamespace).Create(t.Context(), &appsv1.DaemonSet{
				ObjectMeta: metav1.ObjectMeta{Name: "policy"},
				Spec: appsv1.DaemonSetSpec{
					Selector: &metav1.LabelSelector{MatchLabels: labels},
					Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod},
				},
			}, dryRun)
			check("DaemonSet", err)
		})
	}
}

// TestTemplateWithOthersSecret checks that neither a launch nor a preload of a template
// gets around the admission policy. TestMissingConfigMap launches a permitted one.
func TestTemplateWithOthersSecret(t *testing.T) {
	t.Parallel()
	const template = "others-secret"
	suite.CopyTemplate(t, "echo", template, func(template *corev1.PodTemplate) {
		template.Template.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{
			SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "other"}},
		}}
	})
	suite.API.Do(t, http.MethodPost, "/applications/"+template, "", "Authorization", suite.API.Key()).
		WantError(t, http.StatusInternalServerError, "badKubeRequest")

	suite.CopyTemplate(t, "echo", "others-account", func(template *corev1.PodTemplate) {
		template.Template.Spec.ServiceAccountName = "builder"
	})
	suite.API.Do(t, http.MethodPost, "/preload/others-account", "", "Authorization", suite.API.Key()).
		WantError(t, http.StatusInternalServerError, "badKubeRequest")
}

// TestAdmissionPolicyIsSound checks that the API server found no mistake in the policy's
// expressions, such as a field that does not exist.
func TestAdmissionPolicyIsSound(t *testing.T) {
	t.Parallel()
	harness.Until(t, 20*time.Second, "the policy's expressions are checked", func(ctx context.Context) error {
		policy, err := suite.Kube.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies().
			Get(ctx, harness.InstancesNamespace, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if policy.Status.TypeChecking == nil || policy.Status.ObservedGeneration != policy.Generation {
			return errors.New("they are not checked yet")
		}
		assert.Empty(t, policy.Status.TypeChecking.ExpressionWarnings)
		return nil
	})
}

// podSpec returns the spec of a restricted pod with fields of its own.
func podSpec(t *testing.T, fields string) corev1.PodSpec {
	t.Helper()
	yes, no, user := true, false, int64(1000)
	var spec corev1.PodSpec
	require.NoError(t, json.Unmarshal([]byte(fields), &spec))
	if len(spec.Containers) == 0 {
		spec.Containers = []corev1.Container{{Name: "app"}}
	}
	for _, containers := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range containers {
			containers[i].Image = "localhost/binder-echo:dev"
			containers[i].SecurityContext = &corev1.SecurityContext{
				AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			}
		}
	}
	if len(spec.InitContainers) > 0 {
		spec.InitContainers[0].Name = "init"
	}
	if spec.AutomountServiceAccountToken == nil {
		spec.AutomountServiceAccountToken = &no
	}
	spec.SecurityContext = &corev1.PodSecurityContext{
		RunAsNonRoot: &yes, RunAsUser: &user,
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	return spec
}
