package protocol

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"strings"
)

// APIKey is the key that authorised requests carry. Only its hash is kept, so the
// key cannot be printed, and a comparison takes the same time for every wrong key.
// The zero APIKey opens for no header.
type APIKey struct{ hash [sha256.Size]byte }

// NewAPIKey returns the APIKey of a key.
func NewAPIKey(key string) APIKey { return APIKey{sha256.Sum256([]byte(key))} }

// InstanceID returns the id of the instance that an idempotency key launches from a
// template. The id is the same on every replica that has the same API key, and
// cannot be guessed without it. idempotencyKey must hold no zero byte: one separates
// it from the template.
func (k APIKey) InstanceID(idempotencyKey, template string) string {
	mac := hmac.New(sha256.New, k.hash[:])
	for _, part := range []string{"instance id", idempotencyKey, template} {
		mac.Write([]byte(part + "\x00"))
	}
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// Opens reports whether an Authorization header carries the key. The key stands
// alone, as binder-client sends it, or after the scheme "token" or "Bearer".
func (k APIKey) Opens(header string) bool {
	credential := strings.TrimSpace(header)
	if scheme, rest, found := strings.Cut(credential, " "); found &&
		(strings.EqualFold(scheme, "token") || strings.EqualFold(scheme, "bearer")) {
		credential = strings.TrimSpace(rest)
	}
	hash := sha256.Sum256([]byte(credential))
	return subtle.ConstantTimeCompare(hash[:], k.hash[:]) == 1
}
