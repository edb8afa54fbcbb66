// Package keys holds what authorises requests, the API keys, and the secret that ids of
// repeatable launches are made with.
//
// It must never know requests or flags, nor where keys come from: it is given what reads
// them.
package keys

import (
	"crypto/sha256"
	"crypto/subtle"
	"slices"
	"strings"
	"sync/atomic"
)

// hash is the hash of a key. Keys themselves are not kept, so they cannot be printed, and
// a comparison takes the same time for every wrong key.
type hash = [sha256.Size]byte

// Keys are the API keys that are valid at the moment. The zero Keys open for no header.
// The methods may be called at the same time.
type Keys struct{ valid atomic.Pointer[[]hash] }

// New returns Keys of which all are valid.
func New(keys ...string) *Keys {
	k := &Keys{}
	k.replace(keys)
	return k
}

// replace makes these keys valid, and no others. It reports whether that is a change.
func (k *Keys) replace(keys []string) (changed bool) {
	hashes := make([]hash, 0, len(keys))
	for _, key := range keys {
		hashes = append(hashes, sha256.Sum256([]byte(key)))
	}
	before := k.valid.Swap(&hashes)
	return before == nil || !slices.Equal(*before, hashes)
}

// Opens reports whether an Authorization header carries a valid key. The key stands
// alone, as binder-client sends it, or after the scheme "token" or "Bearer".
func (k *Keys) Opens(header string) bool {
	credential := strings.TrimSpace(header)
	if scheme, rest, found := strings.Cut(credential, " "); found &&
		(strings.EqualFold(scheme, "token") || strings.EqualFold(scheme, "bearer")) {
		credential = strings.TrimSpace(rest)
	}
	sent, opens := sha256.Sum256([]byte(credential)), 0
	if valid := k.valid.Load(); valid != nil {
		for _, hash := range *valid {
			opens |= subtle.ConstantTimeCompare(sent[:], hash[:])
		}
	}
	return opens == 1
}
