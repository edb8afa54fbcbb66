package protocol

import (
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/origin"
)

// maxHostname is the longest name of a host, in bytes (RFC 1035, section 2.3.4).
const maxHostname = 253

// Services finds the Service that leads visitors to the proxy. false means that
// there is none, or that it is not known yet.
type Services interface {
	ProxyService() (*corev1.Service, bool)
}

// Locator computes the addresses at which visitors reach instances through the proxy.
type Locator struct {
	// PublicHost is the host, with a port if it is not 80, that the operator
	// configured; "" to find it out.
	PublicHost string
	// Layout says whether each instance has a host of its own.
	Layout origin.Layout
	// ProxyPort is the port on which this replica's proxy listens.
	ProxyPort string
	// Services finds the proxy's Service.
	Services Services
}

// Locations returns a function that returns the address of an instance: host and path
// without a scheme, as the Binder deploy protocol defines it. requestHost is the Host
// header of the request that asks; a list asks once for all instances.
func (l *Locator) Locations(requestHost string) func(id string) string {
	if l.Layout.Apart() {
		return func(id string) string { return l.Layout.InstanceHost(id) + instance.UserPrefix + id }
	}
	prefix := l.host(requestHost) + instance.UserPrefix
	return func(id string) string { return prefix + id }
}

// host returns the first of these that is known: the host that the operator
// configured; the address that the cluster gave to the proxy's Service; the host by
// which the client reached the API, with the proxy's port. Only the last comes from
// a request, and only the client that sent the request gets it back.
func (l *Locator) host(requestHost string) string {
	if l.PublicHost != "" {
		return l.PublicHost
	}
	if service, ok := l.Services.ProxyService(); ok {
		if host, ok := ingressHost(service); ok {
			return host
		}
	}
	return hostWithPort(hostname(requestHost), l.ProxyPort)
}

// ingressHost returns the first address of a LoadBalancer Service, with its first port.
func ingressHost(service *corev1.Service) (string, bool) {
	for _, ingress := range service.Status.LoadBalancer.Ingress {
		host := ingress.Hostname
		if host == "" {
			host = ingress.IP
		}
		if host == "" || len(service.Spec.Ports) == 0 {
			continue
		}
		return hostWithPort(host, strconv.Itoa(int(service.Spec.Ports[0].Port))), true
	}
	return "", false
}

// hostWithPort joins a host and a port. It leaves out 80, the default port of HTTP.
func hostWithPort(host, port string) string {
	if port != "80" {
		return net.JoinHostPort(host, port)
	}
	if strings.Contains(host, ":") { // an IPv6 address
		return "[" + host + "]"
	}
	return host
}

// hostname returns the name or address in a Host header. Any other text becomes
// "localhost", so that no client can put text of its choice into a location.
func hostname(hostHeader string) string {
	host := hostHeader
	if name, port, err := net.SplitHostPort(hostHeader); err == nil && strings.Trim(port, "0123456789") == "" {
		host = name
	}
	host = strings.Trim(host, "[]")
	if isHostname(host) {
		return host
	}
	// The zone of an address can be any text, and has no meaning on another machine.
	if addr, err := netip.ParseAddr(host); err == nil && addr.Zone() == "" {
		return host
	}
	return "localhost"
}

// isHostname reports whether a text has the form of a name of a host, or of an IPv4 address.
func isHostname(host string) bool {
	if len(host) == 0 || len(host) > maxHostname || strings.ContainsRune("._-", rune(host[0])) {
		return false
	}
	for i := range len(host) {
		c := host[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// IsHTTPS reports whether a client has come by HTTPS, to this server or to one in front of it.
func IsHTTPS(r *http.Request) bool {
	first, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Proto"), ",") // servers in a row append to the field
	return r.TLS != nil || strings.EqualFold(strings.TrimSpace(first), "https")
}
