// Package kubetest is the fake cluster that this service's tests share: pods and
// templates in every state, a fake API server, and a read model of it. Only tests import
// it.
package kubetest

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"
	"time"
)

// Patience limits every wait for something that should happen at once.
const Patience = 10 * time.Second

// Eventually waits until a condition is met. It fails the test if that does not happen
// within Patience. what describes the condition, such as "the cache has synced".
func Eventually(t testing.TB, what string, met func() bool) {
	t.Helper()
	limit := time.Now().Add(Patience)
	for !met() {
		if time.Now().After(limit) {
			t.Fatalf("not within %s: %s", Patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}

// LogBuffer holds the lines of a logger. It is safe for concurrent use.
type LogBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write appends to the buffer.
func (b *LogBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String returns everything written so far.
func (b *LogBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// RecordLog returns a logger for all levels, and the buffer that it writes to.
func RecordLog() (*slog.Logger, *LogBuffer) {
	b := &LogBuffer{}
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug})), b
}

// NoLog returns a logger that discards everything.
func NoLog() *slog.Logger { return slog.New(slog.DiscardHandler) }
