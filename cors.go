package main

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const (
	anyOrigin = "*"

	corsMethods = "GET, POST, DELETE"
	corsHeaders = "Authorization, Content-Type, Prefer, Idempotency-Key, Accept"
	corsExposed = "Preference-Applied, Retry-After"
	// corsMaxAge is how long, in seconds, a browser need not ask again.
	corsMaxAge = "600"
)

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
	if origin == anyOrigin {
		return anyOrigin, nil
	}
	lower := strings.ToLower(origin)
	u, err := url.Parse(lower)
	if err != nil || u.Scheme == "" || u.Hostname() == "" || lower != u.Scheme+"://"+u.Host ||
		strings.ContainsAny(u.Host, "*%") || strings.HasSuffix(u.Host, ":") || len(u.Port()) > len("65535") {
		return "", fmt.Errorf("%q is no origin: it must be scheme://host or scheme://host:port, or %s for all", origin, anyOrigin)
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

// allowOrigins lets pages of some origins call the API from a browser. They
// never do so with a cookie: there is none, and the key is in a header.
func allowOrigins(origins []string, next http.Handler) http.Handler {
	if len(origins) == 0 {
		return next
	}
	all := slices.Contains(origins, anyOrigin)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header, origin := w.Header(), r.Header.Get("Origin")
		if !all {
			header.Add("Vary", "Origin") // also where the answer is no: a cache must not give it to others
		}
		if origin == "" || !all && !slices.Contains(origins, origin) {
			next.ServeHTTP(w, r)
			return
		}
		if all {
			origin = anyOrigin
		}
		header.Set("Access-Control-Allow-Origin", origin)
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			header.Set("Access-Control-Allow-Methods", corsMethods)
			header.Set("Access-Control-Allow-Headers", corsHeaders)
			header.Set("Access-Control-Max-Age", corsMaxAge)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		header.Set("Access-Control-Expose-Headers", corsExposed)
		next.ServeHTTP(w, r)
	})
}
