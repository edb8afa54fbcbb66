package instance_test

import (
	"testing"
	"time"

	. "github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// Times have milliseconds, cut off and not rounded, in UTC.
func TestFormatTime(t *testing.T) {
	const layout = "2006-01-02T15:04:05.000Z07:00"
	noon := time.Date(2026, 2, 28, 12, 0, 0, 0, time.UTC)
	for _, base := range []time.Time{
		noon, noon.In(time.FixedZone("", -11*3600)), noon.In(time.FixedZone("", 3601)), {}, time.Unix(0, 0),
		noon.AddDate(-3000, 0, 0), noon.AddDate(8000, 0, 0), noon.AddDate(100_000, 0, 0),
	} {
		for _, after := range []time.Duration{0, 1, time.Millisecond - 1, time.Millisecond, 41 * time.Millisecond, 999_999_999, -1, 12 * time.Hour} {
			at := base.Add(after)
			if got, want := FormatTime(at), at.UTC().Format(layout); got != want {
				t.Errorf("%v: got %s, want %s", at, got, want)
			}
		}
	}
}

func BenchmarkFormatTime(b *testing.B) {
	at := time.Date(2026, 2, 28, 12, 0, 0, 41_000_000, time.UTC)
	b.ReportAllocs()
	for b.Loop() {
		FormatTime(at)
	}
}

func BenchmarkValidID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		ValidID("84b8f9e8d573e73016fa2c14bad86a4d")
	}
}
