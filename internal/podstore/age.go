package podstore

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
	"time"
)

// CompareAge compares an instance with another, by when they were created, and then by their
// ids. The older one is less.
func (r *Record) CompareAge(created time.Time, id string) int {
	return cmp.Or(r.Created.Compare(created), strings.Compare(r.ID, id))
}

// age is the beginning of what CompareAge compares.
type age struct {
	created int64  // nanoseconds, as time.Time.UnixNano has them
	id      uint64 // the first 8 bytes
}

func ageOf(created time.Time, id string) age {
	var first [8]byte
	copy(first[:], id)
	return age{created.UnixNano(), binary.BigEndian.Uint64(first[:])}
}

// SortByAge sorts records, the oldest first, as CompareAge does. It sorts copies of their ages:
// to compare thousands of records themselves would fetch most of them from memory a dozen
// times.
func SortByAge(records []*Record) {
	type aged struct {
		age
		record *Record
	}
	all := make([]aged, len(records))
	for i, r := range records {
		all[i] = aged{r.age, r}
	}
	slices.SortFunc(all, func(a, b aged) int {
		switch {
		case a.created != b.created:
			return cmp.Compare(a.created, b.created)
		case a.id != b.id:
			return cmp.Compare(a.id, b.id)
		}
		return strings.Compare(a.record.ID, b.record.ID)
	})
	for i := range all {
		records[i] = all[i].record
	}
}
