package lifetime_test

import (
	"slices"
	"testing"
	"time"

	. "github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
)

func TestBrake(t *testing.T) {
	final := Verdict{FailedFor: time.Minute}
	short, long := Verdict{InDoubt: true, FailedFor: time.Minute}, Verdict{InDoubt: true, FailedFor: BrakeTime}
	for _, test := range []struct {
		name               string
		final, long, short int // failed instances
		share              float64
		living, want       int
	}{
		{"none", 0, 0, 0, 0.2, 100, 0},
		{"one of one", 0, 0, 1, 0.2, 1, 1},
		{"ten, which are all", 0, 0, 10, 0.2, 10, 10},
		{"one more, which are all", 0, 0, 11, 0.2, 11, 0},
		{"a fifth", 0, 0, 20, 0.2, 100, 20},
		{"more than a fifth", 0, 0, 21, 0.2, 100, 0},
		{"all of many", 0, 0, 300, 0.2, 300, 0},
		{"a few of them for long", 0, 2, 298, 0.2, 300, 2},
		{"all of them for long", 0, 300, 0, 0.2, 300, 60},
		{"finally failed, all of many", 300, 0, 0, 0.2, 300, 60},
		{"finally failed, all of a few", 11, 0, 0, 0.2, 11, 10},
		{"some of each", 15, 0, 30, 0.2, 100, 15},
		{"some of each, and few in doubt", 15, 0, 10, 0.2, 100, 20},
		{"no brake", 0, 0, 300, 1, 300, 300},
		{"at least ten", 30, 0, 0, 0, 300, 10},
	} {
		failed := slices.Concat(slices.Repeat([]Verdict{short}, test.short), slices.Repeat([]Verdict{long}, test.long), slices.Repeat([]Verdict{final}, test.final))
		slices.SortFunc(failed, CompareFailed)
		if got := (Brake{test.share}).Allow(failed, test.living); got != test.want {
			t.Errorf("%s: a sweep may end %d, want %d", test.name, got, test.want)
		}
	}
}
