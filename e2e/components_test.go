package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/commands"
	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
	"github.com/binder-project/binder-deploy-kubernetes/internal/config"
)

// The tests in this file are about the components of the manifests. They need no
// cluster. Those in manifests_test.go hold for manifests with components as well.

// The hosts that the components name.
const (
	publicHost    = "binder.example.org"
	instanceHosts = "*.users.example.org"
)

// components returns the names of the components that users can add, in an order in
// which all of them work together: instance-hosts changes what others add.
func components(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("../manifests/components")
	require.NoError(t, err)
	var names []string
	for _, entry := range entries {
		if entry.Name() != "local-images" && entry.Name() != "instance-hosts" {
			names = append(names, entry.Name())
		}
	}
	require.NotEmpty(t, names)
	return append(names, "instance-hosts")
}

// loadWith decodes manifests with components.
func loadWith(t *testing.T, components ...string) []runtime.Object {
	t.Helper()
	return decode(t, source{dir: "manifests", components: components}.render(t))
}

// env returns the environment variables of the service that have a plain value.
func env(t *testing.T, objects []runtime.Object) map[string]string {
	t.Helper()
	values := map[string]string{}
	for _, variable := range service(t, objects).Spec.Template.Spec.Containers[0].Env {
		values[variable.Name] = variable.Value
	}
	return values
}

// TestManifestsDocumentComponents checks that each component says what it needs and what to
// change, and that docs/components.md has it.
func TestManifestsDocumentComponents(t *testing.T) {
	page, err := os.ReadFile("../docs/components.md")
	require.NoError(t, err)
	for _, name := range components(t) {
		data, err := os.ReadFile(filepath.Join("../manifests/components", name, "kustomization.yaml"))
		require.NoError(t, err)
		comment, _, _ := strings.Cut(string(data), "\napiVersion:")
		assert.Contains(t, comment, "\n# Needs: ", name)
		assert.Contains(t, comment, "\n# Change: ", name)
		assert.Contains(t, string(page), "\n| [`"+name+"`](", name)
	}
}

// front is what a component in front of the proxy says.
type front struct {
	hosts   []string          // that it serves
	secrets map[string]string // with the certificates of hosts
}

// ingressFront reads the Ingress, and checks where it leads.
func ingressFront(t *testing.T, objects []runtime.Object) front {
	f := front{secrets: map[string]string{}}
	ingress := of[*networkingv1.Ingress](t, objects)[0]
	for _, rule := range ingress.Spec.Rules {
		f.hosts = append(f.hosts, rule.Host)
		require.Len(t, rule.HTTP.Paths, 1)
		path := rule.HTTP.Paths[0]
		assert.Equal(t, "/", path.Path)
		assert.Equal(t, networkingv1.PathTypePrefix, *path.PathType)
		port := proxyPort(t, objects, path.Backend.Service.Name)
		assert.Equal(t, port.Name, path.Backend.Service.Port.Name)
	}
	for _, tls := range ingress.Spec.TLS {
		for _, host := range tls.Hosts {
			f.secrets[host] = tls.SecretName
		}
	}
	return f
}

