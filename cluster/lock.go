package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockPatience is how long a verb waits for another one. A first build of
// Kubernetes may be what it waits for.
const lockPatience = 30 * time.Minute

// locked runs do while no other process of this checkout changes the cluster.
func (c *cluster) locked(ctx context.Context, do func() error) error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return fmt.Errorf("make the cluster's directory: %w", err)
	}
	file, err := os.OpenFile(c.lock(), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("open the cluster's lock: %w", err)
	}
	defer file.Close() // and so unlock
	said := false
	err = poll(ctx, lockPatience, func(context.Context) error {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) && !said {
			said = true
			c.progress.say("waiting for another command on this cluster to end")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("wait for another command on this cluster: %w", err)
	}
	return do()
}
