package conformance

import "crypto/rand"

// newKey returns a key of 26 letters and digits for a script.
func newKey() string { return rand.Text() }
