package faults

import (
	"cmp"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// TestLine checks what is complained about.
func TestLine(t *testing.T) {
	// early came at noon, and late after it. The leader was killed a while after that.
	for name, c := range map[string]struct {
		after       int // seconds between them, if not two
		early, late int // seconds until they got their places; 0 for never
		killed      int // seconds until the leader was; 0 for before
		most        int
		want        []string
	}{
		"in order":          {early: 10, late: 11, most: places},
		"at the same time":  {early: 11, late: 10, most: places},
		"overtaken":         {early: 15, late: 10, most: places, want: []string{"another came"}},
		"one write fails":   {early: 14, late: 10, most: places},
		"lost at the kill":  {early: 20, late: 10, killed: 12, most: places},
		"late for a kill":   {early: 21, late: 10, killed: 12, most: places, want: []string{"another came"}},
		"before the kill":   {early: 15, late: 10, killed: 16, most: places, want: []string{"another came"}},
		"after the kill":    {early: 15, late: 10, killed: 8, most: places, want: []string{"another came"}},
		"not known yet":     {early: 12, late: 2, most: places},
		"almost together":   {after: 1, early: 30, late: 10, most: places},
		"more than places":  {early: 10, late: 11, most: places + 1, want: []string{fmt.Sprintf("there were %d", places+1)}},
		"less than places":  {early: 10, late: 11, most: places - 1, want: []string{fmt.Sprintf("there were %d", places-1)}},
		"one gets no place": {early: 10, most: places},
	} {
		t.Run(name, func(t *testing.T) {
			at := func(seconds int) time.Time {
				if seconds == 0 {
					return time.Time{}
				}
				return noon.Add(time.Duration(seconds) * time.Second)
			}
			line := &line{killed: at(c.killed), most: c.most, long: visitors, pods: map[string]*queuedPod{
				"early": {came: noon, seen: noon, admitted: at(c.early)},
				"late":  {came: at(cmp.Or(c.after, 2)), seen: at(cmp.Or(c.after, 2)), admitted: at(c.late)},
			}}
			ledger := NewLedger()
			served := line.judge(ledger)
			wantServed := 2
			if c.late == 0 {
				wantServed = 1
			}
			assert.Equal(t, wantServed, served)
			if assert.Len(t, ledger.problems, len(c.want)) {
				for i, want := range c.want {
					assert.Contains(t, ledger.problems[i], want)
				}
			}
		})
	}
}
