package lifetime_test

import (
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	. "github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
)

// TestHold runs a Hold through what happens to a leader whose term starts at noon. All
// times are in seconds since. The clocks are looked at every two seconds, and the API
// server is reached as often, unless it is away.
func TestHold(t *testing.T) {
	const settle = int(SettleTime / time.Second)
	type steps = map[int]time.Duration // of the wall clock
	for _, test := range []struct {
		name  string
		away  [][2]int
		steps steps
		at    int
		began int
		cause Cause
	}{
		{"the term has begun", nil, nil, 0, 0, CauseTermStarted},
		{"just before SettleTime", nil, nil, settle - 2, 0, CauseTermStarted},
		{"after SettleTime", nil, nil, settle, 0, ""},
		{"long after", nil, nil, 5 * settle, 0, ""},

		{"one write of the Lease fails", [][2]int{{200, 202}}, nil, 204, 0, ""},
		{"two writes fail", [][2]int{{200, 204}}, nil, 210, 204, CauseContactLost},
		{"contact is lost", [][2]int{{200, 300}}, nil, 290, 290, CauseContactLost},
		{"contact is lost for longer than SettleTime", [][2]int{{200, 3600}}, nil, 3000, 3000, CauseContactLost},
		{"contact has returned", [][2]int{{200, 300}}, nil, 310, 300, CauseContactLost},
		{"SettleTime after the return", [][2]int{{200, 300}}, nil, 300 + settle, 0, ""},
		{"contact was lost again", [][2]int{{200, 300}, {350, 360}}, nil, 300 + settle, 360, CauseContactLost},
		{"contact was lost as the term began", [][2]int{{2, 60}}, nil, settle, 60, CauseContactLost},

		{"the clock is set forward, or the machine slept", nil, steps{200: 3 * time.Hour}, 250, 200, CauseClockStepped},
		{"the clock is set back", nil, steps{200: -3 * time.Second}, 250, 200, CauseClockStepped},
		{"SettleTime after the step", nil, steps{200: time.Hour}, 200 + settle, 0, ""},
		{"the clock is set forward and back", nil, steps{200: time.Hour, 260: -time.Hour}, 200 + settle, 260, CauseClockStepped},
		{"the clock is slewed", nil, steps{200: time.Second, 202: time.Second, 204: time.Second}, 206, 0, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			second := func(n int) time.Time { return at(time.Duration(n) * time.Second) }
			hold := NewHold(4 * time.Second)
			hold.StartTerm(Clocks{kubetest.Noon, kubetest.Noon})
			var stepped time.Duration
			for now := 2; now <= test.at; now += 2 {
				stepped += test.steps[now]
				hold.Look(Clocks{Wall: second(now).Add(stepped), Monotonic: second(now)})
				away := false
				for _, span := range test.away {
					away = away || span[0] <= now && now < span[1]
				}
				if !away {
					hold.Contact(second(now))
				}
			}
			began, cause := hold.State(second(test.at))
			if cause != test.cause || cause != "" && !began.Equal(second(test.began)) {
				t.Errorf("got %q since %s, want %q since %s", cause, began, test.cause, second(test.began))
			}
			if got := hold.Covers(time.Hour, second(test.at)); got != (cause != "") {
				t.Errorf("held for %q: covers an instance with a long lag: %t", cause, got)
			}
		})
	}
}

// An instance is held for its own lag where that is shorter than SettleTime, and all
// the time that contact is lost.
func TestHoldCoversTheOwnLag(t *testing.T) {
	lag := Rules{}.Lag(12 * time.Second)
	hold := NewHold(time.Minute)
	if hold.Covers(lag, kubetest.Noon) {
		t.Error("held before any term")
	}
	hold.StartTerm(Clocks{kubetest.Noon, kubetest.Noon})
	for _, test := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {3*time.Second - moment, true}, {3 * time.Second, false}, {time.Minute, false}, {time.Minute + moment, true}, {time.Hour, true}, {time.Hour + lag, true}} {
		if got := hold.Covers(lag, at(test.after)); got != test.want {
			t.Errorf("after %s: held is %t, want %t", test.after, got, test.want)
		}
	}
}
