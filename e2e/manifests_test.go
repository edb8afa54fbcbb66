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

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// The tests in this file check manifests only and need no cluster.

// clusterWide are the kinds of the manifests that belong to no namespace. Their
// objects are named after a namespace, so that two installations do not share them:
// their names are that of the namespace, or begin with it.
var clusterWide = []string{"Namespace", "PriorityClass", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}

// podSecurityVersion is the version of the pod security standards that the namespaces pin.
const podSecurityVersion = "v1.36"

// source is what users apply.
type source struct {
	dir        string
	components []string       // of manifests/components
	values     map[string]any // of the chart, if that is the directory
	namespaces []string       // of its objects; a chart's release is in the first
}

// sources returns the directories that users apply, manifests with each component and with
// all of them, and the chart, also in other namespaces.
func sources(t *testing.T) map[string]source {
	t.Helper()
	all := components(t)
	namespaces := []string{"binder", "binder-instances", "binder-headroom"}
	found := map[string]source{
		"manifests":       {dir: "manifests", namespaces: namespaces[:2]},
		"manifests/local": {dir: "manifests/local", namespaces: namespaces[:2]},
		"e2e/manifests":   {dir: "e2e/manifests", namespaces: []string{harness.Namespace, harness.InstancesNamespace}},
		"all components":  {dir: "manifests", components: all, namespaces: namespaces},
		"the chart":       {dir: chartDir, namespaces: []string{"tenant", "tenant-instances"}},
		"the whole chart": {dir: chartDir, values: chartValues(t, all...), namespaces: []string{"tenant", "tenant-instances", "tenant-headroom"}},
	}
	for _, name := range all {
		found[name] = source{dir: "manifests", components: []string{name}, namespaces: namespaces}
	}
	return found
}

// render renders what users apply.
func (s source) render(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	if s.dir == chartDir {
		return renderChart(t, s.namespaces[0], s.values)
	}
	var paths []string
	for _, name := range s.components {
		paths = append(paths, filepath.Join("..", "manifests", "components", name))
	}
	objects, err := harness.Render(filepath.Join("..", s.dir), paths...)
	require.NoError(t, err)
	return objects
}

// forEachRendered runs a test for the objects of each source.
func forEachRendered(t *testing.T, test func(t *testing.T, objects []runtime.Object)) {
	for name, source := range sources(t) {
		t.Run(name, func(t *testing.T) { test(t, decode(t, source.render(t))) })
	}
}

// decode decodes objects strictly: an unknown field fails the test.
func decode(t *testing.T, unstructureds []*unstructured.Unstructured) []runtime.Object {
	t.Helper()
	known := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, gatewayv1.Install, certmanagerv1.AddToScheme, monitoringv1.AddToScheme} {
		require.NoError(t, add(known))
	}
	decoder := serializer.NewCodecFactory(known, serializer.EnableStrict).UniversalDeserializer()
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

// service returns the Deployment of the service.
func service(t *testing.T, objects []runtime.Object) *appsv1.Deployment {
	t.Helper()
	deployments := of[*appsv1.Deployment](t, objects)
	i := slices.IndexFunc(deployments, func(d *appsv1.Deployment) bool { return d.Name == "binder-deploy-kubernetes" })
	require.GreaterOrEqual(t, i, 0)
	return deployments[i]
}

func TestManifestsStayInTheirNamespaces(t *testing.T) {
	for name, source := range sources(t) {
		t.Run(name, func(t *testing.T) {
			for _, object := range source.render(t) {
				what := object.GetKind() + " " + object.GetName()
				if slices.Contains(clusterWide, object.GetKind()) {
					assert.Empty(t, object.GetNamespace(), what)
					assert.True(t, slices.ContainsFunc(source.namespaces, func(namespace string) bool {
						return object.GetName() == namespace || strings.HasPrefix(object.GetName(), namespace+"-")
					}), what)
				} else {
					assert.Contains(t, source.namespaces, object.GetNamespace(), what)
				}
				if source.dir == "e2e/manifests" {
					continue // the tests' templates need no labels
				}
				assert.NotEmpty(t, object.GetLabels()["app.kubernetes.io/name"], what)
				assert.Equal(t, "binder", object.GetLabels()["app.kubernetes.io/part-of"], what)
			}
		})
	}
}

