package auth

import "net/http"

// CheckSecret reports whether a password is that of a secret.
func CheckSecret(password, secret string) bool {
	basic := &BasicAuth{Secrets: func(string, string) string { return secret }}
	request := &http.Request{Header: http.Header{}}
	request.SetBasicAuth("anyone", password)
	return basic.CheckAuth(request) != ""
}

// RequireAuthStale is RequireAuth for a request that has been authenticated before.
func (a *DigestAuth) RequireAuthStale(w http.ResponseWriter, r *http.Request) { a.RequireAuth(w, r) }
