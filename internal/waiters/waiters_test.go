package waiters

import "testing"

// wantWoken checks whether a client has been woken, and takes the wake-up.
func wantWoken(t testing.TB, client string, changed <-chan struct{}, want bool) {
	t.Helper()
	got := false
	select {
	case <-changed:
		got = true
	default:
	}
	if got != want {
		t.Errorf("%s is woken: %t, want %t", client, got, want)
	}
}

func TestWakeReachesAllWhoWaitForTheName(t *testing.T) {
	var s Set
	first, stopFirst := s.Add("a")
	second, _ := s.Add("a")
	other, _ := s.Add("b")
	wantWoken(t, "first, before a change", first, false)
	s.Wake("a")
	wantWoken(t, "first", first, true)
	wantWoken(t, "second", second, true)
	wantWoken(t, "other", other, false)
	stopFirst()
	s.Wake("a")
	wantWoken(t, "first, which has stopped", first, false)
	wantWoken(t, "second", second, true)
}

// A busy client must not hold up the watch, and must not miss that there was a change.
func TestWakeNeverBlocks(t *testing.T) {
	var s Set
	changed, _ := s.Add("a")
	for range 3 {
		s.Wake("a")
	}
	wantWoken(t, "the client", changed, true)
	wantWoken(t, "the client, for the same changes", changed, false)
	s.Wake("a")
	wantWoken(t, "the client, for a new change", changed, true)
}

// A name that nobody waits for takes no memory.
func TestNothingIsLeft(t *testing.T) {
	var s Set
	_, stopFirst := s.Add("a")
	_, stopSecond := s.Add("a")
	stopFirst()
	stopFirst() // a second call does no harm
	if !s.Any("a") || s.Any("b") {
		t.Errorf("a client waits for a: %t, for b: %t; want only for a", s.Any("a"), s.Any("b"))
	}
	stopSecond()
	s.Wake("a")
	if s.Any("a") || len(s.byName) != 0 {
		t.Errorf("%v is left", s.byName)
	}
}
