package faults

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// TestLine checks what is complained about.
func TestLine(t *testing.T) {
	// early came at noon, and late a second after.
	for name, c := range map[string]struct {
		early, late int // seconds until they got their places; 0 for never
		most        int
		want        []string
	}{
		"in order":          {early: 10, late: 11, most: places},
		"at the same time":  {early: 11, late: 10, most: places},
		"overtaken":         {early: 21, late: 10, most: places, want: []string{"another came"}},
		"lost on the way":   {early: 20, late: 10, most: places},
		"not known yet":     {early: 21, late: 2, most: places},
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
			line := &line{most: c.most, long: visitors, pods: map[string]*queuedPod{
				"early": {came: noon, seen: noon, admitted: at(c.early)},
				"late":  {came: noon.Add(time.Second), seen: noon.Add(time.Second), admitted: at(c.late)},
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
