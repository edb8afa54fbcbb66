package protocol

import (
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Locator knows where visitors find the proxy.
type Locator struct {
	PublicHost string // as configured; "" to find out
	ProxyPort  string // where this replica's proxy listens
	Services   interface {
		ProxyService() (*corev1.Service, bool)
	}
}

// Location is where a browser finds an instance: host and path with no scheme,
// as the protocol has it.
func (l *Locator) Location(id, requestHost string) string {
	return l.Host(requestHost) + "/user/" + id
}

// Host is, in this order: what the operator says; the address that the cluster
// gave the proxy's Service; the host by which the API was reached, with the
// proxy's port. Only the last comes from the request, and goes back to whoever
// sent it and to nobody else.
func (l *Locator) Host(requestHost string) string {
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

// ingressHost is the first address that a LoadBalancer Service was given.
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

// hostWithPort leaves out the port that goes without saying.
func hostWithPort(host, port string) string {
	if port != "80" {
		return net.JoinHostPort(host, port)
	}
	if strings.Contains(host, ":") { // an IPv6 address
		return "[" + host + "]"
	}
	return host
}

var (
	hostnamePattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,252})$`)
	portPattern     = regexp.MustCompile(`^[0-9]*$`)
)

// hostname takes the name or address out of a Host header. Whatever else a
// client may have put there becomes localhost, and reaches no page.
func hostname(hostHeader string) string {
	host := hostHeader
	if name, port, err := net.SplitHostPort(hostHeader); err == nil && portPattern.MatchString(port) {
		host = name
	}
	host = strings.Trim(host, "[]")
	// A zone may be any text, and means nothing on another machine.
	if addr, err := netip.ParseAddr(host); err == nil && addr.Zone() == "" || hostnamePattern.MatchString(host) {
		return host
	}
	return "localhost"
}
