package proxy

import (
	"net/http"
	"slices"
	"strings"
	"unicode"
)

// maxCookies is the most bytes of cookies that an application gets: the most that common
// servers take in one field. Browsers send cookies with longer paths first (RFC 6265,
// section 5.4), so the first ones are the instance's own.
const maxCookies = 8000

// reach is how far a field of an answer acts beyond its answer, on what the browser keeps
// or does.
type reach int

const (
	onAnswer reach = iota
	// onOrigin is all of the answer's origin, or its host with the names below it. It is
	// as far as an instance may reach if it has an origin of its own.
	onOrigin
	// onSite is more: hosts beside the answer's own, or how the service is reached.
	onSite
)

// reachOf returns how far a field acts. docs/proxy.md has the source for each.
func reachOf(name string) reach {
	switch name {
	case "Accept-Ch", "Accept-Ch-Lifetime", "Critical-Ch", // what browsers send to all of it
		"Expect-Ct", "Public-Key-Pins", "Public-Key-Pins-Report-Only", "Strict-Transport-Security", // how its host is reached
		"Nel", "Report-To", // who is told of its addresses, which are secret
		"Origin-Agent-Cluster", "Set-Login", "Shared-Storage-Write", "Use-As-Dictionary", "X-Permitted-Cross-Domain-Policies":
		return onOrigin
	case "Alt-Svc", // where the service is, which no application knows (RFC 7838)
		"Clear-Site-Data", // cookies of the registrable domain, among others
		"Attribution-Reporting-Register-Source", "Attribution-Reporting-Register-Trigger",
		"Observe-Browsing-Topics",                                 // what the site's visitors are known for
		"Secure-Session-Registration", "Sec-Session-Registration": // who is logged in at the site
		return onSite
	}
	return onAnswer
}

// commandsServer reports whether a field of an answer is a command to a server in front
// of this service: nginx (X-Accel-Redirect), Apache, lighttpd, LiteSpeed, Perlbal or Envoy.
// Some of them make such a server answer with its own files, others empty its cache
// (X-LiteSpeed-Purge), or make it take this service for broken
// (X-Envoy-Immediate-Health-Check-Fail). X-Accel-Buffering acts on its own answer only: it
// lets parts of it through as they come.
func commandsServer(name string) bool {
	if name == "X-Accel-Buffering" {
		return false
	}
	return slices.ContainsFunc([]string{"X-Accel-", "X-Envoy-", "X-Lighttpd-", "X-Litespeed-", "X-Reproxy-", "X-Sendfile"}, func(prefix string) bool {
		return strings.HasPrefix(name, prefix)
	})
}

// removeFarReaching removes the fields of an answer that reach further than they may.
func removeFarReaching(h http.Header, allowed reach) {
	for name := range h {
		if reachOf(name) > allowed || commandsServer(name) {
			delete(h, name)
		}
	}
}

// confineCookie keeps a cookie that an application sets to the application's own path. Also
// where an instance has a host of its own, its cookies have longer paths than those that
// others set for the whole domain, so browsers send them first. It returns "" for a cookie
// that no application may set, and for one with control characters: browsers ignore it (RFC
// 6265bis, section 5.6), or read it up to the first.
func (p *Proxy) confineCookie(m mapping, value string) string {
	attributes := strings.Split(value, ";")
	if p.hides(attributes[0]) || strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
		return ""
	}
	// A cookie with this prefix is for one host, so browsers demand the path / (RFC 6265bis,
	// section 4.1.3.2).
	name := strings.ToLower(strings.TrimSpace(attributes[0]))
	ownHost := m.layout.Apart() && strings.HasPrefix(name, "__host-")
	kept := attributes[:1]
	for _, attribute := range attributes[1:] {
		name, path, _ := strings.Cut(attribute, "=")
		switch strings.ToLower(strings.TrimFunc(name, isQuoteOrSpace)) {
		case "domain":
			continue // it would be sent to more hosts
		case "path":
			// The default of a path that does not begin with a slash is below the base
			// URL (RFC 6265, section 5.2.4). Some clients, such as curl, drop quotes.
			if path = strings.TrimFunc(path, isQuoteOrSpace); strings.HasPrefix(path, "/") && !ownHost {
				attribute = name + "=" + m.cookiePath(path)
			}
		}
		kept = append(kept, attribute)
	}
	return strings.Join(kept, ";")
}

func isQuoteOrSpace(c rune) bool { return c == '"' || unicode.IsSpace(c) }

