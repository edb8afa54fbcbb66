package config

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// anyOrigin in CORSAllowOrigins allows the pages of all origins.
const anyOrigin = "*"

// parseFrameAncestor returns an origin as the directive frame-ancestors of a Content
// Security Policy has it (CSP Level 3, section 2.3.1, host-source). Browsers ignore a
// source that they cannot read, and IP addresses in brackets are such.
func parseFrameAncestor(origin string) (string, error) {
	parsed, err := parseOrigin(origin)
	if err == nil && strings.Contains(parsed, "[") {
		return "", fmt.Errorf("%q is an IPv6 address, which browsers do not understand here: it must be scheme://host or scheme://host:port with a name", origin)
	}
	return parsed, err
}

// hostPattern matches the hosts that browsers send in the Origin header: names in ASCII,
// and IP addresses. It has no character that separates the parts of a header.
var hostPattern = regexp.MustCompile(`^([a-z0-9._-]+|\[[0-9a-f:.]+\])$`)

// parseOrigin returns an origin in the form that browsers send in the Origin header:
// lower case, without the scheme's default port (RFC 6454, section 6.2).
func parseOrigin(origin string) (string, error) {
	if origin == anyOrigin {
		return anyOrigin, nil
	}
	lower := strings.ToLower(origin)
	u, err := url.Parse(lower)
	if err != nil || u.Scheme == "" || u.Hostname() == "" || lower != u.Scheme+"://"+u.Host ||
		!hostPattern.MatchString(strings.TrimSuffix(u.Host, ":"+u.Port())) || strings.HasSuffix(u.Host, ":") || len(u.Port()) > len("65535") {
		return "", fmt.Errorf("%q is not an origin: it must be scheme://host or scheme://host:port, such as https://example.org, or %s for all",
			origin, anyOrigin)
	}
	switch u.Scheme {
	case "http":
		return strings.TrimSuffix(lower, ":80"), nil
	case "https":
		return strings.TrimSuffix(lower, ":443"), nil
	}
	return lower, nil
}

// isHostPort reports whether text is a host, or a host and a port, as it stands in a URL.
func isHostPort(text string) bool {
	u, err := url.Parse("http://" + strings.ToLower(text))
	return err == nil && u.Host == strings.ToLower(text) && !strings.HasSuffix(text, ":") && len(u.Port()) <= len("65535") &&
		hostPattern.MatchString(strings.TrimSuffix(u.Host, ":"+u.Port()))
}
