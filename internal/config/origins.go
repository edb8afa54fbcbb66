package config

import (
	"fmt"
	"net/url"
	"strings"
)

// anyOrigin in CORSAllowOrigins allows the pages of all origins.
const anyOrigin = "*"

// originList is a flag that can be repeated, or hold several origins at once.
type originList []string

func (l *originList) String() string { return strings.Join(*l, ",") }

// Set adds origins. They are checked later, with all other settings, so that one
// error names every mistake.
func (l *originList) Set(value string) error {
	for origin := range strings.SplitSeq(value, ",") {
		*l = append(*l, strings.TrimSpace(origin))
	}
	return nil
}

// parseOrigin returns an origin in the form that browsers send in the Origin header:
// lower case, without the scheme's default port (RFC 6454, section 6.2).
func parseOrigin(origin string) (string, error) {
	if origin == anyOrigin {
		return anyOrigin, nil
	}
	lower := strings.ToLower(origin)
	u, err := url.Parse(lower)
	if err != nil || u.Scheme == "" || u.Hostname() == "" || lower != u.Scheme+"://"+u.Host ||
		strings.ContainsAny(u.Host, "*%") || strings.HasSuffix(u.Host, ":") || len(u.Port()) > len("65535") {
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
