// Package origin knows the hosts at which visitors reach this service and its instances:
// all at one host, or each instance at a host of its own, which makes it an origin of its
// own to browsers (RFC 6454).
//
// It must never know whether an instance exists.
package origin

import (
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// Layout is where things are. The zero Layout has all at one host, whatever its name.
type Layout struct {
	// Public are the hosts of the main address, each with its port if that is not the
	// scheme's default. The first is the one that others are told. None means that it
	// is not known.
	Public []string
	// Domain is the domain below which each instance has a host of its own, with its
	// port; "" means that all instances are at the main address. A Layout with a Domain
	// has a Public host, which is not in it.
	Domain string
}

// Apart reports whether each instance has an origin of its own.
func (l Layout) Apart() bool { return l.Domain != "" }

// label returns the DNS label of an instance. An id is one: 32 hexadecimal digits.
func label(id string) string { return id }

// InstanceHost returns the host of an instance, with its port. It is for an Apart layout.
func (l Layout) InstanceHost(id string) string { return label(id) + "." + l.Domain }

// PortURL returns the reference by which a page of the main address leads to another port of an
// instance. It is for an Apart layout.
func (l Layout) PortURL(id, port string) string { return "//" + port + "-" + l.InstanceHost(id) + "/" }

// BaseURL returns the reference by which a page of the main address leads to an instance.
// It has no scheme, so that the visitor's stays (RFC 3986, section 4.2).
func (l Layout) BaseURL(id string) string {
	if !l.Apart() {
		return instance.BaseURL(id)
	}
	return "//" + l.InstanceHost(id) + instance.BaseURL(id)
}

// Main returns the reference by which a page of an instance leads to a path of the main
// address.
func (l Layout) Main(path string) string {
	if !l.Apart() {
		return path
	}
	return "//" + l.Public[0] + path
}

// OfInstances reports whether a host, as in the Host field, is in the domain of the
// instances. Then id is the instance that is there, also with another port of its pod, or "" if
// none can be. Names are
// compared without case, port and the dot that can end them, so that no spelling of an
// instance's host passes for the main address. An instance is only at the spelling that
// browsers use: another one would be another origin, or a name that browsers never send.
func (l Layout) OfInstances(host string) (id string, ok bool) {
	if !l.Apart() {
		return "", false
	}
	name, domain := name(host), name(l.Domain)
	if name == domain {
		return "", true
	}
	first, ok := strings.CutSuffix(name, "."+domain)
	if !ok {
		return "", false
	}
	if bare, _ := splitPort(host); !strings.HasPrefix(bare, first+".") || strings.HasSuffix(bare, ".") {
		return "", true
	}
	if _, id = cutInstancePort(first); !instance.ValidID(id) {
		return "", true
	}
	return id, true
}

// Port returns which port of the pod of an instance a host is of, as in the Host field, and which
// instance; port is "" for that of its application, and for all other hosts.
func (l Layout) Port(host string) (id, port string) {
	if id, ok := l.OfInstances(host); ok && id != "" {
		first, _, _ := strings.Cut(host, ".")
		port, _ = cutInstancePort(first)
		return id, port
	}
	return "", ""
}

// cutInstancePort splits the first label of a host of an instance. If another text is before
// the id, both are "".
func cutInstancePort(label string) (port, id string) {
	port, id, found := strings.Cut(label, "-")
	if !found {
		return "", label
	}
	if ports, err := instance.ParsePorts(port); err != nil || len(ports) != 1 || ports[0] != port {
		return "", ""
	}
	return port, id
}

// IsMain reports whether a host, as in the Host field, is the main address. If that is
// not known, every host that is not of instances can be it.
func (l Layout) IsMain(host string) bool {
	if _, ok := l.OfInstances(host); ok {
		return false
	}
	return len(l.Public) == 0 || slices.ContainsFunc(l.Public, func(public string) bool { return name(public) == name(host) })
}

// IsInstances reports whether an origin, as in the Origin field, is an instance's own.
func (l Layout) IsInstances(origin, id string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return false
	}
	owner, ok := l.OfInstances(u.Host)
	return ok && owner == id
}

// name returns the name in a host: in small letters, without a port and a dot at its end.
func name(host string) string {
	bare, _ := splitPort(host)
	return strings.ToLower(strings.TrimSuffix(strings.Trim(bare, "[]"), "."))
}

// splitPort splits a host from its port, if it has one. A text that is no port belongs to
// the host, so it is never taken for a known one.
func splitPort(host string) (bare, port string) {
	bare, port, err := net.SplitHostPort(host)
	if err != nil || strings.Trim(port, "0123456789") != "" {
		return host, ""
	}
	return bare, port
}
