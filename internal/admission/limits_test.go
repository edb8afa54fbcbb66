package admission

import (
	"slices"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, time.January, 2, 12, 0, 0, 0, time.UTC)

// ago returns launches of living instances, each some time before noon.
func ago(times ...time.Duration) []launch {
	var launches []launch
	for _, t := range times {
		launches = append(launches, launch{noon.Add(-t), true, false})
	}
	return launches
}

func ended(launches []launch) []launch {
	for i := range launches {
		launches[i].alive = false
	}
	return launches
}

func TestCheckClient(t *testing.T) {
	const m, s = time.Minute, time.Second
	rate, both := Limits{LaunchRate: 3}, Limits{LaunchRate: 3, MaxPerClient: 2}
	for _, row := range []struct {
		name     string
		limits   Limits
		launches []launch
		limit    string // "" if the launch is allowed
		retry    time.Duration
	}{
		{"no limits", Limits{}, ago(0, 0, 0, 0), "", 0},
		{"nothing launched", both, nil, "", 0},
		{"below the rate", rate, ago(1*m, 2*m), "", 0},
		{"at the rate", rate, ago(1*m, 2*m, 59*m), LaunchRate, m},
		{"in another order", rate, ago(59*m, 1*m, 2*m), LaunchRate, m},
		{"ended instances were launched all the same", rate, ended(ago(1*m, 2*m, 59*m)), LaunchRate, m},
		{"above the rate, by launches at several replicas", rate, ago(1*m, 2*m, 30*m, 50*m, 59*m), LaunchRate, 30 * m},
		{"the first launch was an hour ago", rate, ago(1*m, 2*m, 60*m), "", 0},
		{"just less than an hour ago", rate, ago(1*m, 2*m, 60*m-1), LaunchRate, s},
		{"seconds are rounded up", rate, ago(1*m, 2*m, 59*m-s/2), LaunchRate, 61 * s},
		{"by a clock that is ahead", rate, ago(-10*m, -10*m, -10*m), LaunchRate, time.Hour},
		{"the rate comes first", both, ago(1*m, 2*m, 3*m), LaunchRate, 57 * m},
		{"below the instances", both, append(ago(2*time.Hour), ended(ago(1*m, 2*m))...), "", 0},
		{"at the instances, launched long ago", both, ago(2*time.Hour, 30*time.Hour), ClientInstances, m},
		{"above the instances", Limits{MaxPerClient: 1}, ago(m, m, m), ClientInstances, m},
	} {
		before := slices.Clone(row.launches)
		refusal := checkClient(row.limits, row.launches, noon)
		if !slices.Equal(before, row.launches) {
			t.Errorf("%s: the launches were changed", row.name)
		}
		if refusal == nil {
			refusal = &Refusal{}
		}
		if refusal.Limit != row.limit || refusal.RetryAfter != row.retry {
			t.Errorf("%s: refused by %q for %s, want %q for %s", row.name, refusal.Limit, refusal.RetryAfter, row.limit, row.retry)
		}
	}
}

// Every limit has a text of its own for visitors, which says its value if that is theirs.
func TestRefusalTexts(t *testing.T) {
	seen := map[string]bool{}
	for _, limit := range LimitNames() {
		refusal := &Refusal{limit, 17, 90 * time.Second}
		text := refusal.Error()
		if ofClient := limit == LaunchRate || limit == ClientInstances; strings.Contains(text, "17") != ofClient || !strings.Contains(text, "try again") || seen[text] {
			t.Errorf("%s: got %q", limit, text)
		}
		seen[text] = true
	}
}
