package logging

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// output holds what a log has written.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(line []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(line)
}

// take returns what was written since it was called last.
func (o *output) take() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.buf.Reset()
	return o.buf.String()
}

// later waits until all lines that are due after a time have been logged.
func later(after time.Duration) {
	time.Sleep(after)
	synctest.Wait()
}

// What strangers repeat is logged once, and then as one line a minute with a count.
func TestSparse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		log := Sparse(New(&out, "text", slog.LevelInfo))
		want := func(lines int, contains ...string) {
			t.Helper()
			got := out.take()
			if strings.Count(got, "\n") != lines {
				t.Errorf("got %d lines, want %d:\n%s", strings.Count(got, "\n"), lines, got)
			}
			for _, text := range contains {
				if !strings.Contains(got, text) {
					t.Errorf("the log lacks %q:\n%s", text, got)
				}
			}
		}
		fail := func(i int) {
			log.Warn("request failed", "code", 503, "path", fmt.Sprint("/", i), "error", errors.New("quota"))
		}
		for i := range 1000 {
			fail(i)
		}
		want(1, "level=WARN", "path=/0", "error=quota")
		later(sparsePeriod + time.Second)
		want(1, "level=WARN", "path=/999", "repeats=999")
		fail(1000)
		want(0)
		later(sparsePeriod)
		want(1, "path=/1000", "repeats=1")
		later(sparsePeriod) // a minute without one: the kind is forgotten
		fail(1001)
		want(1, "path=/1001")
		later(2 * sparsePeriod)
		want(0)
	})
}

// Lines of other kinds, and lines that are no warnings, are not held back.
func TestSparseTellsKindsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		log := Sparse(New(&out, "text", slog.LevelInfo))
		for name, write := range map[string]func(){
			"the first":              func() { log.Warn("failed", "code", 503) },
			"another level":          func() { log.Error("failed", "code", 503) },
			"another message":        func() { log.Warn("refused", "code", 503) },
			"another code":           func() { log.Warn("failed", "code", 500) },
			"another template":       func() { log.Warn("failed", "code", 503, "template", "x") },
			"a logger of its own":    func() { log.With("server", "api").Warn("failed", "code", 503) },
			"another logger":         func() { log.With("server", "proxy").Warn("failed", "code", 503) },
			"a logger with a group":  func() { log.WithGroup("g").Warn("of a group", "code", 503) },
			"information":            func() { log.Info("launched", "id", "1") },
			"information once again": func() { log.Info("launched", "id", "1") },
		} {
			write()
			if got := out.take(); strings.Count(got, "\n") != 1 {
				t.Errorf("%s: got %q, want one line", name, got)
			}
		}
		for name, write := range map[string]func(){
			"another address":                func() { log.Warn("failed", "code", 503, "path", "/x", "id", "2") },
			"a logger with other attributes": func() { log.With("path", "/x").Warn("failed", "code", 503) },
			"numbers in the message":         func() { log.Warn("failed 10.0.0.1:7", "code", 503) },
		} {
			log.Warn("failed 10.0.0.2:80", "code", 503) // net/http puts addresses into messages
			_ = out.take()
			write()
			if got := out.take(); got != "" {
				t.Errorf("%s: got %q, want no line", name, got)
			}
		}
		log.Debug("quiet")
		later(3 * sparsePeriod)
	})
}

// However many kinds of lines strangers make up, few are logged and remembered.
func TestSparseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		log := Sparse(New(&out, "text", slog.LevelInfo))
		var writers sync.WaitGroup
		for writer := range 4 {
			writers.Go(func() {
				for i := range 1000 {
					name := strings.Repeat(string(rune('a'+i%26)), 1+i/26) + string(rune('A'+writer))
					log.Error("strange " + name)
				}
			})
		}
		writers.Wait()
		if got := strings.Count(out.take(), "\n"); got != maxKinds+1 {
			t.Errorf("got %d lines, want %d", got, maxKinds+1)
		}
		later(sparsePeriod + time.Second)
		if got := out.take(); !strings.Contains(got, "repeats=") || strings.Count(got, "\n") > maxKinds+1 {
			t.Errorf("got %d lines, want some counts:\n%s", strings.Count(got, "\n"), got)
		}
		remembered := func() int {
			table := log.Handler().(*sparseHandler).table
			table.mu.Lock()
			defer table.mu.Unlock()
			return len(table.kinds)
		}
		if kinds := remembered(); kinds > maxKinds+1 {
			t.Errorf("%d kinds are remembered", kinds)
		}
		later(2 * sparsePeriod)
		if kinds := remembered(); kinds > 0 {
			t.Errorf("%d kinds are remembered after a minute without lines", kinds)
		}
	})
}
