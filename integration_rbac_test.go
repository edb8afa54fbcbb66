//go:build integration

package main

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// readManifest decodes a file of manifests/base.
func readManifest(t testing.TB, file string) []runtime.Object {
	t.Helper()
	f, err := os.Open(filepath.Join("manifests", "base", file))
	noError(t, err)
	defer f.Close()
	var objects []runtime.Object
	documents := yaml.NewYAMLOrJSONDecoder(f, 4096)
	for {
		var raw runtime.RawExtension
		err := documents.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		object, _, err := scheme.Codecs.UniversalDeserializer().Decode(raw.Raw, nil, nil)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		objects = append(objects, object)
	}
}

// manifestTemplate returns the example template, without its PriorityClass: classes are of the
// whole cluster, which tests share.
func manifestTemplate(t testing.TB) *corev1.PodTemplate {
	t.Helper()
	template := readManifest(t, "instances/template-jupyter.yaml")[0].(*corev1.PodTemplate)
	template.Template.Spec.PriorityClassName = ""
	return template
}

// applyManifests creates the objects of a file in the sandbox. inBinder is the
// controller's namespace.
func (s *sandbox) applyManifests(t testing.TB, file, inBinder string) {
	t.Helper()
	for _, object := range readManifest(t, file) {
		var err error
		switch o := object.(type) {
		case *corev1.ServiceAccount:
			_, err = s.client.CoreV1().ServiceAccounts(s.namespace).Create(t.Context(), o, metav1.CreateOptions{})
		case *corev1.ResourceQuota:
			_, err = s.client.CoreV1().ResourceQuotas(s.namespace).Create(t.Context(), o, metav1.CreateOptions{})
		case *corev1.LimitRange:
			_, err = s.client.CoreV1().LimitRanges(s.namespace).Create(t.Context(), o, metav1.CreateOptions{})
		case *rbacv1.Role:
			_, err = s.client.RbacV1().Roles(s.namespace).Create(t.Context(), o, metav1.CreateOptions{})
		case *rbacv1.RoleBinding:
			for i := range o.Subjects { // kustomize would set it
				o.Subjects[i].Namespace = inBinder
			}
			_, err = s.client.RbacV1().RoleBindings(s.namespace).Create(t.Context(), o, metav1.CreateOptions{})
		default:
			t.Fatalf("%s: unexpected %T", file, o)
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
}

// namespaceLabels returns the labels of a manifest of a namespace.
func namespaceLabels(t testing.TB, file string) map[string]string {
	t.Helper()
	return readManifest(t, file)[0].(*corev1.Namespace).Labels
}

// installation is the service's two namespaces with the objects of the manifests.
type installation struct {
	controller, instances *sandbox
	asService             *rest.Config // impersonates the service's account
}

func install(t testing.TB) installation {
	t.Helper()
	controller := newSandbox(t, namespaceLabels(t, "controller/namespace.yaml"))
	instances := newSandbox(t, namespaceLabels(t, "instances/namespace.yaml"))
	for _, file := range []string{"controller/serviceaccount.yaml", "controller/role.yaml"} {
		controller.applyManifests(t, file, controller.namespace)
	}
	for _, file := range []string{"instances/role.yaml", "instances/quota.yaml"} {
		instances.applyManifests(t, file, controller.namespace)
	}
	quotas := instances.client.CoreV1().ResourceQuotas(instances.namespace)
	eventuallyWithin(t, kubetest.Patience, "the quota is in force", func() bool {
		quota, err := quotas.Get(t.Context(), "instances", metav1.GetOptions{})
		return err == nil && len(quota.Status.Hard) > 0
	})
	account := readManifest(t, "controller/serviceaccount.yaml")[0].(*corev1.ServiceAccount).Name
	asService := rest.CopyConfig(controller.config)
	asService.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + controller.namespace + ":" + account,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + controller.namespace, "system:authenticated"},
	}
	return installation{controller, instances, asService}
}

