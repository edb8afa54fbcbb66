package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// The tests in this file check manifests only and need no cluster.

// clusterWide are the kinds of the manifests that belong to no namespace. Their
// objects are named after a namespace, so that two installations do not share them.
var clusterWide = []string{"Namespace", "PriorityClass", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}

// rendered returns the directories that users apply, each with the namespaces of
// its objects.
func rendered() map[string][]string {
	return map[string][]string{
		"manifests":       {"binder", "binder-instances"},
		"manifests/local": {"binder", "binder-instances"},
		"e2e/manifests":   {harness.Namespace, harness.InstancesNamespace},
	}
}

// forEachRendered runs a test for the objects of each directory.
func forEachRendered(t *testing.T, test func(t *testing.T, objects []runtime.Object)) {
	for dir := range rendered() {
		t.Run(dir, func(t *testing.T) { test(t, load(t, dir)) })
	}
}

// load renders a directory and decodes its objects strictly: an unknown field
// fails the test.
func load(t *testing.T, dir string) []runtime.Object {
	t.Helper()
	unstructureds, err := harness.Render(filepath.Join("..", dir))
	require.NoError(t, err)
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	var objects []runtime.Object
	for _, object := range unstructureds {
		data, err := object.MarshalJSON()
		require.NoError(t, err)
		decoded, _, err := decoder.Decode(data, nil, nil)
		require.NoError(t, err, "%s %s", object.GetKind(), object.GetName())
		objects = append(objects, decoded)
	}
	return objects
}

// of returns the objects of a type. It fails the test if there are none.
func of[T runtime.Object](t *testing.T, objects []runtime.Object) []T {
	t.Helper()
	var found []T
	for _, object := range objects {
		if typed, ok := object.(T); ok {
			found = append(found, typed)
		}
	}
	require.NotEmpty(t, found)
	return found
}

func TestManifestsStayInTheirNamespaces(t *testing.T) {
	for dir, namespaces := range rendered() {
		t.Run(dir, func(t *testing.T) {
			objects, err := harness.Render(filepath.Join("..", dir))
			require.NoError(t, err)
			for _, object := range objects {
				what := object.GetKind() + " " + object.GetName()
				if slices.Contains(clusterWide, object.GetKind()) {
					assert.Empty(t, object.GetNamespace(), what)
					assert.Contains(t, namespaces, object.GetName(), what)
				} else {
					assert.Contains(t, namespaces, object.GetNamespace(), what)
				}
				if dir == "e2e/manifests" {
					continue // the tests' templates need no labels
				}
				assert.NotEmpty(t, object.GetLabels()["app.kubernetes.io/name"], what)
				assert.Equal(t, "binder", object.GetLabels()["app.kubernetes.io/part-of"], what)
			}
		})
	}
}

// TestManifestsGrantLeastPrivilege pins the service's rights, so that a new right
// is a deliberate change of this list.
func TestManifestsGrantLeastPrivilege(t *testing.T) {
	want := []string{
		"controller: leases create",
		"controller: leases get,update [binder-deploy-kubernetes]",
		"controller: services list,watch [binder-proxy]",
		"instances: daemonsets create,delete,list,watch",
		"instances: events create,list,patch,watch",
		"instances: pods create,delete,list,patch,watch",
		"instances: podtemplates list,watch",
		"instances: resourcequotas list,watch",
	}
	forEachRendered(t, func(t *testing.T, objects []runtime.Object) {
		var got []string
		for _, role := range of[*rbacv1.Role](t, objects) {
			namespace := "controller"
			if strings.HasSuffix(role.Namespace, "-instances") {
				namespace = "instances"
			}
			for _, rule := range role.Rules {
				line := fmt.Sprintf("%s: %s %s", namespace, strings.Join(rule.Resources, ","), strings.Join(slices.Sorted(slices.Values(rule.Verbs)), ","))
				if len(rule.ResourceNames) > 0 {
					line += fmt.Sprint(" ", rule.ResourceNames)
				}
				got = append(got, line)
			}
		}
		assert.ElementsMatch(t, want, got)
		for _, object := range objects {
			switch object.(type) {
			case *rbacv1.ClusterRole, *rbacv1.ClusterRoleBinding:
				t.Errorf("cluster-wide rights: %T", object)
			}
		}
	})
}

// TestManifestsBindThePolicies checks that the admission policy is about the
// Deployment's service account, and is in force.
func TestManifestsBindThePolicies(t *testing.T) {
	forEachRendered(t, func(t *testing.T, objects []runtime.Object) {
		deployment := of[*appsv1.Deployment](t, objects)[0]
		policy := of[*admissionv1.ValidatingAdmissionPolicy](t, objects)[0]
		user := fmt.Sprintf("request.userInfo.username == %q",
			"system:serviceaccount:"+deployment.Namespace+":"+deployment.Spec.Template.Spec.ServiceAccountName)
		require.Len(t, policy.Spec.MatchConditions, 1)
		assert.Equal(t, user, policy.Spec.MatchConditions[0].Expression)
		assert.Equal(t, admissionv1.Fail, *policy.Spec.FailurePolicy)
		binding := of[*admissionv1.ValidatingAdmissionPolicyBinding](t, objects)[0]
		assert.Equal(t, policy.Name, binding.Spec.PolicyName)
		assert.Equal(t, []admissionv1.ValidationAction{admissionv1.Deny}, binding.Spec.ValidationActions)
		assert.Nil(t, binding.Spec.MatchResources)
	})
}

