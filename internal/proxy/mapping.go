package proxy

import (
	"net"
	"net/http"
	"regexp"
	"strings"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/origin"
)

// mapping turns the addresses in an application's answer into those by which its
// visitor reaches it, as nginx's proxy_redirect and proxy_cookie_path do.
type mapping struct {
	base     string // /user/<id>; "" at the host of another port
	prefix   string // the same, if it is taken off paths; else ""
	pod      string // the pod's name
	address  string // host:port of the application
	host     string // by which the visitor knows it
	reported string // the same, as an ingress in front of this service knows it; or ""
	layout   origin.Layout
	// doubleSlash says that the path which the application gets begins with two slashes,
	// in any encoding, since the prefix was taken off.
	doubleSlash bool
}

// newMapping returns the mapping of an instance's answer to a request.
func newMapping(r *http.Request, inst instance.Instance) mapping {
	m := mapping{base: strings.TrimSuffix(instance.BaseURL(inst.ID), "/"), pod: instance.PodName(inst.ID), address: inst.Address, host: r.Host, reported: firstOf(r.Header.Get("X-Forwarded-Host"))}
	if inst.StripPrefix {
		m.prefix = m.base
		m.doubleSlash = beginsWithTwoSlashes(strings.TrimPrefix(EscapedPath(r), m.prefix))
	}
	return m
}

// within says where other instances are. At the host of another port, all paths are the
// application's.
func (m mapping) within(layout origin.Layout) mapping {
	m.layout = layout
	if _, port := layout.Port(m.host); port != "" {
		m.base, m.prefix, m.doubleSlash = "", "", false
	}
	return m
}

// firstOf returns the first value of a list. Proxies in a row append to X-Forwarded-Host.
func firstOf(list string) string {
	first, _, _ := strings.Cut(list, ",")
	return strings.TrimSpace(first)
}

// isPublic reports whether an authority is that of the visitor's address. The default
// ports of HTTP and HTTPS need not be written (RFC 9110, section 4.2.3).
func (m mapping) isPublic(authority string) bool {
	authority = withoutDefaultPort(authority)
	return authority != "" &&
		(strings.EqualFold(authority, withoutDefaultPort(m.host)) || strings.EqualFold(authority, withoutDefaultPort(m.reported)))
}

func withoutDefaultPort(authority string) string {
	return strings.TrimSuffix(strings.TrimSuffix(authority, ":80"), ":443")
}

// isOwn reports whether an authority is one by which the application may know itself.
// Some join the host that the visitor asked for with the port that they listen on, as
// nginx does when it redirects to a directory.
func (m mapping) isOwn(authority string) bool {
	ownHost, ownPort, _ := net.SplitHostPort(m.address)
	host, port := splitPort(authority)
	if host == "" || port != ownPort {
		return false
	}
	publicHost, _ := splitPort(m.host)
	reportedHost, _ := splitPort(m.reported)
	switch host {
	case "localhost", "127.0.0.1", "::1", "0.0.0.0", m.pod, ownHost, publicHost, reportedHost:
		return true
	}
	return false
}

// splitPort splits an authority into its host, in small letters, and its port. An
// authority without a port has that of HTTP, which applications in pods speak.
func splitPort(authority string) (host, port string) {
	host, port, err := net.SplitHostPort(authority)
	if err != nil {
		host, port = strings.Trim(authority, "[]"), "80"
	}
	return strings.ToLower(host), port
}

// header maps the fields of an answer that hold addresses (RFC 9110, sections 8.7 and
// 10.2.2; RFC 8288).
func (m mapping) header(h http.Header) {
	m.each(h, "Location", m.reference)
	m.each(h, "Content-Location", m.reference)
	m.each(h, "Refresh", m.refresh)
	m.each(h, "Link", m.link)
}

func (m mapping) each(h http.Header, name string, change func(string) string) {
	for i, value := range h[name] {
		h[name][i] = change(value)
	}
}

