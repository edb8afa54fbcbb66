package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// tickInterval is how often a long step reports that it is still running.
const tickInterval = 15 * time.Second

// progress prints what the command is doing, with the time since its start.
type progress struct {
	mu    sync.Mutex
	w     io.Writer
	start time.Time
}

func newProgress(w io.Writer) *progress {
	return &progress{w: w, start: time.Now()}
}

// say prints one line.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	elapsed := time.Since(p.start).Round(time.Second)
	fmt.Fprintf(p.w, "[%d:%02d] %s\n", int(elapsed.Minutes()), int(elapsed.Seconds())%60, fmt.Sprintf(format, args...))
}

// step prints what starts and calls do. While do runs, step prints the elapsed
// time every tickInterval. If do succeeds, step prints how long it took.
func (p *progress) step(what string, do func() error) error {
	start := time.Now()
	p.say("%s", what)
	done := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() {
		ticker := time.NewTicker(tickInterval)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				p.say("%s: %s so far", what, time.Since(start).Round(time.Second))
			}
		}
	})
	err := do()
	close(done)
	ticking.Wait()
	if err == nil {
		p.say("%s: done in %.1fs", what, time.Since(start).Seconds())
	}
	return err
}
