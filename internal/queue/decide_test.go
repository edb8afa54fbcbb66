package queue

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

// line returns instances that wait, one after the other: each is named by its template and when it
// came. They are in no order.
func line(templates ...string) []Waiting {
	var all []Waiting
	for n, template := range templates {
		all = append(all, Waiting{ID: fmt.Sprint(template, n), Template: template, Since: time.Unix(int64(n), 0)})
	}
	slices.Reverse(all)
	return all
}

func TestDecide(t *testing.T) {
	limits := map[string]int{"a": 2, "none": 0}
	mostOf := func(w Waiting) (int, bool) { most, limited := limits[w.Template]; return most, limited }
	for _, row := range []struct {
		name     string
		waiting  []Waiting
		room     Room
		admitted []string
		ahead    map[string]int
	}{
		{"nobody waits", nil, Room{Most: 1}, nil, nil},
		{"no limit", line("b", "b"), Room{}, []string{"b0", "b1"}, nil},
		{"the oldest first", line("b", "b", "b"), Room{Most: 3, Held: 1}, []string{"b0", "b1"}, map[string]int{"b2": 0}},
		{"a template's limit", line("a", "a", "a"), Room{HeldOf: map[string]int{"a": 1}}, []string{"a0"}, map[string]int{"a1": 0, "a2": 1}},
		{"a full template keeps no other waiting", line("a", "b", "a", "b"), Room{Most: 10, Held: 2, HeldOf: map[string]int{"a": 2}},
			[]string{"b1", "b3"}, map[string]int{"a0": 0, "a2": 1}},
		{"and is not before those of other templates", line("a", "b", "b"), Room{Most: 2, Held: 2, HeldOf: map[string]int{"a": 2}},
			nil, map[string]int{"a0": 0, "b1": 0, "b2": 1}},
		{"an instance that waits for a place in all has one in the template", line("a", "a", "a"), Room{Most: 1, Held: 1},
			nil, map[string]int{"a0": 0, "a1": 1, "a2": 2}},
		{"more than there can be", line("b"), Room{Most: 1, Held: 5}, nil, map[string]int{"b0": 0}},
		{"a template that is paused", line("none", "b"), Room{}, []string{"b1"}, map[string]int{"none0": 0}},
		{"all are paused", line("b", "a"), Room{Paused: true}, nil, map[string]int{"b0": 0, "a1": 1}},
		{"in the same second", []Waiting{{ID: "x", Launched: time.Unix(0, 2)}, {ID: "y", Launched: time.Unix(0, 1)}}, Room{Most: 1}, []string{"y"}, map[string]int{"x": 0}},
		{"at the same time", []Waiting{{ID: "y"}, {ID: "x"}}, Room{Most: 1}, []string{"x"}, map[string]int{"y": 0}},
	} {
		row.room.MostOf = mostOf
		held := maps.Clone(row.room.HeldOf)
		var admitted []string
		d := Decide(row.waiting, row.room)
		for _, w := range d.Admitted {
			admitted = append(admitted, w.ID)
		}
		if !slices.Equal(admitted, row.admitted) || !maps.Equal(d.Ahead, row.ahead) {
			t.Errorf("%s: admitted %v, ahead %v; want %v, %v", row.name, admitted, d.Ahead, row.admitted, row.ahead)
		}
		if !maps.Equal(held, row.room.HeldOf) {
			t.Errorf("%s: the room was changed", row.name)
		}
	}
}
