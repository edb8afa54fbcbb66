package faults

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }

var bounds = Bounds{MinTimeout: time.Second, StartTimeout: time.Minute, Retention: time.Minute, Settle: 2 * time.Minute, Removal: 10 * time.Second}

// TestJudge has one instance a row, with a timeout of 6 s, launched at noon and deployed a
// second later.
func TestJudge(t *testing.T) {
	for _, row := range []struct {
		name   string
		plan   Plan
		happen func(l *Ledger)
		want   Findings
		told   string // a part of the only problem
	}{
		{"lives", Used, func(l *Ledger) { l.SawPod("u", "1", time.Time{}, false, at(0)) }, Findings{}, ""},
		{"no pod", Used, func(*Ledger) {}, Findings{Lost: 1}, "no pod has its id"},
		{"culled early", Used, func(l *Ledger) {
			l.UsedAt("1", at(5))
			l.SawPod("u", "1", at(9), true, at(11))
		}, Findings{Early: 1}, "was deleted at 12:00:09"},
		{"culled in time", Idle, func(l *Ledger) { l.SawPod("u", "1", at(10), true, at(11)) }, Findings{}, ""},
		{"idle since it is deployed", Idle, func(l *Ledger) { l.SawPod("u", "1", at(5), true, at(6)) }, Findings{Early: 1}, "was deleted"},
		{"a use that failed does not count", Used, func(l *Ledger) {
			l.UsedAt("1", at(1))
			l.SawPod("u", "1", at(8), true, at(9))
		}, Findings{}, ""},
		{"used when it was idle for too long", Used, func(l *Ledger) {
			l.UsedAt("1", at(8))
			l.SawPod("u", "1", at(8), true, at(9))
		}, Findings{}, ""},
		{"stopped", Stopped, func(l *Ledger) {
			l.Change("1", func(e *Entry) { e.Left = at(3) })
			l.SawPod("u", "1", at(3), true, at(4))
		}, Findings{}, ""},
		{"ended before it was stopped", Stopped, func(l *Ledger) {
			l.Change("1", func(e *Entry) { e.Left = at(6) })
			l.SawPod("u", "1", at(4), true, at(5))
		}, Findings{Early: 1}, "was deleted"},
		{"two pods", Used, func(l *Ledger) {
			l.SawPod("u", "1", time.Time{}, false, at(0))
			l.SawPod("v", "1", time.Time{}, false, at(1))
		}, Findings{Duplicated: 1, Other: 1}, "two pods have the id"},
		{"another pod after the first has gone", Used, func(l *Ledger) {
			l.SawPod("u", "1", at(20), true, at(21))
			l.SawPod("v", "1", time.Time{}, false, at(22))
		}, Findings{Duplicated: 1}, ""},
		{"given twice", Used, func(l *Ledger) {
			l.SawPod("u", "1", time.Time{}, false, at(0))
			l.Launched(Entry{ID: "1", Launched: at(2)})
		}, Findings{Other: 1}, "given twice"},
		{"a status goes back", Used, func(l *Ledger) {
			l.SawPod("u", "1", time.Time{}, false, at(0))
			l.SawStatus("a", "1", "deployed", "", at(1))
			l.SawStatus("b", "1", "deploying", "", at(2)) // another replica, which is later
			l.SawStatus("a", "1", "deploying", "", at(3))
		}, Findings{Other: 1}, "went from deployed to deploying at a"},
	} {
		l := NewLedger()
		l.Launched(Entry{ID: "1", Plan: row.plan, Timeout: 6 * time.Second, Launched: at(0), Deployed: at(1)})
		row.happen(l)
		got := l.Judge(nil, false, at(60))
		problems := strings.Join(got.Problems, "\n")
		got.Problems = nil
		assert.Equal(t, row.want, got, row.name)
		assert.Contains(t, problems, row.told, row.name)
	}
}

// TestWaiting says by when an instance must be gone: its lag is 2.5 s.
func TestWaiting(t *testing.T) {
	for _, row := range []struct {
		name  string
		entry Entry
		well  float64
		want  float64 // seconds after noon; 0: it need not end
	}{
		{"in use", Entry{Plan: Used}, 0, 0},
		{"left", Entry{Plan: Used, LastUse: at(20), Left: at(20)}, 0, 20 + 6 + 2.5 + 10},
		{"idle", Entry{Plan: Idle}, 0, 1 + 6 + 2.5 + 10},
		{"idle, and the fault was long", Entry{Plan: Idle}, 100, 100 + 2.5 + 10},
		{"stopped", Entry{Plan: Stopped, Left: at(4)}, 0, 4 + 10},
		{"to be stopped", Entry{Plan: Stopped}, 0, 1 + 6 + 2.5 + 10},
	} {
		l := NewLedger()
		row.entry.ID, row.entry.Launched, row.entry.Deployed, row.entry.Timeout = "1", at(0), at(1), 6*time.Second
		l.Launched(row.entry)
		l.UsedAt("1", row.entry.LastUse)
		l.SawPod("u", "1", time.Time{}, false, at(0))
		ids, until := l.Waiting(bounds, time.Minute, at(row.well), at(60))
		if row.want == 0 {
			assert.Empty(t, ids, row.name)
			continue
		}
		assert.Equal(t, []string{"1"}, ids, row.name)
		assert.Equal(t, at(row.want), until, row.name)
	}
}

// An instance whose launch was not answered must end as well.
func TestWaitingForUnknown(t *testing.T) {
	l := NewLedger()
	l.SawPod("u", "1", time.Time{}, false, at(3))
	ids, until := l.Waiting(bounds, 30*time.Second, at(0), at(60))
	assert.Equal(t, []string{"1"}, ids)
	assert.Equal(t, at(3+60+60+30+4.5+10), until)
	ids, _ = l.Waiting(bounds, 30*time.Second, at(0), at(2))
	assert.Empty(t, ids, "what was launched later is not waited for")
}

func TestCounts(t *testing.T) {
	l := NewLedger()
	l.Count(Pages, "")
	l.Count(Pages, "502")
	l.Count(Pages, "502")
	l.Count(Launches, "503")
	sent, failed, why := l.TakeCounts()
	assert.Equal(t, []any{4, 3, "1 launch: 503; 2 page: 502"}, []any{sent, failed, why})
	sent, failed, why = l.TakeCounts()
	assert.Equal(t, []any{0, 0, ""}, []any{sent, failed, why})
}

func TestRepeatedLines(t *testing.T) {
	log := strings.Join([]string{
		`{"time":"2026-01-02T12:00:00Z","level":"INFO","msg":"often"}`,
		`{"time":"2026-01-02T12:00:01Z","level":"INFO","msg":"often"}`,
		`{"time":"2026-01-02T12:00:00Z","level":"WARN","msg":"not written","error":"dial 10.0.0.1:80: refused"}`,
		`{"time":"2026-01-02T12:00:59Z","level":"WARN","msg":"not written","error":"dial 10.0.0.2:81: refused"}`,
		`{"time":"2026-01-02T12:00:00Z","level":"ERROR","msg":"once a minute"}`,
		`{"time":"2026-01-02T12:01:00Z","level":"ERROR","msg":"once a minute"}`,
		`no JSON`,
	}, "\n")
	assert.Equal(t, []string{"logged 2 times within a minute: WARN  not written dial #.#.#.#:#: refused"}, repeatedLines(strings.NewReader(log)))
}