// reference maps one URI reference. Those without a host of the application's or the
// visitor's stay, and so do relative ones and those that are below the base URL.
//
// An application that redirects to the path it was asked for, with a slash added, does not
// know that //host/x is a path: a link to it would lead visitors to any host.
func (m mapping) reference(value string) string {
	value = withoutIgnored(value)
	authority, rest, found := cutAuthority(value)
	switch {
	case !found, m.doubleSlash && strings.HasPrefix(value, "//"):
		// In the second case the application means a path, such as its own with a slash at
		// the end. Browsers would take it for another host.
		return m.path(value)
	case m.isPublic(authority):
		return strings.TrimSuffix(value, rest) + m.path(rooted(rest))
	case m.isOwn(authority):
		// The visitor cannot reach the address that the application believes to have.
		return pathOnly(m.path(rooted(rest)))
	}
	return value
}

// path maps the path of a reference that begins with one.
func (m mapping) path(value string) string {
	if m.prefix == "" || !strings.HasPrefix(value, "/") {
		return value
	}
	if value = withoutDots(value); m.isInstances(value) {
		return value
	}
	return m.prefix + value
}

// isInstances reports whether a path is that of the instance's base URL, or below it.
func (m mapping) isInstances(path string) bool {
	rest, ok := strings.CutPrefix(path, m.base)
	return ok && (rest == "" || strings.IndexByte("/?#", rest[0]) >= 0)
}

// cutAuthority splits http://host/rest and //host/rest. It is not found in any other
// reference.
func cutAuthority(value string) (authority, rest string, found bool) {
	scheme, after, found := strings.Cut(value, "//")
	if !found {
		return "", "", false
	}
	switch strings.ToLower(scheme) {
	case "", "http:", "https:":
	default:
		return "", "", false
	}
	if end := strings.IndexAny(after, "/?#"); end >= 0 {
		return after[:end], after[end:], true
	}
	return after, "", true
}

// rooted gives an empty path its slash (RFC 9110, section 4.2.3).
func rooted(rest string) string {
	if strings.HasPrefix(rest, "/") {
		return rest
	}
	return "/" + rest
}

// refreshSyntax is a refresh with an address, as the HTML standard has it: "5;
// url=/next", or "5, '/next'". It never changes.
var refreshSyntax = regexp.MustCompile(`(?i)^(\s*[0-9.]+\s*[;,\s]\s*(?:url\s*=\s*)?["']?)([^"'\s]+)(.*)$`)

// refresh maps the address in a Refresh field.
func (m mapping) refresh(value string) string {
	parts := refreshSyntax.FindStringSubmatch(value)
	if parts == nil {
		return value
	}
	return parts[1] + m.reference(parts[2]) + parts[3]
}

// link maps the targets of a Link field: <target>; rel=preload, <target> (RFC 8288,
// section 3).
func (m mapping) link(value string) string {
	var mapped strings.Builder
	for {
		before, rest, found := strings.Cut(value, "<")
		target, after, closed := strings.Cut(rest, ">")
		if !found || !closed {
			mapped.WriteString(value)
			return mapped.String()
		}
		mapped.WriteString(before + "<" + m.reference(target) + ">")
		// The parameters of a link can be quoted, and then hold anything.
		end := endOfParameters(after)
		mapped.WriteString(after[:end])
		value = after[end:]
	}
}

// endOfParameters returns where the next link begins: at a comma that is not quoted.
func endOfParameters(value string) int {
	quoted := false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			return i
		}
	}
	return len(value)
}

// cookiePath maps the Path of a cookie. It is never more than the instance's own.
func (m mapping) cookiePath(path string) string {
	if path = m.path(path); !m.isInstances(path) {
		return m.base + "/"
	}
	return path
}

// destination maps the Destination of a request that moves or copies a file (RFC 4918,
// section 10.3) into the address that the application knows.
func (m mapping) destination(value string) string {
	authority, path, found := cutAuthority(value)
	if !found {
		path = value
	}
	if m.prefix == "" || found && !m.isPublic(authority) || !m.isInstances(path) {
		return value
	}
	own := rooted(strings.TrimPrefix(path, m.prefix))
	if !found {
		return pathOnly(own)
	}
	return strings.TrimSuffix(value, path) + own
}
