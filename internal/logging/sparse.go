package logging

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// sparsePeriod is the time between two lines of one kind.
	sparsePeriod = time.Minute
	// maxKinds bounds the kinds of lines that are told apart. Further ones count as one.
	maxKinds = 100
	// maxKindText is how much of a message tells kinds apart, in bytes.
	maxKindText = 80
)

// Sparse returns a log for lines that strangers or an outage can cause again and again. The first
// warning or error of a kind goes to log at once. Those of the next minute are counted,
// and at its end the last of them goes to log, with their number as the attribute
// "repeats"; and so on, until a minute has none. Lines below warnings are not held back.
//
// Lines are of one kind if their level, their message without digits, and their template,
// code and server are the same: what a stranger chooses in the other attributes makes no
// new kind. What is waiting when the process ends is lost.
func Sparse(log *slog.Logger) *slog.Logger {
	return slog.New(&sparseHandler{next: log.Handler(), table: &sparseTable{kinds: map[string]*sparseKind{}}})
}

// sparseHandler is the slog.Handler of Sparse.
type sparseHandler struct {
	next  slog.Handler
	scope string // the attributes of the logger that tell kinds apart
	table *sparseTable
}

// sparseTable holds the kinds of lines that were logged within the last minute.
type sparseTable struct {
	mu    sync.Mutex
	kinds map[string]*sparseKind
}

// sparseKind counts the lines of a kind since the last one that was logged.
type sparseKind struct {
	repeats int
	last    slog.Record
	next    slog.Handler // the handler of the last line
}

func (h *sparseHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

func (h *sparseHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	scope := h.scope
	for _, attr := range attrs {
		scope += kindOf(attr)
	}
	return &sparseHandler{next: h.next.WithAttrs(attrs), scope: scope, table: h.table}
}

func (h *sparseHandler) WithGroup(name string) slog.Handler {
	return &sparseHandler{next: h.next.WithGroup(name), scope: h.scope, table: h.table}
}

func (h *sparseHandler) Handle(ctx context.Context, line slog.Record) error {
	if line.Level < slog.LevelWarn || h.table.first(h.kind(line), line, h.next) {
		return h.next.Handle(ctx, line)
	}
	return nil
}

// kind names the kind of a line.
func (h *sparseHandler) kind(line slog.Record) string {
	text := strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' {
			return -1
		}
		return c
	}, line.Message)
	kind := line.Level.String() + " " + h.scope + text[:min(len(text), maxKindText)]
	line.Attrs(func(attr slog.Attr) bool {
		kind += kindOf(attr)
		return true
	})
	return kind
}

// kindOf returns what an attribute adds to a kind.
func kindOf(attr slog.Attr) string {
	switch attr.Key {
	case "template", "code", "server":
		return fmt.Sprintf(" %s=%.*s", attr.Key, maxKindText, attr.Value.String())
	}
	return ""
}

// first reports whether a line is the first of its kind. Others are counted.
func (t *sparseTable) first(kind string, line slog.Record, next slog.Handler) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.kinds[kind] == nil && len(t.kinds) >= maxKinds {
		kind = "others"
	}
	if k := t.kinds[kind]; k != nil {
		k.repeats++
		k.last, k.next = line.Clone(), next
		return false
	}
	t.kinds[kind] = &sparseKind{}
	time.AfterFunc(sparsePeriod, func() { t.end(kind) })
	return true
}

// end logs how many lines of a kind there were in a minute, or forgets the kind if there
// were none.
func (t *sparseTable) end(kind string) {
	t.mu.Lock()
	k := *t.kinds[kind]
	if k.repeats == 0 {
		delete(t.kinds, kind)
		t.mu.Unlock()
		return
	}
	t.kinds[kind] = &sparseKind{}
	time.AfterFunc(sparsePeriod, func() { t.end(kind) })
	t.mu.Unlock()
	k.last.AddAttrs(slog.Int("repeats", k.repeats))
	k.last.Time = time.Now()                        // a log's lines are in the order of their times
	_ = k.next.Handle(context.Background(), k.last) // slog ignores such an error too
}
