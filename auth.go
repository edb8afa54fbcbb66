package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"strings"
)

// apiKey is what authorised requests must show. Only its hash is kept, so that
// it can neither be printed nor be told by the time a comparison takes.
type apiKey struct{ hash [sha256.Size]byte }

func newAPIKey(key string) apiKey { return apiKey{sha256.Sum256([]byte(key))} }

// opens reports whether an Authorization header carries the key: bare, as the
// protocol has it, or after the scheme "token" or "Bearer".
func (k apiKey) opens(header string) bool {
	credential := strings.TrimSpace(header)
	if scheme, rest, found := strings.Cut(credential, " "); found &&
		(strings.EqualFold(scheme, "token") || strings.EqualFold(scheme, "bearer")) {
		credential = strings.TrimSpace(rest)
	}
	hash := sha256.Sum256([]byte(credential))
	return subtle.ConstantTimeCompare(hash[:], k.hash[:]) == 1
}
