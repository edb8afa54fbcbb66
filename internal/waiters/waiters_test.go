package waiters

import "testing"

// woken reports whether a wake-up is there to be taken, and takes it.
func woken(changed <-chan struct{}) bool {
	select {
	case <-changed:
		return true
	default:
		return false
	}
}

func TestWaitersWake(t *testing.T) {
	var w Set
	first, stopFirst := w.Add("a")
	second, stopSecond := w.Add("a")
	other, stopOther := w.Add("b")
	defer stopSecond()
	defer stopOther()
	if woken(first) {
		t.Error("woken without a change")
	}

	w.Wake("a")
	if !woken(first) || !woken(second) {
		t.Error("not all who wait for a change of it were woken")
	}
	if woken(other) {
		t.Error("woken by a change of another instance")
	}

	stopFirst()
	w.Wake("a")
	if woken(first) {
		t.Error("woken after it has stopped waiting")
	}
	if !woken(second) {
		t.Error("the stop of one ended the other's waiting")
	}
}

// One who is busy must not hold up the watch, and must not miss that there was
// a change.
func TestWaitersWakeNeverBlocks(t *testing.T) {
	var w Set
	changed, stop := w.Add("a")
	defer stop()
	for range 3 {
		w.Wake("a")
	}
	if !woken(changed) {
		t.Error("not woken")
	}
	if woken(changed) {
		t.Error("woken once more for changes it has seen")
	}
	w.Wake("a")
	if !woken(changed) {
		t.Error("not woken again")
	}
}

func TestWaitersLeaveNothing(t *testing.T) {
	var w Set
	_, stopFirst := w.Add("a")
	_, stopSecond := w.Add("a")
	_, stopOther := w.Add("b")
	stopFirst()
	stopOther()
	if len(w.byName) != 1 || len(w.byName["a"]) != 1 {
		t.Errorf("held are %v, want one who waits for a", w.byName)
	}
	stopSecond()
	stopSecond() // twice does no harm
	w.Wake("a")
	if len(w.byName) != 0 {
		t.Errorf("held are %v, want none", w.byName)
	}
}
