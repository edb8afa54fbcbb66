package harness

import (
	"context"
	"testing"
	"time"
)

const pollInterval = 100 * time.Millisecond

// Until waits for a condition: check returns nil when it holds, else what is
// still amiss, which is what the test fails with when the time is over.
func Until(t testing.TB, within time.Duration, what string, check func(ctx context.Context) error) {
	t.Helper()
	if err := poll(t.Context(), within, check); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
