package main

import "time"

// clockStep is by how much the wall clock may move against the monotonic one
// between two looks and still be taken for one that is kept right by degrees.
const clockStep = time.Second

// clocks are both clocks at one moment: the wall clock, which times on pods are
// compared with and somebody may set, and the monotonic one, which only runs.
type clocks struct{ wall, monotonic time.Time }

// clockJumped reports whether the wall clock was set between two looks, forward
// or back, or the machine was asleep.
func clockJumped(previous, current clocks) bool {
	said := current.wall.Round(0).Sub(previous.wall.Round(0)) // by the wall clocks alone
	return (said - current.monotonic.Sub(previous.monotonic)).Abs() > clockStep
}