// The Roles of the manifests allow everything that the service does.
func TestIntegrationRolesAreEnough(t *testing.T) {
	t.Parallel()
	in := install(t)
	s := in.instances
	template := manifestTemplate(t)
	template.Name = kubetest.TemplateName
	template.Annotations[instance.PortAnnotation] = startPage(t)
	s.putTemplate(t, template)
	in.controller.putService(t, "binder-proxy")

	seen := &traffic{}
	app := in.controller.startApp(t, connect(t, in.asService, seen.wrap), "--instances-namespace="+s.namespace)
	app.awaitReady(t)
	eventuallyWithin(t, kubetest.Patience, "the service leads", func() bool { return app.leads(t) })

	idle := app.launch(t, `{"cull-timeout": 500}`)
	used := app.launch(t, `{"cull-timeout": 12000}`)
	for _, id := range []string{idle, used} {
		s.ready(t, id, loopback(id))
		if status := app.awaitStatus(t, id, instance.StatusDeployed); status.Location != app.servers[proxyServer].addr()+"/user/"+id {
			t.Errorf("the location is %q", status.Location)
		}
	}
	kubetest.Eventually(t, "the proxy's Service is known", func() bool { _, known := app.cache.ProxyService(); return known })
	launched, _ := s.pod(t, used)
	if got := app.visit(t, used); got.code != http.StatusOK {
		t.Fatalf("the instance answered %d %q", got.code, got.body)
	}
	stopped, lost, failed, mangled := app.launch(t, ""), app.launch(t, ""), app.launch(t, ""), app.launch(t, "")
	if got := app.api(t, http.MethodDelete, "/applications/"+kubetest.TemplateName+"/"+stopped, ""); got.code != http.StatusOK {
		t.Errorf("a stop got %d %s", got.code, got.body)
	}
	s.deletePod(t, lost)
	s.setStatus(t, instance.PodName(failed), func(pod *corev1.Pod) {
		pod.Status.Phase, pod.Status.Reason = corev1.PodFailed, "Evicted"
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "notebook", State: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{FinishedAt: metav1.NewTime(time.Now().Add(-time.Hour))},
		}}}
		created := pod.CreationTimestamp.Add(-time.Hour)
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.NewTime(created)}}
	})
	s.annotate(t, mangled, instance.LastActivityAnnotation, "yesterday")
	for id, reason := range map[string]instance.EndReason{idle: instance.EndCulled, stopped: instance.EndStopped, lost: instance.EndGone} {
		if status := app.awaitStatus(t, id, instance.StatusDeleted); status.Reason != string(reason) && status.Reason != instance.ReasonDeleting {
			t.Errorf("%s ended for %s %q, want %s", id, status.Reason, status.Message, reason)
		}
		eventuallyWithin(t, kubetest.Patience, "the tombstone says why", func() bool { return app.status(t, id).Reason == string(reason) })
	}
	eventuallyWithin(t, kubetest.Patience, "the mangled activity is fixed", func() bool {
		pod, _ := s.pod(t, mangled)
		_, err := instance.LastActivity(pod)
		return err == nil
	})
	eventuallyWithin(t, kubetest.Patience, "the use is written", func() bool {
		app.visit(t, used)
		pod, exists := s.pod(t, used)
		return exists && pod.Annotations[instance.LastActivityAnnotation] != launched.Annotations[instance.LastActivityAnnotation]
	})
	if status := app.status(t, failed); status.Status != instance.StatusFailed || status.Reason != "Evicted" {
		t.Errorf("the evicted instance is %+v", status)
	}
	if got := app.api(t, http.MethodGet, "/applications", ""); got.code != http.StatusOK || !strings.Contains(got.body, used) {
		t.Errorf("a list got %d %s", got.code, got.body)
	}
	app.stop()

	for _, c := range seen.all() {
		if c.code == http.StatusForbidden {
			t.Errorf("the Roles do not allow %s", c)
		}
	}
	if log := app.log.String(); strings.Contains(strings.ToLower(log), "forbidden") {
		t.Errorf("the log has a refusal:\n%s", log)
	}
	for _, want := range []apiCall{ // the service has done what the Roles are for
		{http.MethodPut, "/leases/", 200}, {http.MethodPost, "/leases", 201}, {http.MethodPatch, "/leases/", 200},
		{http.MethodPost, "/pods", 201}, {http.MethodPatch, "/pods/", 200}, {http.MethodDelete, "/pods/", 200},
		{http.MethodPatch, "/events/", 201},
	} {
		if seen.count(want.method, want.path, want.code) == 0 {
			t.Errorf("no %s got %d", want, want.code)
		}
	}
}

// The Roles do not allow the service to read secrets, enter pods, or leave its namespaces.
func TestIntegrationRolesAreNoMore(t *testing.T) {
	t.Parallel()
	in := install(t)
	client := connect(t, in.asService)
	own, instances := in.controller.namespace, in.instances.namespace
	may := func(namespace, verb, group, resource, sub, name string) bool {
		t.Helper()
		review, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: namespace, Verb: verb, Group: group, Resource: resource, Subresource: sub, Name: name,
			}},
		}, metav1.CreateOptions{})
		noError(t, err)
		return review.Status.Allowed
	}
	if !may(instances, "create", "", "pods", "", "") {
		t.Fatal("the account may not create pods: it is not the service's")
	}
	if !may(own, "update", "coordination.k8s.io", "leases", "", "binder-deploy-kubernetes") {
		t.Error("the account may not hold its Lease")
	}
	for _, row := range []struct {
		namespace, group, resource, sub, name string
		verbs                                 []string
	}{
		{own, "", "secrets", "", "", []string{"get", "list", "watch", "create"}},
		{own, "", "pods", "", "", []string{"list", "create", "delete"}},
		{own, "coordination.k8s.io", "leases", "", "another", []string{"get", "update"}},
		{own, "", "services", "", "another", []string{"get", "update"}},
		{own, "", "services", "", "binder-proxy", []string{"update", "delete"}},
		{instances, "", "secrets", "", "", []string{"get", "list", "watch", "create"}},
		{instances, "", "configmaps", "", "", []string{"get", "list"}},
		{instances, "", "pods", "exec", "", []string{"get", "create"}},
		{instances, "", "pods", "log", "", []string{"get"}},
		{instances, "", "pods", "status", "", []string{"patch", "update"}},
		{instances, "", "pods", "", "", []string{"deletecollection"}},
		{instances, "", "podtemplates", "", "", []string{"create", "update", "patch", "delete"}},
		{instances, "", "resourcequotas", "", "", []string{"create", "update", "patch", "delete"}},
		{instances, "", "events", "", "", []string{"delete", "deletecollection"}},
		{instances, "rbac.authorization.k8s.io", "rolebindings", "", "", []string{"create", "update"}},
		{"default", "", "pods", "", "", []string{"get", "list", "create", "delete"}},
		{"", "", "pods", "", "", []string{"list", "watch"}},
		{"", "", "nodes", "", "", []string{"list", "get"}},
		{"", "", "namespaces", "", "", []string{"list", "create"}},
	} {
		for _, verb := range row.verbs {
			if may(row.namespace, verb, row.group, row.resource, row.sub, row.name) {
				t.Errorf("the account may %s %s in namespace %q", verb, strings.Join(slices.DeleteFunc([]string{row.resource, row.sub, row.name},
					func(s string) bool { return s == "" }), "/"), row.namespace)
			}
		}
	}
}
