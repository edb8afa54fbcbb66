package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// tickEvery is how often a step that takes long says that it goes on.
const tickEvery = 15 * time.Second

// progress tells a person what is being done, with the time since the start.
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

// during says what starts, does it, says every tickEvery that it goes on and,
// if it succeeded, how long it took.
func (p *progress) during(what string, do func() error) error {
	start := time.Now()
	p.say("%s", what)
	done := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() {
		ticker := time.NewTicker(tickEvery)
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
