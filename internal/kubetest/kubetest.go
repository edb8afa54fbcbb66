package kubetest

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"
	"time"
)

// What all fixtures have in common.
const (

	// Patience limits every wait for something that comes at once.
	Patience = 10 * time.Second
)

// Eventually waits for a condition, and fails the test when it does not come.
func Eventually(t testing.TB, what string, met func() bool) {
	t.Helper()
	limit := time.Now().Add(Patience)
	for !met() {
		if time.Now().After(limit) {
			t.Fatalf("after %s it is still not so that %s", Patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}

// LogBuffer holds what a logger wrote; any goroutine may write and read.
type LogBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *LogBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *LogBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// RecordLog is a logger of every level, and what it has written, as text.
func RecordLog() (*slog.Logger, *LogBuffer) {
	b := &LogBuffer{}
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug})), b
}

// NoLog is a logger that nobody reads.
func NoLog() *slog.Logger { return slog.New(slog.DiscardHandler) }
