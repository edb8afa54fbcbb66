package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

const (
	quietWindow = 500 * time.Millisecond
	quietShare  = 0.2 // of all processors
	// How long that may take: between two measurements, and between two rows. The API server
	// and its clients have work for most of a minute with 40,000 new pods.
	quietTimeout    = 10 * time.Second
	quietRowTimeout = 90 * time.Second
)

// awaitQuiet waits until the machine has had little to do for a moment: what ended pods and
// new ones leave to do would be measured with what comes next. On a machine that is never
// quiet it gives up after timeout.
func awaitQuiet(ctx context.Context, timeout time.Duration) error {
	for began := time.Now(); time.Since(began) < timeout; {
		busyBefore, allBefore, err := processorTimes()
		if err != nil {
			return err
		}
		if err := sleep(ctx, quietWindow); err != nil {
			return err
		}
		busy, all, err := processorTimes()
		if err != nil {
			return err
		}
		if busy-busyBefore <= quietShare*(all-allBefore) {
			return nil
		}
	}
	return nil
}

// processorTimes returns for how long the machine's processors have worked, and for how long
// they could have: the first line of /proc/stat, in ticks (proc_stat(5)).
func processorTimes() (busy, all float64, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, fmt.Errorf("read the times of the processors: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var user, nice, system, idle, wait, interrupts, soft, stolen float64
	if _, err := fmt.Sscanf(line, "cpu %g %g %g %g %g %g %g %g", &user, &nice, &system, &idle, &wait, &interrupts, &soft, &stolen); err != nil {
		return 0, 0, errors.Join(errors.New("read the times of the processors"), err)
	}
	busy = user + nice + system + interrupts + soft + stolen
	return busy, busy + idle + wait, nil
}
