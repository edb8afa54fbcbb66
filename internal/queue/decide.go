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
	// Since is when it came, to a second, by the clock of the API server if that is known, and
	// Launched by that of a replica.
	Since, Launched time.Time

	asked   time.Time // when somebody asked about it last; zero if that is not known
	version string    // of its pod
}

// Room is how many instances there can be, and how many hold a place.
type Room struct {
	Most   int // in all; 0 means no limit
	Paused bool
	Held   int
	HeldOf map[string]int // by template
	// MostOf returns how many instances there can be of the template of one that waits.
	MostOf func(Waiting) (most int, limited bool)
}

// hold counts an instance of a template that holds a place.
func (r *Room) hold(template string) {
	r.Held++
	r.HeldOf[template]++
}

// Decision says who gets a place.
type Decision struct {
	Admitted []Waiting      // in order of age
	Ahead    map[string]int // by id: how many get a place before each of the others
	// ForTemplate is how many of the others wait for a place of their template, and keep nobody
	// else waiting.
	ForTemplate int
}

// Decide decides which of the waiting get a place: the oldest for whom there is one.
func Decide(waiting []Waiting, room Room) Decision {
	waiting = slices.SortedFunc(slices.Values(waiting), func(a, b Waiting) int {
		return cmp.Or(a.Since.Compare(b.Since), a.Launched.Compare(b.Launched), strings.Compare(a.ID, b.ID))
	})
	held, heldOf := room.Held, maps.Clone(room.HeldOf)
	if heldOf == nil {
		heldOf = map[string]int{}
	}
	waits, waitsOf := 0, map[string]int{} // for a place in all, and for one of the template
	d := Decision{Ahead: map[string]int{}}
	for _, w := range waiting {
		most, limited := room.MostOf(w)
		switch {
		case limited && heldOf[w.Template] >= most:
			d.Ahead[w.ID] = waitsOf[w.Template]
			d.ForTemplate++
			waitsOf[w.Template]++
			continue
		case room.Paused, room.Most > 0 && held >= room.Most:
			d.Ahead[w.ID] = waits
			waits++
			waitsOf[w.Template]++
		default:
			d.Admitted = append(d.Admitted, w)
			held++
		}
		heldOf[w.Template]++ // of those that wait for a place in all, too: they come first
	}
	return d
}
