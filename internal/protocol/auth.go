package protocol

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"strings"
)

// APIKey is what authorised requests must show. Only its hash is kept, so that
// it can neither be printed nor be told by the time a comparison takes.
type APIKey struct{ hash [sha256.Size]byte }

func NewAPIKey(key string) APIKey { return APIKey{sha256.Sum256([]byte(key))} }

// InstanceID makes an id of an idempotency key and a template: the same on every
// replica that has the same API key, and not to be guessed by who has not. The
// idempotency key holds no zero byte, so that no two pairs read the same.
func (k APIKey) InstanceID(idempotencyKey, template string) string {
	mac := hmac.New(sha256.New, k.hash[:])
	for _, part := range []string{"instance id", idempotencyKey, template} {
		mac.Write([]byte(part + "\x00"))
	}
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// Opens reports whether an Authorization header carries the key: bare, as the
// protocol has it, or after the scheme "token" or "Bearer".
func (k APIKey) Opens(header string) bool {
	credential := strings.TrimSpace(header)
	if scheme, rest, found := strings.Cut(credential, " "); found &&
		(strings.EqualFold(scheme, "token") || strings.EqualFold(scheme, "bearer")) {
		credential = strings.TrimSpace(rest)
	}
	hash := sha256.Sum256([]byte(credential))
	return subtle.ConstantTimeCompare(hash[:], k.hash[:]) == 1
}
