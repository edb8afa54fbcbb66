package config

import (
	"fmt"
	"net/url"
	"strings"
)

const AnyOrigin = "*"

// originList is a flag that may be given several times, or hold several values.
type originList []string

func (l *originList) String() string { return strings.Join(*l, ",") }

// Set only collects: what is wrong is said with all other mistakes.
func (l *originList) Set(value string) error {
	for origin := range strings.SplitSeq(value, ",") {
		*l = append(*l, strings.TrimSpace(origin))
	}
	return nil
}

// parseOrigin brings an origin to the form in which browsers send it.
func parseOrigin(origin string) (string, error) {
	if origin == AnyOrigin {
		return AnyOrigin, nil
	}
	lower := strings.ToLower(origin)
	u, err := url.Parse(lower)
	if err != nil || u.Scheme == "" || u.Hostname() == "" || lower != u.Scheme+"://"+u.Host ||
		strings.ContainsAny(u.Host, "*%") || strings.HasSuffix(u.Host, ":") || len(u.Port()) > len("65535") {
		return "", fmt.Errorf("%q is no origin: it must be scheme://host or scheme://host:port, or %s for all", origin, AnyOrigin)
	}
	// Browsers leave out the port that goes without saying.
	if u.Scheme == "http" {
		return strings.TrimSuffix(lower, ":80"), nil
	}
	if u.Scheme == "https" {
		return strings.TrimSuffix(lower, ":443"), nil
	}
	return lower, nil
}
