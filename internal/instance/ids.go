package instance

import (
	"encoding/hex"
	"fmt"
	"io"
	"regexp"
	"time"
)

// WatchDelay is how long a request for an unknown id waits for the watch to
// bring it: another replica may have launched it a moment ago.
const WatchDelay = 500 * time.Millisecond

const PodNamePrefix = "binder-"

const TombstoneNameSuffix = ".deleted"

var idPattern = regexp.MustCompile(`^[0-9a-f]{32}$`)

// ValidID reports whether s could be an instance's id: 16 bytes in hex.
func ValidID(s string) bool { return idPattern.MatchString(s) }

func PodName(id string) string { return PodNamePrefix + id }

func TombstoneName(id string) string { return PodName(id) + TombstoneNameSuffix }

func BaseURL(id string) string { return "/user/" + id + "/" }

// NewID returns 16 random bytes in hex, as every Binder client expects.
func NewID(random io.Reader) (string, error) {
	var raw [16]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return "", fmt.Errorf("read random bytes for an id: %w", err)
	}
	return hex.EncodeToString(raw[:]), nil
}
