package protocol

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/origin"
)

// services has one proxy Service, or none.
type services struct{ service *corev1.Service }

func (s services) ProxyService() (*corev1.Service, bool) { return s.service, s.service != nil }

// proxyService is the proxy's Service on a port (0 for none), with the addresses that
// a load balancer gave it.
func proxyService(port int32, ingress ...corev1.LoadBalancerIngress) *corev1.Service {
	service := &corev1.Service{Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: ingress}}}
	if port != 0 {
		service.Spec.Ports = []corev1.ServicePort{{Port: port}, {Port: 9999}}
	}
	return service
}

func TestLocation(t *testing.T) {
	ip4, ip6 := corev1.LoadBalancerIngress{IP: "104.197.56.211"}, corev1.LoadBalancerIngress{IP: "2001:db8::1"}
	name := corev1.LoadBalancerIngress{Hostname: "lb.example", IP: "1.2.3.4"}
	const fromRequest = "api.example:8000"
	for _, row := range []struct {
		name       string
		publicHost string
		service    *corev1.Service
		want       string
	}{
		{"configured host", "hub.example", proxyService(80, ip4), "hub.example"},
		{"configured host with a port", "hub.example:8443", nil, "hub.example:8443"},
		{"ingress IP", "", proxyService(80, ip4), "104.197.56.211"},
		{"ingress IP on another port", "", proxyService(8000, ip4), "104.197.56.211:8000"},
		{"hostname before IP", "", proxyService(80, name), "lb.example"},
		{"hostname on another port", "", proxyService(81, name), "lb.example:81"},
		{"IPv6", "", proxyService(80, ip6), "[2001:db8::1]"},
		{"IPv6 on another port", "", proxyService(8000, ip6), "[2001:db8::1]:8000"},
		{"empty ingress before another", "", proxyService(80, corev1.LoadBalancerIngress{}, ip4), "104.197.56.211"},
		{"no ingress yet", "", proxyService(80), fromRequest},
		{"empty ingress", "", proxyService(80, corev1.LoadBalancerIngress{}), fromRequest},
		{"no port", "", proxyService(0, ip4), fromRequest},
		{"no Service", "", nil, fromRequest},
	} {
		l := &Locator{PublicHost: row.publicHost, ProxyPort: "8000", Services: services{row.service}}
		want := row.want + "/user/" + kubetest.ID(1)
		if got := l.Locations("api.example:8084")(kubetest.ID(1)); got != want {
			t.Errorf("%s: location is %q, want %q", row.name, got, want)
		}
	}
}

func TestLocationFromTheRequest(t *testing.T) {
	type hosts struct{ on8000, on80 string }
	want := map[string]hosts{
		"binder.example":      {"binder.example:8000", "binder.example"},
		"binder.example:8084": {"binder.example:8000", "binder.example"},
		"Binder.Example.":     {"Binder.Example.:8000", "Binder.Example."},
		"under_score.local:1": {"under_score.local:8000", "under_score.local"},
		"127.0.0.1:8084":      {"127.0.0.1:8000", "127.0.0.1"},
		"[::1]:8084":          {"[::1]:8000", "[::1]"},
		"[::1]":               {"[::1]:8000", "[::1]"},
		"::1":                 {"[::1]:8000", "[::1]"},
	}
	// No browser sends these; some are meant for another person's page.
	for _, bad := range []string{
		"", ":8084", "a.example:1:2", "user@a.example", "a.example/evil", "a.example?evil", "a.example#evil",
		`a.example\evil`, `"><script>`, "a b", "http://a.example", "javascript:alert(1)", "[::1%<script>]:80",
		"[fe80::1%25;evil]", "a\r\nSet-Cookie: x", "-a.example", "..", "ex\u00e4mple.com",
	} {
		want[bad] = hosts{"localhost:8000", "localhost"}
	}
	for requestHost, want := range want {
		for port, want := range map[string]string{"8000": want.on8000, "80": want.on80} {
			l := &Locator{ProxyPort: port, Services: services{}}
			if got := l.Locations(requestHost)("x"); got != want+"/user/x" {
				t.Errorf("Host %q, proxy port %s: got %q, want %q", requestHost, port, got, want)
			}
		}
	}
}

// With a host for each instance, the location has that host for every client.
func TestLocationAtAnOwnHost(t *testing.T) {
	l := &Locator{
		PublicHost: "hub.example", Layout: origin.Layout{Public: []string{"hub.example"}, Domain: "users.example:8443"},
		ProxyPort: "8000", Services: services{proxyService(80, corev1.LoadBalancerIngress{IP: "10.0.0.7"})},
	}
	want := kubetest.ID(1) + ".users.example:8443/user/" + kubetest.ID(1)
	for _, host := range []string{"hub.example", "api.example:8084", kubetest.ID(2) + ".users.example:8443", ""} {
		if got := l.Locations(host)(kubetest.ID(1)); got != want {
			t.Errorf("at %q: location is %q, want %q", host, got, want)
		}
	}
}
