package main

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// newProxyService is the proxy's Service on a port, with what its load balancer
// was given.
func newProxyService(port int32, ingress ...corev1.LoadBalancerIngress) *corev1.Service {
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "binder-proxy", Namespace: "binder"},
		Status:     corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: ingress}},
	}
	if port != 0 {
		service.Spec.Ports = []corev1.ServicePort{{Port: port}, {Port: 9999}}
	}
	return service
}

func TestLocationOrder(t *testing.T) {
	ip := corev1.LoadBalancerIngress{IP: "104.197.56.211"}
	const fromRequest = "api.example:8000"
	for _, row := range []struct {
		name       string
		publicHost string
		service    *corev1.Service
		want       string
	}{
		{name: "what the operator says", publicHost: "hub.example", service: newProxyService(80, ip), want: "hub.example"},
		{name: "what the operator says, with a port", publicHost: "hub.example:8443", want: "hub.example:8443"},
		{name: "the ingress IP", service: newProxyService(80, ip), want: "104.197.56.211"},
		{name: "on another port", service: newProxyService(8000, ip), want: "104.197.56.211:8000"},
		{name: "the ingress hostname", service: newProxyService(80, corev1.LoadBalancerIngress{Hostname: "lb.example"}), want: "lb.example"},
		{
			name:    "the hostname before the IP",
			service: newProxyService(81, corev1.LoadBalancerIngress{Hostname: "lb.example", IP: "1.2.3.4"}), want: "lb.example:81",
		},
		{name: "an IPv6 address", service: newProxyService(80, corev1.LoadBalancerIngress{IP: "2001:db8::1"}), want: "[2001:db8::1]"},
		{
			name: "an IPv6 address on another port", service: newProxyService(8000, corev1.LoadBalancerIngress{IP: "2001:db8::1"}),
			want: "[2001:db8::1]:8000",
		},
		{name: "the first that says anything", service: newProxyService(80, corev1.LoadBalancerIngress{}, ip), want: "104.197.56.211"},
		{name: "a load balancer that has nothing yet", service: newProxyService(80), want: fromRequest},
		{name: "an empty ingress", service: newProxyService(80, corev1.LoadBalancerIngress{}), want: fromRequest},
		{name: "no port", service: newProxyService(0, ip), want: fromRequest},
		{name: "no Service", want: fromRequest},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := startCluster(t, kubetest.ClockAt(kubetest.Noon))
			if row.service != nil {
				c = startCluster(t, kubetest.ClockAt(kubetest.Noon), row.service)
			}
			l := &protocol.Locator{PublicHost: row.publicHost, ProxyPort: "8000", Services: c.Cluster}
			want := row.want + "/user/" + kubetest.ID(1)
			if got := l.Location(kubetest.ID(1), "api.example:8084"); got != want {
				t.Errorf("location is %q, want %q", got, want)
			}
		})
	}
}

func TestLocationFromTheRequest(t *testing.T) {
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon))
	for _, row := range []struct{ host, want8000, want80 string }{
		{"binder.example", "binder.example:8000", "binder.example"},
		{"binder.example:8084", "binder.example:8000", "binder.example"},
		{"Binder.Example.", "Binder.Example.:8000", "Binder.Example."},
		{"under_score.local:1", "under_score.local:8000", "under_score.local"},
		{"127.0.0.1:8084", "127.0.0.1:8000", "127.0.0.1"},
		{"[::1]:8084", "[::1]:8000", "[::1]"},
		{"[::1]", "[::1]:8000", "[::1]"},
		{"::1", "[::1]:8000", "[::1]"},
		// What no browser sends, or what is meant for somebody else's page.
		{"", "localhost:8000", "localhost"},
		{":8084", "localhost:8000", "localhost"},
		{"a.example:1:2", "localhost:8000", "localhost"},
		{"user@a.example", "localhost:8000", "localhost"},
		{"a.example/evil", "localhost:8000", "localhost"},
		{"a.example?evil", "localhost:8000", "localhost"},
		{"a.example#evil", "localhost:8000", "localhost"},
		{`a.example\evil`, "localhost:8000", "localhost"},
		{`"><script>`, "localhost:8000", "localhost"},
		{"a b", "localhost:8000", "localhost"},
		{"http://a.example", "localhost:8000", "localhost"},
		{"javascript:alert(1)", "localhost:8000", "localhost"},
		{"[::1%<script>]:80", "localhost:8000", "localhost"},
		{"[fe80::1%25;evil]", "localhost:8000", "localhost"},
		{"a\r\nSet-Cookie: x", "localhost:8000", "localhost"},
		{"-a.example", "localhost:8000", "localhost"},
		{"..", "localhost:8000", "localhost"},
		{"ex\u00e4mple.com", "localhost:8000", "localhost"},
	} {
		for port, want := range map[string]string{"8000": row.want8000, "80": row.want80} {
			l := &protocol.Locator{ProxyPort: port, Services: c.Cluster}
			if got := l.Host(row.host); got != want {
				t.Errorf("Host %q, proxy port %s: got %q, want %q", row.host, port, got, want)
			}
		}
	}
}