// gatewayFront reads the Gateway and its routes, and checks where they lead.
func gatewayFront(t *testing.T, objects []runtime.Object) front {
	f := front{secrets: map[string]string{}}
	gateway := of[*gatewayv1.Gateway](t, objects)[0]
	listeners := map[gatewayv1.SectionName]gatewayv1.Listener{}
	for _, listener := range gateway.Spec.Listeners {
		listeners[listener.Name] = listener
		if listener.Protocol == gatewayv1.HTTPSProtocolType {
			f.secrets[string(*listener.Hostname)] = string(listener.TLS.CertificateRefs[0].Name)
		}
	}
	routes := of[*gatewayv1.HTTPRoute](t, objects)
	require.Len(t, routes, 2)
	for _, route := range routes {
		var protocols []gatewayv1.ProtocolType
		for _, parent := range route.Spec.ParentRefs {
			assert.Equal(t, gateway.Name, string(parent.Name))
			require.Contains(t, listeners, *parent.SectionName)
			protocols = append(protocols, listeners[*parent.SectionName].Protocol)
		}
		var hosts []string
		for _, host := range route.Spec.Hostnames {
			hosts = append(hosts, string(host))
		}
		rule := route.Spec.Rules[0]
		if len(rule.BackendRefs) == 0 {
			assert.Equal(t, []gatewayv1.ProtocolType{gatewayv1.HTTPProtocolType}, protocols)
			assert.Equal(t, "https", *rule.Filters[0].RequestRedirect.Scheme)
			assert.ElementsMatch(t, slices.Collect(maps.Keys(f.secrets)), hosts, "all are redirected")
			continue
		}
		assert.NotContains(t, protocols, gatewayv1.HTTPProtocolType)
		assert.Len(t, protocols, len(hosts), "each host has its listener")
		assert.Equal(t, gatewayv1.Duration("0s"), *rule.Timeouts.Request)
		assert.Equal(t, gatewayv1.Duration("0s"), *rule.Timeouts.BackendRequest)
		port := proxyPort(t, objects, string(rule.BackendRefs[0].Name))
		assert.Equal(t, port.Port, int32(*rule.BackendRefs[0].Port))
		f.hosts = hosts
	}
	return f
}

// proxyPort returns the port of the proxy's Service, which must not be public.
func proxyPort(t *testing.T, objects []runtime.Object, name string) corev1.ServicePort {
	services := of[*corev1.Service](t, objects)
	i := slices.IndexFunc(services, func(s *corev1.Service) bool { return s.Name == name })
	require.GreaterOrEqual(t, i, 0, name)
	assert.Equal(t, corev1.ServiceTypeClusterIP, services[i].Spec.Type)
	assert.Empty(t, services[i].Spec.ExternalTrafficPolicy)
	assert.Equal(t, "proxy", services[i].Spec.Ports[0].TargetPort.String())
	return services[i].Spec.Ports[0]
}

// TestManifestsServeTheHosts checks that whatever is in front of the proxy serves the hosts
// that the service is told, with a certificate that has them.
func TestManifestsServeTheHosts(t *testing.T) {
	for name, read := range map[string]func(*testing.T, []runtime.Object) front{"ingress": ingressFront, "gateway": gatewayFront} {
		for _, tc := range []struct {
			components []string
			hosts      []string
			domain     string
		}{
			{[]string{name, "cert-manager"}, []string{publicHost}, ""},
			{[]string{name, "cert-manager", "cert-manager-instance-hosts", "instance-hosts"}, []string{publicHost, instanceHosts}, strings.TrimPrefix(instanceHosts, "*.")},
		} {
			t.Run(strings.Join(tc.components, "+"), func(t *testing.T) {
				objects := loadWith(t, tc.components...)
				variables := env(t, objects)
				assert.Equal(t, publicHost, variables["BINDER_PUBLIC_HOST"])
				assert.Equal(t, tc.domain, variables["BINDER_INSTANCE_DOMAIN"])
				assert.NotEmpty(t, variables["BINDER_TRUSTED_PROXIES"])
				front := read(t, objects)
				assert.Equal(t, tc.hosts, front.hosts)
				certificates := of[*certmanagerv1.Certificate](t, objects)
				require.Len(t, certificates, len(tc.hosts), "no two hosts share a certificate")
				wanted := map[string]string{}
				for _, certificate := range certificates {
					require.Len(t, certificate.Spec.DNSNames, 1)
					wanted[certificate.Spec.DNSNames[0]] = certificate.Spec.SecretName
				}
				assert.Equal(t, wanted, front.secrets)
			})
		}
	}
}

