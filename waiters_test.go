package main

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
	var w waiters
	first, stopFirst := w.add("a")
	second, stopSecond := w.add("a")
	other, stopOther := w.add("b")
	defer stopSecond()
	defer stopOther()
	if woken(first) {
		t.Error("woken without a change")
	}

	w.wake("a")
	if !woken(first) || !woken(second) {
		t.Error("not all who wait for a change of it were woken")
	}
	if woken(other) {
		t.Error("woken by a change of another instance")
	}

	stopFirst()
	w.wake("a")
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
	var w waiters
	changed, stop := w.add("a")
	defer stop()
	for range 3 {
		w.wake("a")
	}
	if !woken(changed) {
		t.Error("not woken")
	}
	if woken(changed) {
		t.Error("woken once more for changes it has seen")
	}
	w.wake("a")
	if !woken(changed) {
		t.Error("not woken again")
	}
}

func TestWaitersLeaveNothing(t *testing.T) {
	var w waiters
	_, stopFirst := w.add("a")
	_, stopSecond := w.add("a")
	_, stopOther := w.add("b")
	stopFirst()
	stopOther()
	if len(w.byID) != 1 || len(w.byID["a"]) != 1 {
		t.Errorf("held are %v, want one who waits for a", w.byID)
	}
	stopSecond()
	stopSecond() // twice does no harm
	w.wake("a")
	if len(w.byID) != 0 {
		t.Errorf("held are %v, want none", w.byID)
	}
}
