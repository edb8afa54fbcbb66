package launch

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	// quotaMemory is how long a quota's refusal is remembered. Meanwhile launches of the
	// same template fail without a write. It is short, because a place can become free at
	// any time.
	quotaMemory = 2 * time.Second
	// quotaLogPeriod is the least time between two log lines about quotas.
	quotaLogPeriod = time.Minute
)

// quota remembers which templates' pods a ResourceQuota has refused. Other templates may
// ask for less, so each is remembered by itself. The zero value is ready for use.
type quota struct {
	mu      sync.Mutex
	refused map[string]time.Time // by template
	logged  time.Time
	since   int // launches refused since then
}

// check returns an ErrCapacity if a quota refused a pod of the template a moment ago.
func (q *quota) check(template string, now time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	at, ok := q.refused[template]
	if !ok || !isWithin(quotaMemory, at, now) {
		return nil
	}
	q.since++
	return fmt.Errorf("%w: a quota refused template %q less than %s ago", ErrCapacity, template, quotaMemory)
}

// refuse remembers a refusal, whose cause is err. It logs the first, and then one line a
// minute with the number of launches that were refused since the line before: anybody
// can cause as many refusals as they like.
func (q *quota) refuse(ctx context.Context, log *slog.Logger, template string, now time.Time, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for other, at := range q.refused {
		if !isWithin(quotaMemory, at, now) {
			delete(q.refused, other)
		}
	}
	if q.refused == nil {
		q.refused = map[string]time.Time{}
	}
	q.refused[template] = now
	q.since++
	if isWithin(quotaLogPeriod, q.logged, now) {
		return
	}
	log.WarnContext(ctx, "launches refused by a quota", "template", template, "refused", q.since, "error", err)
	q.logged, q.since = now, 0
}

// isWithin reports whether less than d has passed since a time. A clock that was set back
// does not stretch d.
func isWithin(d time.Duration, since, now time.Time) bool {
	passed := now.Sub(since)
	return passed >= 0 && passed < d
}