// TestManifestsGrantLeastPrivilege pins the service's rights: a new one is a deliberate change.
func TestManifestsGrantLeastPrivilege(t *testing.T) {
	want := []string{
		"controller: leases create",
		"controller: leases delete,list,patch,watch",
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
		if all := slices.Clone(want); regexp.MustCompile(`start-logs|all_components|whole_chart`).MatchString(t.Name()) {
			assert.ElementsMatch(t, append(all, "instances: pods/log get"), got)
		} else {
			assert.ElementsMatch(t, want, got)
		}
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
		deployment := service(t, objects)
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
		pod := service(t, objects).Spec.Template.Spec
		require.Contains(t, values, pod.PriorityClassName)
		assert.Positive(t, values[pod.PriorityClassName], "above pods without a class")
		for _, template := range of[*corev1.PodTemplate](t, objects) {
			if template.Name == "jupyter" {
				require.Contains(t, values, template.Template.Spec.PriorityClassName)
				assert.Negative(t, values[template.Template.Spec.PriorityClassName])
			}
		}
		memory := pod.Containers[0].Resources
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
		deployment := service(t, objects)
		for _, binding := range of[*rbacv1.RoleBinding](t, objects) {
			require.Len(t, binding.Subjects, 1)
			assert.Equal(t, deployment.Namespace, binding.Subjects[0].Namespace, binding.Namespace)
			assert.Equal(t, deployment.Spec.Template.Spec.ServiceAccountName, binding.Subjects[0].Name)
		}
	})
}

// restricted returns a check of pods against the restricted pod security standard, in the
// version that both namespaces enforce.
func restricted(t *testing.T) func(t *testing.T, name string, pod *corev1.PodTemplateSpec) {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	require.NoError(t, err)
	pinned, err := api.ParseVersion(podSecurityVersion)
	require.NoError(t, err)
	level := api.LevelVersion{Level: api.LevelRestricted, Version: pinned}
	return func(t *testing.T, name string, pod *corev1.PodTemplateSpec) {
		t.Helper()
		for _, result := range evaluator.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec) {
			assert.True(t, result.Allowed, "%s: %s: %s", name, result.ForbiddenReason, result.ForbiddenDetail)
		}
	}
}

// TestManifestsAreRestricted checks all pods against the restricted pod security
// standard, which both namespaces enforce.
func TestManifestsAreRestricted(t *testing.T) {
	check := restricted(t)
	forEachRendered(t, func(t *testing.T, objects []runtime.Object) {
		for _, template := range of[*corev1.PodTemplate](t, objects) {
			check(t, template.Name, &template.Template)
		}
		for _, deployment := range of[*appsv1.Deployment](t, objects) {
			check(t, deployment.Name, &deployment.Spec.Template)
		}
		for _, namespace := range of[*corev1.Namespace](t, objects) {
			for _, label := range []string{api.EnforceLevelLabel, api.WarnLevelLabel, api.AuditLevelLabel} {
				assert.Equal(t, "restricted", namespace.Labels[label], "%s: %s", namespace.Name, label)
				assert.Equal(t, podSecurityVersion, namespace.Labels[label+"-version"], "%s: %s", namespace.Name, label)
			}
		}
	})
}

// TestManifestsLeaveTimeToStop checks that the grace period is long enough for an
// orderly shutdown.
func TestManifestsLeaveTimeToStop(t *testing.T) {
	const lastWrite = 10 * time.Second // the service's limit for the last write of activity
	forEachRendered(t, func(t *testing.T, objects []runtime.Object) {
		pod := service(t, objects).Spec.Template.Spec
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
		deployment := service(t, objects)
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
