package harness

import (
	"context"
	"testing"
	"time"
)

const pollInterval = 100 * time.Millisecond

// Until calls check until it returns nil. On timeout the test fails with check's
// last error.
func Until(t testing.TB, within time.Duration, what string, check func(ctx context.Context) error) {
	t.Helper()
	if err := poll(t.Context(), within, check); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
