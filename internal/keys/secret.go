package keys

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
)

// Secret is what all replicas know and nobody else. Unlike an API key, it is sent to
// nobody, and must not change while instances live. Only its hash is kept.
type Secret struct{ hash hash }

// NewSecret returns the Secret of a text.
func NewSecret(text string) Secret { return Secret{sha256.Sum256([]byte(text))} }

// InstanceID returns the id of the instance that an idempotency key launches from a
// template. The id is the same on every replica, and cannot be guessed without the secret.
// idempotencyKey must hold no zero byte: one separates it from the template.
func (s Secret) InstanceID(idempotencyKey, template string) string {
	return hex.EncodeToString(s.mac("instance id", idempotencyKey, template)[:16])
}

// mac returns the HMAC of some parts. The first says what it is for, so that no two uses
// of the secret have a value in common.
func (s Secret) mac(parts ...string) []byte {
	mac := hmac.New(sha256.New, s.hash[:])
	for _, part := range parts {
		mac.Write([]byte(part + "\x00"))
	}
	return mac.Sum(nil)
}
