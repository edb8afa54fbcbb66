package instance

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"
)

// WatchDelay is how long a request that names something unknown to this replica is
// held before it is answered with "not found". Another replica may have created it a
// moment ago. Watches usually deliver within milliseconds; the rest is for a busy
// API server, or a busy replica: clients take "not found" for the end of an instance.
const WatchDelay = 2 * time.Second

// KeyPrefix is the beginning of every label and annotation of this service, but for the
// recommended ones of Kubernetes.
const KeyPrefix = "binder-project.org/"

// UserPrefix is the first part of the path of every instance.
const UserPrefix = "/user/"

const (
	podNamePrefix       = "binder-"
	idLength            = 32 // hex digits
	nameBytes           = 16 // of the hash, in the name of a pod
	tombstoneNameSuffix = ".deleted"
)

// ValidID reports whether s has the form of an instance's id: 16 bytes in
// lower-case hex.
func ValidID(s string) bool {
	return len(s) == idLength && strings.Trim(s, "0123456789abcdef") == ""
}

// NewID returns 16 random bytes in hex, the form that Binder clients expect.
func NewID(random io.Reader) (string, error) {
	id, err := randomHex(random)
	if err != nil {
		return "", fmt.Errorf("read random bytes for an id: %w", err)
	}
	return id, nil
}

func randomHex(random io.Reader) (string, error) {
	var raw [16]byte
	_, err := io.ReadFull(random, raw[:])
	return hex.EncodeToString(raw[:]), err
}

// PodName returns the name of an instance's pod: a hash of the id. Anyone who knows the id
// can visit the instance, and names are in logs, Events, metrics and dashboards. An id is
// too random to be found from its hash by trying. The hash is of the text of the id, so
// that sha256sum computes it as well.
func PodName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return podNamePrefix + hex.EncodeToString(sum[:nameBytes])
}

// TombstoneName returns the name of the Event that remembers an instance.
func TombstoneName(id string) string { return PodName(id) + tombstoneNameSuffix }

// BaseURL returns the path below which an instance is served.
func BaseURL(id string) string { return UserPrefix + id + "/" }