// TestManifestsGiveTheServicePriority checks that instances cannot keep a replica
// from a node.
func TestManifestsGiveTheServicePriority(t *testing.T) {
	forEachRendered(t, func(t *testing.T, objects []runtime.Object) {
		values := map[string]int32{}
		for _, class := range of[*schedulingv1.PriorityClass](t, objects) {
			values[class.Name] = class.Value
			assert.False(t, class.GlobalDefault, class.Name)
		}
		service := of[*appsv1.Deployment](t, objects)[0].Spec.Template.Spec
		require.Contains(t, values, service.PriorityClassName)
		assert.Positive(t, values[service.PriorityClassName], "above pods without a class")
		for _, template := range of[*corev1.PodTemplate](t, objects) {
			if template.Name == "jupyter" {
				require.Contains(t, values, template.Template.Spec.PriorityClassName)
				assert.Negative(t, values[template.Template.Spec.PriorityClassName])
			}
		}
		memory := service.Containers[0].Resources
		assert.Equal(t, memory.Limits.Memory().Value(), memory.Requests.Memory().Value(), "a replica is given what it may use")
		hard := of[*corev1.ResourceQuota](t, objects)[0].Spec.Hard
		for _, resource := range []corev1.ResourceName{corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory} {
			assert.Contains(t, hard, resource)
		}
	})
}

// TestManifestsBindTheController checks that the Deployment's service account gets
// the rights.
func TestManifestsBindTheController(t *testing.T) {
	forEachRendered(t, func(t *testing.T, objects []runtime.Object) {
		deployment := of[*appsv1.Deployment](t, objects)[0]
		for _, binding := range of[*rbacv1.RoleBinding](t, objects) {
			require.Len(t, binding.Subjects, 1)
			assert.Equal(t, deployment.Namespace, binding.Subjects[0].Namespace, binding.Namespace)
			assert.Equal(t, deployment.Spec.Template.Spec.ServiceAccountName, binding.Subjects[0].Name)
		}
	})
}

// TestManifestsAreRestricted checks all pods against the restricted pod security
// standard, which both namespaces enforce.
func TestManifestsAreRestricted(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	require.NoError(t, err)
	pinned, err := api.ParseVersion("v1.36")
	require.NoError(t, err)
	level := api.LevelVersion{Level: api.LevelRestricted, Version: pinned}
	check := func(t *testing.T, name string, meta *corev1.PodTemplateSpec) {
		for _, result := range evaluator.EvaluatePod(level, &meta.ObjectMeta, &meta.Spec) {
			assert.True(t, result.Allowed, "%s: %s: %s", name, result.ForbiddenReason, result.ForbiddenDetail)
		}
	}
	forEachRendered(t, func(t *testing.T, objects []runtime.Object) {
		for _, template := range of[*corev1.PodTemplate](t, objects) {
			check(t, template.Name, &template.Template)
		}
		check(t, "the service", &of[*appsv1.Deployment](t, objects)[0].Spec.Template)
		for _, namespace := range of[*corev1.Namespace](t, objects) {
			for _, label := range []string{api.EnforceLevelLabel, api.WarnLevelLabel, api.AuditLevelLabel} {
				assert.Equal(t, "restricted", namespace.Labels[label], "%s: %s", namespace.Name, label)
				assert.Equal(t, pinned.String(), namespace.Labels[label+"-version"], "%s: %s", namespace.Name, label)
			}
		}
	})
}

// TestManifestsLeaveTimeToStop checks that the grace period is long enough for an
// orderly shutdown.
func TestManifestsLeaveTimeToStop(t *testing.T) {
	const lastWrite = 10 * time.Second // the service's limit for the last write of activity
	forEachRendered(t, func(t *testing.T, objects []runtime.Object) {
		pod := of[*appsv1.Deployment](t, objects)[0].Spec.Template.Spec
		needed := lastWrite
		for _, flag := range []string{"--shutdown-delay=", "--drain-timeout="} {
			i := slices.IndexFunc(pod.Containers[0].Args, func(arg string) bool { return strings.HasPrefix(arg, flag) })
			require.GreaterOrEqual(t, i, 0, flag)
			d, err := time.ParseDuration(strings.TrimPrefix(pod.Containers[0].Args[i], flag))
			require.NoError(t, err)
			needed += d
		}
		assert.Greater(t, time.Duration(*pod.TerminationGracePeriodSeconds)*time.Second, needed)
	})
}

// TestManifestsSelectTheService checks that each selector matches the Deployment's
// pods.
func TestManifestsSelectTheService(t *testing.T) {
	forEachRendered(t, func(t *testing.T, objects []runtime.Object) {
		deployment := of[*appsv1.Deployment](t, objects)[0]
		labels := deployment.Spec.Template.Labels
		assert.Subset(t, labels, deployment.Spec.Selector.MatchLabels)
		for _, service := range of[*corev1.Service](t, objects) {
			assert.Subset(t, labels, service.Spec.Selector, service.Name)
		}
		for _, policy := range of[*networkingv1.NetworkPolicy](t, objects) {
			if policy.Name != "instances" {
				continue
			}
			peer := policy.Spec.Ingress[0].From[0]
			assert.Equal(t, deployment.Namespace, peer.NamespaceSelector.MatchLabels[corev1.LabelMetadataName])
			assert.Subset(t, labels, peer.PodSelector.MatchLabels)
		}
	})
}

// TestManifestsNameDigests checks that each file that users apply and that names an
// image of a registry by its tag says how to name the digest.
func TestManifestsNameDigests(t *testing.T) {
	tag := regexp.MustCompile(`(?m)^ *-? *(image: \S+[:/]|newTag:)`)
	found := 0
	for _, root := range []string{"base", "kustomization.yaml"} {
		require.NoError(t, filepath.WalkDir(filepath.Join("..", "manifests", root), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			if tag.Match(data) {
				found++
				assert.Contains(t, string(data), "sha256:", path)
			}
			return err
		}))
	}
	assert.Equal(t, 2, found, "the service's image and the example template's")
}