// TestComponentsWithOwnHosts runs the command of docs/components.md that writes a reader's hosts in
// place of the examples.
func TestComponentsWithOwnHosts(t *testing.T) {
	script := commands.For(t, "..")
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(filepath.Join(dir, "manifests"), os.DirFS("../manifests")))
	shell := commands.NewShell(t, dir, ".", strings.NewReplacer())
	for _, block := range script.All() {
		script.Run(t, shell, block)
	}
	var paths []string
	for _, name := range components(t) {
		paths = append(paths, filepath.Join(dir, "manifests/components", name))
	}
	objects, err := harness.Render(filepath.Join(dir, "manifests"), paths...)
	require.NoError(t, err)
	for _, object := range objects {
		text, err := object.MarshalJSON()
		require.NoError(t, err)
		assert.NotRegexp(t, `(binder|users)\.example\.org`, string(text))
		switch object.GetKind() {
		case "Ingress", "HTTPRoute":
			assert.Contains(t, string(text), `"binder.my.org"`)
			assert.Contains(t, string(text), `"*.my-binder-users.org"`)
		}
	}
}

// TestManifestsHoldRoom checks that instances can take the place of the placeholders, and of
// nothing else, and that cluster autoscalers add nodes for the placeholders.
func TestManifestsHoldRoom(t *testing.T) {
	const cutoff = -10 // of the cluster autoscaler
	objects := loadWith(t, "headroom")
	classes := map[string]*schedulingv1.PriorityClass{}
	for _, class := range of[*schedulingv1.PriorityClass](t, objects) {
		classes[class.Name] = class
	}
	deployments := of[*appsv1.Deployment](t, objects)
	i := slices.IndexFunc(deployments, func(d *appsv1.Deployment) bool { return d.Namespace == "binder-headroom" })
	require.GreaterOrEqual(t, i, 0)
	placeholder := deployments[i].Spec.Template.Spec
	template := of[*corev1.PodTemplate](t, objects)[0].Template.Spec
	room, instances, usual := classes[placeholder.PriorityClassName], classes[template.PriorityClassName], classes["binder-instances"]

	assert.GreaterOrEqual(t, room.Value, int32(cutoff))
	assert.Equal(t, corev1.PreemptNever, *room.PreemptionPolicy)
	assert.Greater(t, instances.Value, room.Value)
	assert.Equal(t, usual.Value, instances.Value, "no instance pushes out another")
	assert.Nil(t, instances.PreemptionPolicy, "the default is to preempt")
	assert.Equal(t, template.Containers[0].Resources.Requests, placeholder.Containers[0].Resources.Requests)
	assert.Zero(t, *placeholder.TerminationGracePeriodSeconds)
	flags := new(config.Config).Flags()
	assert.Equal(t, flags.Lookup("preload-helper-image").DefValue, placeholder.Containers[0].Image, "one image that waits")
}

// TestManifestsScaleTheService checks that nothing but the autoscaler sets the number of
// replicas, and that the metrics are those of the service.
func TestManifestsScaleTheService(t *testing.T) {
	objects := loadWith(t, "horizontal-pod-autoscaler")
	deployment := service(t, objects)
	assert.Nil(t, deployment.Spec.Replicas)
	spec := of[*autoscalingv2.HorizontalPodAutoscaler](t, objects)[0].Spec
	assert.Equal(t, autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: deployment.Name}, spec.ScaleTargetRef)
	assert.Equal(t, *service(t, loadWith(t)).Spec.Replicas, *spec.MinReplicas)
	known, err := os.ReadFile("../docs/metrics.md")
	require.NoError(t, err)
	for _, metric := range spec.Metrics {
		if metric.Pods != nil {
			assert.True(t, strings.Contains(string(known), "\n| `"+metric.Pods.Metric.Name+"` | gauge |"), metric.Pods.Metric.Name)
		}
	}
	down := spec.Behavior.ScaleDown
	assert.GreaterOrEqual(t, *down.StabilizationWindowSeconds, int32(600))
	require.Len(t, down.Policies, 1)
	assert.Equal(t, int32(1), down.Policies[0].Value, "one replica at a time")
}
