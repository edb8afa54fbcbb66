package protocol

import (
	"net/http"
	"slices"
)

const (
	// anyOrigin in a list of origins allows all of them.
	anyOrigin = "*"

	corsMethods = "GET, POST, DELETE"
	corsHeaders = "Authorization, Content-Type, Prefer, Idempotency-Key, Accept, Last-Event-ID, X-Xsrftoken"
	corsExposed = "Preference-Applied, Retry-After"
	// corsMaxAge is how long, in seconds, a browser may keep the answer to a preflight.
	corsMaxAge = "600"
)

// AllowOrigins lets web pages of some origins call next from a browser, by the CORS
// protocol of the Fetch standard. An origin is what browsers send, such as
// "https://hub.example"; "*" allows all. Browsers send no credentials of their own
// with these calls: this API has no cookies, and the page itself adds the API key.
func AllowOrigins(origins []string, next http.Handler) http.Handler {
	if len(origins) == 0 {
		return next
	}
	all := slices.Contains(origins, anyOrigin)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header, origin := w.Header(), r.Header.Get("Origin")
		if !all {
			// Refusals need it too: a cache must not serve them to an allowed origin.
			header.Add("Vary", "Origin")
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

// RefuseOtherSites passes requests to next, except those with side effects that a page of
// another site made a browser send: refuse answers these. A form needs no permission by
// CORS, so a browser posts it to any address. Browsers tell who asks by Sec-Fetch-Site and
// Origin; requests without both are not a browser's and pass. The pages of origins may
// send everything. An origin that cannot be one of a browser is not trusted.
//
// A page of the request's own host may send everything only if isOurs is nil or accepts the host.
// Anyone can have a page at a name, and lead the name to this service (DNS rebinding).
func RefuseOtherSites(origins []string, isOurs func(host string) bool, refuse, next http.Handler) http.Handler {
	if slices.Contains(origins, anyOrigin) {
		return next
	}
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(refuse)
	for _, origin := range origins {
		_ = protection.AddTrustedOrigin(origin) // package config has checked it
	}
	protected := protection.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isSafe(r.Method) {
			next.ServeHTTP(w, r)
			return
		}
		origin := r.Header.Get("Origin")
		ofBrowser := origin != "" || r.Header.Get("Sec-Fetch-Site") != ""
		if ofBrowser && isOurs != nil && !isOurs(r.Host) && !slices.Contains(origins, origin) {
			refuse.ServeHTTP(w, r)
			return
		}
		protected.ServeHTTP(w, r)
	})
}

// isSafe reports whether a method has no side effects (RFC 9110, section 9.2.1).
func isSafe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}
