package faults

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }

var bounds = Bounds{MinTimeout: time.Second, StartTimeout: time.Minute, Retention: time.Minute, Settle: 2 * time.Minute, Removal: 10 * time.Second, Grace: 20 * time.Second}

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
		{"lives", Used, func(l *Ledger) { l.SawPod(Pod{UID: "u", ID: "1"}, false, at(0)) }, Findings{}, ""},
		{"no pod", Used, func(*Ledger) {}, Findings{Lost: 1}, "no pod has its id"},
		{"culled early", Used, func(l *Ledger) {
			l.UsedAt("1", at(5))
			l.SawPod(Pod{UID: "u", ID: "1", Deleted: at(9)}, true, at(11))
		}, Findings{Early: 1}, "was deleted at 12:00:09"},
		{"culled in time", Idle, func(l *Ledger) { l.SawPod(Pod{UID: "u", ID: "1", Deleted: at(10)}, true, at(11)) }, Findings{}, ""},
		{"deployed earlier than was seen", Idle, func(l *Ledger) {
			l.Change("1", func(e *Entry) { e.Deployed = at(4) })
			l.SawPod(Pod{UID: "u", ID: "1", Ready: at(1), Deleted: at(8)}, true, at(9))
		}, Findings{}, ""},
		{"used soon after it was seen to be deployed, and long after", Idle, func(l *Ledger) {
			l.Change("1", func(e *Entry) { e.Deployed = at(9) })
			l.UsedAt("1", at(9.5))
			l.SawPod(Pod{UID: "u", ID: "1", Ready: at(1), Deleted: at(9)}, true, at(11))
		}, Findings{}, ""},
		{"used without a long pause", Used, func(l *Ledger) {
			l.UsedAt("1", at(5))
			l.UsedAt("1", at(10))
			l.UsedAt("1", at(15))
			l.SawPod(Pod{UID: "u", ID: "1", Ready: at(1), Deleted: at(19)}, true, at(21))
		}, Findings{Early: 1}, "was deleted at 12:00:19, its last use in time was at 12:00:15"},
		{"idle since it is deployed", Idle, func(l *Ledger) { l.SawPod(Pod{UID: "u", ID: "1", Deleted: at(5)}, true, at(6)) }, Findings{Early: 1}, "was deleted"},
		{"culled soon after a slow start", Idle, func(l *Ledger) {
			l.Change("1", func(e *Entry) { e.Deployed = at(75) })
			l.SawPod(Pod{UID: "u", ID: "1", Deleted: at(76)}, true, at(77))
		}, Findings{}, ""},
		{"a use that failed does not count", Used, func(l *Ledger) {
			l.UsedAt("1", at(1))
			l.SawPod(Pod{UID: "u", ID: "1", Deleted: at(8)}, true, at(9))
		}, Findings{}, ""},
		{"used when it was idle for too long", Used, func(l *Ledger) {
			l.UsedAt("1", at(8))
			l.SawPod(Pod{UID: "u", ID: "1", Deleted: at(8)}, true, at(9))
		}, Findings{}, ""},
		{"stopped", Stopped, func(l *Ledger) {
			l.Change("1", func(e *Entry) { e.Asked, e.Left = at(3), at(3) })
			l.SawPod(Pod{UID: "u", ID: "1", Deleted: at(3)}, true, at(4))
		}, Findings{}, ""},
		{"stopped, and the answer is under way", Stopped, func(l *Ledger) {
			l.Change("1", func(e *Entry) { e.Asked = at(3) })
			l.SawPod(Pod{UID: "u", ID: "1", Deleted: at(4)}, true, at(5))
		}, Findings{}, ""},
		{"stopped, and no answer came", Idle, func(l *Ledger) {
			l.Change("1", func(e *Entry) { e.Asked = at(3) })
			l.SawPod(Pod{UID: "u", ID: "1", Deleted: at(4)}, true, at(5))
		}, Findings{}, ""},
		{"ended before it was stopped", Stopped, func(l *Ledger) {
			l.Change("1", func(e *Entry) { e.Asked, e.Left = at(6), at(6) })
			l.SawPod(Pod{UID: "u", ID: "1", Deleted: at(4)}, true, at(5))
		}, Findings{Early: 1}, "was deleted"},
		{"two pods", Used, func(l *Ledger) {
			l.SawPod(Pod{UID: "u", ID: "1"}, false, at(0))
			l.SawPod(Pod{UID: "v", ID: "1"}, false, at(1))
		}, Findings{Duplicated: 1, Other: 1}, "two pods have the id"},
		{"another pod after the first has gone", Used, func(l *Ledger) {
			l.SawPod(Pod{UID: "u", ID: "1", Deleted: at(20)}, true, at(21))
			l.SawPod(Pod{UID: "v", ID: "1"}, false, at(22))
		}, Findings{Duplicated: 1}, "has had 2 pods"},
		{"ended early, but edited by hand", Used, func(l *Ledger) {
			l.Change("1", func(e *Entry) { e.Edited = true })
			l.SawPod(Pod{UID: "u", ID: "1", Deleted: at(2)}, true, at(3))
			l.SawStatus("a", "1", "deployed", "", at(1))
			l.SawStatus("a", "1", "pending", "", at(2))
		}, Findings{}, ""},
		{"given twice", Used, func(l *Ledger) {
			l.SawPod(Pod{UID: "u", ID: "1"}, false, at(0))
			l.Launched(Entry{ID: "1", Launched: at(2)})
		}, Findings{Other: 1}, "given twice"},
		{"a status goes back", Used, func(l *Ledger) {
			l.SawPod(Pod{UID: "u", ID: "1"}, false, at(0))
			l.SawStatus("a", "1", "deployed", "", at(1))
			l.SawStatus("b", "1", "deploying", "", at(2)) // another replica, which is later
			l.SawStatus("a", "1", "deploying", "", at(3))
		}, Findings{Other: 1}, "went from deployed to deploying at a"},
	} {
		l := NewLedger()
		l.Launched(Entry{ID: "1", Plan: row.plan, Timeout: 6 * time.Second, Launched: at(0), Deployed: at(1)})
		row.happen(l)
		got := l.Judge(bounds, at(60), at(60), false)
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
		l.SawPod(Pod{UID: "u", ID: "1"}, false, at(0))
		until := l.Waiting(bounds, at(row.well))
		if row.want == 0 {
			assert.Zero(t, until, row.name)
			assert.Zero(t, l.Judge(bounds, at(row.well), at(1000), false).Never, row.name)
			continue
		}
		assert.Equal(t, at(row.want), until, row.name)
		assert.Zero(t, l.Judge(bounds, at(row.well), at(row.want), false).Never, row.name)
		assert.Equal(t, 1, l.Judge(bounds, at(row.well), at(row.want+1), false).Never, "%s: it is still there", row.name)
		l.SawPod(Pod{UID: "u", ID: "1", Deleted: at(row.want)}, false, at(row.want))
		assert.Zero(t, l.Judge(bounds, at(row.well), at(row.want+20), false).Never, "%s: the node has yet to end it", row.name)
		assert.Equal(t, at(row.want+20), l.Waiting(bounds, at(row.well)), row.name)
		assert.Equal(t, 1, l.Judge(bounds, at(row.well), at(row.want+21), false).Never, "%s: the node has not ended it", row.name)
		l.SawPod(Pod{UID: "u", ID: "1"}, true, at(row.want+20))
		assert.Zero(t, l.Judge(bounds, at(row.well), at(1000), false).Never, row.name)
	}
}