// hides reports whether a cookie is hidden from applications. pair begins with its name. A
// browser keeps "=a=b" as a cookie without a name, and sends it as "a=b" (RFC 6265bis,
// sections 5.6 and 5.8.3): what that reads like counts.
func (p *Proxy) hides(pair string) bool {
	name, _, _ := strings.Cut(strings.TrimLeftFunc(pair, func(c rune) bool { return c == '=' || unicode.IsSpace(c) }), "=")
	name = strings.TrimSpace(name)
	return slices.ContainsFunc(p.deps.HideCookies, func(hidden string) bool {
		prefix, open := strings.CutSuffix(hidden, "*")
		return name == hidden || open && strings.HasPrefix(name, prefix)
	})
}

// confineCookies removes the cookies of a request that no application may see, and those
// beyond maxCookies. All other bytes of its fields stay as they are.
func (p *Proxy) confineCookies(h http.Header) {
	const field = "Cookie"
	if p.seesAll(h[field]) {
		return
	}
	var lines []string
	room, changed := maxCookies, false
	for _, line := range h[field] {
		room -= len(field) + len(": ") // a field can be empty, and there can be many
		var kept []string
		for pair := range strings.SplitSeq(line, ";") {
			if room -= len(pair) + len(";"); room < 0 || p.hides(pair) {
				changed = true
				continue
			}
			kept = append(kept, pair)
		}
		if len(kept) > 0 {
			lines = append(lines, strings.TrimSpace(strings.Join(kept, ";")))
		}
	}
	switch {
	case !changed:
	case len(lines) == 0:
		delete(h, field)
	default:
		h[field] = lines
	}
}

// seesAll reports whether an application may see all of a request's cookies, as nearly
// every time.
func (p *Proxy) seesAll(lines []string) bool {
	size := 0
	for _, line := range lines {
		size += len("Cookie: ;") + len(line)
		for pair := range strings.SplitSeq(line, ";") {
			if p.hides(pair) {
				return false
			}
		}
	}
	return size <= maxCookies
}

// fromElsewhere reports whether a page of another origin makes a browser send a request. It
// must not be shown as one of the visitor's: an application with a token may check nothing
// else, as Jupyter does not. A link or a frame is not such a request, because the page
// cannot read its answer. Older browsers tell only of those that could change something.
func (m mapping) fromElsewhere(h http.Header) bool {
	if origins := h["Origin"]; len(origins) > 0 {
		authority, _, found := cutAuthority(origins[0])
		return !found || !m.isPublic(authority)
	}
	switch h.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
		// The parts of a page in a sandbox, which Jupyter puts HTML files into, come from
		// no site at all. A page of another site cannot give ours as the referrer.
		referrer, _, found := cutAuthority(h.Get("Referer"))
		return h.Get("Sec-Fetch-Mode") != "navigate" && !(found && m.isPublic(referrer))
	}
	return false
}

// confineReferer cuts the addresses of other pages to their origins, unless they are of
// the instance itself. The address of another instance lets anyone in who knows it. The
// fields Ping-From and Ping-To are those of a link with the attribute ping (HTML
// standard, hyperlink auditing).
func confineReferer(h http.Header, m mapping) {
	for _, name := range [...]string{"Referer", "Ping-From", "Ping-To"} {
		if _, ok := h[name]; !ok {
			continue
		}
		kept := h[name][:0]
		for _, value := range h[name] {
			if value = m.confineAddress(value); value != "" {
				kept = append(kept, value)
			}
		}
		if h[name] = kept; len(kept) == 0 {
			delete(h, name)
		}
	}
}

// confineAddress returns what the application may know of an address, or "".
func (m mapping) confineAddress(value string) string {
	authority, rest, found := cutAuthority(value)
	host := authority[strings.LastIndexByte(authority, '@')+1:] // without a password
	switch {
	case !found || m.isOthers(host):
		return ""
	case m.isPublic(authority) && m.isInstances(rest):
		return value
	}
	scheme, _, _ := strings.Cut(value, "//")
	return scheme + "//" + host + "/"
}

// isOthers reports whether a host is that of another instance, whose id is in its name. The hosts of
// an instance's ports know each other.
func (m mapping) isOthers(host string) bool {
	id, ofInstances := m.layout.OfInstances(host)
	own, _ := m.layout.OfInstances(m.host)
	return ofInstances && !m.isPublic(host) && (id == "" || id != own)
}

// confineOrigin hides the origin of another instance's page: its host has the id. "null" is
// how browsers name an origin that they do not tell (Fetch standard, section 3.2).
func confineOrigin(h http.Header, m mapping) {
	for i, value := range h["Origin"] {
		if authority, _, found := cutAuthority(value); found && m.isOthers(authority) {
			h["Origin"][i] = "null"
		}
	}
}
