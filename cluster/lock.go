package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockTimeout is how long a command waits for another one. The other command
// may be building Kubernetes for the first time.
const lockTimeout = 30 * time.Minute

// withLock runs do while holding the cluster's lock, so that no other command
// changes the cluster at the same time.
func (c *cluster) withLock(ctx context.Context, do func() error) error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return fmt.Errorf("create the cluster's directory: %w", err)
	}
	file, err := os.OpenFile(c.lock(), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("open the cluster's lock: %w", err)
	}
	defer file.Close() // releases the lock
	reported := false
	err = poll(ctx, lockTimeout, func(context.Context) error {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) && !reported {
			reported = true
			c.progress.say("waiting for another command on this cluster to finish")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("wait for another command on this cluster: %w", err)
	}
	return do()
}
