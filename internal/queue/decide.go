package queue

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// Waiting is an instance that waits for a place.
type Waiting struct {
	ID, Template string
	Since        time.Time
}

// Room is how many instances there can be, and how many hold a place.
type Room struct {
	Most   int // in all; 0 means no limit
	Paused bool
	Held   int
	HeldOf map[string]int // by template
	// MostOf returns how many instances of a template there can be.
	MostOf func(template string) (most int, limited bool)
}

// Decide returns which of the waiting get a place, in order of age, and for each of the others how
// many get one before it. One that its template has no place for keeps nobody else waiting.
func Decide(waiting []Waiting, room Room) (admitted []Waiting, ahead map[string]int) {
	waiting = slices.SortedFunc(slices.Values(waiting), func(a, b Waiting) int {
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.ID, b.ID))
	})
	held, heldOf := room.Held, maps.Clone(room.HeldOf)
	if heldOf == nil {
		heldOf = map[string]int{}
	}
	waits, waitsOf := 0, map[string]int{} // for a place in all, and for one of the template
	ahead = map[string]int{}
	for _, w := range waiting {
		most, limited := room.MostOf(w.Template)
		switch {
		case limited && heldOf[w.Template] >= most:
			ahead[w.ID] = waitsOf[w.Template]
			waitsOf[w.Template]++
			continue
		case room.Paused, room.Most > 0 && held >= room.Most:
			ahead[w.ID] = waits
			waits++
			waitsOf[w.Template]++
		default:
			admitted = append(admitted, w)
			held++
		}
		heldOf[w.Template]++ // of those that wait for a place in all, too: they come first
	}
	return admitted, ahead
}