// An instance whose times may have been wrong until all was well may live for its timeout again.
// One that was edited by hand is not waited for.
func TestWaitingForWrong(t *testing.T) {
	l := NewLedger()
	l.Launched(Entry{ID: "1", Plan: Idle, Launched: at(0), Deployed: at(1), Timeout: 6 * time.Second})
	l.SawPod(Pod{UID: "u", ID: "1"}, false, at(0))
	renews := bounds
	renews.Renews = true
	assert.Equal(t, at(30+2.5+6+2.5+10), l.Waiting(renews, at(30)))
	l.Change("1", func(e *Entry) { e.Edited = true })
	assert.Zero(t, l.Waiting(renews, at(30)))
}

// An instance whose launch was not answered must end as well.
func TestWaitingForUnknown(t *testing.T) {
	l := NewLedger()
	l.SawPod(Pod{UID: "u", ID: "1", Timeout: 30 * time.Second}, false, at(3))
	assert.Equal(t, at(3+60+60+30+4.5+10), l.Waiting(bounds, at(5)))
	assert.Zero(t, l.Waiting(bounds, at(2)), "what was launched later is not waited for")
}

func TestCounts(t *testing.T) {
	l := NewLedger()
	l.Count(Pages, "", "")
	l.Count(Pages, "502", "x")
	l.Count(Pages, "502", "x")
	l.Count(Launches, "503", "y")
	counts := l.TakeCounts()
	assert.Equal(t, "4 sent, 3 (1 launch: 503; 2 page: 502) failed", fmt.Sprintf("%d sent, %s failed", counts.Sent, counts))
	assert.Equal(t, []string{"x", "x"}, counts.Examples[Failure{Pages, "502"}])
	assert.Equal(t, Counts{}, l.TakeCounts())
}

