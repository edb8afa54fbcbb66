package lifetime_test

import (
	"slices"
	"testing"
	"time"

	. "github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
)

func TestBrake(t *testing.T) {
	const short, long = time.Minute, BrakeTime
	for _, test := range []struct {
		name            string
		long, short     int // instances in doubt
		wereReady, want int
	}{
		{"none", 0, 0, 100, 0},
		{"one of one", 0, 1, 1, 1},
		{"a few, which are all", 0, 3, 3, 3},
		{"one more, which are all", 0, 4, 4, 0},
		{"a third", 0, 4, 12, 4},
		{"more than a third", 0, 4, 11, 0},
		{"a third of many", 0, 100, 300, 100},
		{"all of many", 0, 300, 300, 0},
		{"a few of them for long", 2, 298, 300, 2},
		{"all of them for long", 300, 0, 300, 3},
		{"all of them for long, but they are few", 3, 0, 3, 3},
		{"a third for long", 100, 0, 300, 100},
	} {
		failedFor := slices.Concat(slices.Repeat([]time.Duration{long}, test.long), slices.Repeat([]time.Duration{short}, test.short))
		if got := Brake(failedFor, test.wereReady); got != test.want {
			t.Errorf("%s: a sweep may end %d, want %d", test.name, got, test.want)
		}
	}
}
