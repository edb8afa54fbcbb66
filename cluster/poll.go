package main

import (
	"context"
	"fmt"
	"time"
)

// pollEvery is short: what is waited for is on this machine.
const pollEvery = 50 * time.Millisecond

// poll tries a check until it succeeds. When patience runs out, or ctx ends, it
// returns the check's last error.
func poll(ctx context.Context, patience time.Duration, check func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ticker := time.NewTicker(pollEvery)
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
			return fmt.Errorf("not within %s: %w", patience, err)
		case <-ticker.C:
		}
	}
}
