package main

import (
	"context"
	"fmt"
	"time"
)

// pollInterval is short because all checks are local.
const pollInterval = 50 * time.Millisecond

// poll calls check until it succeeds. On timeout, or when ctx is done, it
// returns check's last error.
func poll(ctx context.Context, timeout time.Duration, check func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		err := check(limited)
		if err == nil {
			return nil
		}
		select {
		case <-limited.Done():
			if ctx.Err() != nil {
				return fmt.Errorf("interrupted: %w", err)
			}
			return fmt.Errorf("timed out after %s: %w", timeout, err)
		case <-ticker.C:
		}
	}
}
