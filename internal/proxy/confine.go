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

// actsOnOrigin reports whether a field of an answer acts on more than the answer: on
// everything that the browser keeps or does for its origin, which all instances share.
func actsOnOrigin(name string) bool {
	switch name {
	case "Accept-Ch", "Accept-Ch-Lifetime", "Critical-Ch", // what browsers send to all of it
		"Alt-Svc",                                                                                  // where it is (RFC 7838)
		"Clear-Site-Data",                                                                          // what is kept for it
		"Expect-Ct", "Public-Key-Pins", "Public-Key-Pins-Report-Only", "Strict-Transport-Security", // how it is reached
		"Nel", "Report-To", // who is told of its addresses, which are secret
		"Attribution-Reporting-Register-Source", "Attribution-Reporting-Register-Trigger",
		"Observe-Browsing-Topics", "Shared-Storage-Write", // what its visitors are known for
		"Secure-Session-Registration", "Sec-Session-Registration", "Set-Login", // who is logged in
		"Origin-Agent-Cluster", "Use-As-Dictionary", "X-Permitted-Cross-Domain-Policies":
		return true
	}
	return false
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

// removeFarReaching removes the fields of an answer that act on more than the answer.
func removeFarReaching(h http.Header) {
	for name := range h {
		if actsOnOrigin(name) || commandsServer(name) {
			delete(h, name)
		}
	}
}

// confineCookie keeps a cookie that an application sets to the application's own path. It
// returns "" for a cookie that no application may set.
func (p *Proxy) confineCookie(m mapping, value string) string {
	attributes := strings.Split(value, ";")
	if p.hides(attributes[0]) {
		return ""
	}
	kept := attributes[:1]
	for _, attribute := range attributes[1:] {
		name, path, _ := strings.Cut(attribute, "=")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "domain":
			continue // it would be sent to more hosts
		case "path":
			// The default of a path that does not begin with a slash is below the base
			// URL (RFC 6265, section 5.2.4). Some clients, such as curl, drop quotes.
			if path = strings.TrimFunc(path, isQuoteOrSpace); strings.HasPrefix(path, "/") {
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
		return h.Get("Sec-Fetch-Mode") != "navigate"
	}
	return false
}

// confineReferer cuts a Referer to its origin, unless it is an address of the instance
// itself. The address of another instance lets anyone in who knows it.
func confineReferer(h http.Header, m mapping) {
	for i, value := range h["Referer"] {
		authority, rest, found := cutAuthority(value)
		if found && m.isPublic(authority) && m.isInstances(rest) {
			continue
		}
		if !found {
			delete(h, "Referer")
			return
		}
		scheme, _, _ := strings.Cut(value, "//")
		host := authority[strings.LastIndexByte(authority, '@')+1:] // without a password
		h["Referer"][i] = scheme + "//" + host + "/"
	}
}