func TestRepeatedLines(t *testing.T) {
	log := strings.Join([]string{
		`{"time":"2026-01-02T12:00:00Z","level":"INFO","msg":"often"}`,
		`{"time":"2026-01-02T12:00:01Z","level":"INFO","msg":"often"}`,
		`{"time":"2026-01-02T12:00:00Z","level":"WARN","msg":"not written","error":"dial 10.0.0.1:80: refused"}`,
		`{"time":"2026-01-02T12:00:58Z","level":"WARN","msg":"not written","error":"dial 10.0.0.2:81: refused"}`,
		`{"time":"2026-01-02T12:00:00Z","level":"ERROR","msg":"once a minute"}`,
		`{"time":"2026-01-02T12:01:00Z","level":"ERROR","msg":"once a minute"}`,
		`no JSON`,
	}, "\n")
	assert.Equal(t, []string{"logged 2 times within a minute: WARN  not written dial #.#.#.#:#: refused"}, repeatedLines(strings.NewReader(log)))
}

func TestExcuses(t *testing.T) {
	l := NewLedger()
	l.Complain("between two rounds")
	l.Forget()
	assert.Equal(t, []string{"between two rounds"}, l.Judge(bounds, at(0), at(0), false).Problems)
	assert.Empty(t, l.Judge(bounds, at(0), at(0), false).Problems, "it is told once")
	l.Excuse("Gone", "Deleting")
	assert.True(t, l.Excused("Deleting"))
	assert.False(t, l.Excused("StartTimeout"))
	l.Forget()
	assert.False(t, l.Excused("Gone"), "in the next round")
}

func TestStepsBack(t *testing.T) {
	for _, row := range []struct {
		before, after string
		restarts      bool
		problems      int
	}{
		{"deployed", "deploying", false, 1},
		{"deployed", "deploying", true, 0},
		{"failed", "deploying", true, 1},
		{"failed", "deployed", false, 0},
	} {
		l := NewLedger()
		l.Launched(Entry{ID: "1", Restarts: row.restarts, Launched: at(0)})
		l.SawStatus("a", "1", row.before, "", at(1))
		l.SawStatus("a", "1", row.after, "", at(2))
		assert.Len(t, l.problems, row.problems, "%+v", row)
	}
}

// A replica that does not hear of the cluster may refuse what it cannot know.
func TestRefusal(t *testing.T) {
	away := &unsure{since: at(0), away: true}
	short := &unsure{since: at(0), blind: 12 * time.Second}
	over := &unsure{since: at(0), until: at(20)}
	before, during := Entry{Deployed: at(-5), Timeout: 30 * time.Second}, Entry{Deployed: at(5)}
	for _, row := range []struct {
		u       *unsure
		kind    Kind
		of      Entry
		failure string
		at      float64
		want    string
	}{
		{nil, Pages, during, "503", 10, ""},
		{short, Pages, before, "503", 10, ""},
		{short, Pages, during, "503", 10, notYetKnown},
		{short, WebSockets, during, "not opened: 503", 10, notYetKnown},
		{short, Pages, during, noAnswer, 10, notYetKnown},
		{short, Pages, during, "502", 10, ""},
		{short, Pages, during, "", 10, ""},
		{short, Pages, before, "503", 100, ""},
		{short, Polls, during, "503", 10, notYetKnown},
		{short, Polls, during, noAnswer, 10, ""},
		{short, Polls, before, "503", 10, ""},
		{short, Polls, during, "404", 10, notYetKnown},
		{short, Polls, during, "404", 13, ""},
		{short, WebSockets, during, "not opened: 404", 10, notYetKnown},
		{away, Pages, before, "503", 50, ""},
		{away, Pages, before, "503", 61, mayHaveEnded},
		{away, Pages, before, noAnswer, 61, ""},
		{away, Pages, Entry{Deployed: at(-5), Timeout: time.Hour}, "503", 61, ""},
		{over, Pages, during, "503", 50, notYetKnown},
		{over, Pages, during, "503", 60, ""},
	} {
		assert.Equal(t, row.want, row.u.refusal(row.kind, row.of, row.failure, at(row.at)), "%+v", row)
	}
}

// An instance that ends while Events are refused may be forgotten; no other.
func TestMayBeForgotten(t *testing.T) {
	l := &Load{ledger: NewLedger()}
	for id, deleted := range map[string]time.Time{"before": at(0), "in": at(10), "after": at(30), "alive": {}} {
		l.ledger.SawPod(Pod{UID: id, ID: id, Deleted: deleted}, false, at(40))
	}
	if l.mayBeForgotten("in") {
		t.Error("though there is no such fault")
	}
	for _, until := range []time.Time{{}, at(20)} {
		l.forgets.Store(&span{at(5), until})
		for id, want := range map[string]bool{"before": false, "in": true, "after": until.IsZero(), "alive": false, "unknown": false} {
			if got := l.mayBeForgotten(id); got != want {
				t.Errorf("%s, until %s: got %t", id, until, got)
			}
		}
	}
}
