package podstore

import (
	"cmp"
	"encoding/binary"
	"iter"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
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

// InOrder returns what is made of the records and the tombstones of instances, the oldest
// instance first.
func InOrder[T any](records []*Record, tombstones []*corev1.Event, ofRecord func(*Record) T, ofEnded func(instance.Instance) T) iter.Seq[T] {
	SortByAge(records)
	ended := make([]instance.Instance, 0, len(tombstones))
	for _, event := range tombstones {
		ended = append(ended, instance.FromTombstone(event))
	}
	slices.SortFunc(ended, func(a, b instance.Instance) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID))
	})
	return func(yield func(T) bool) {
		next := 0 // of the ended
		for _, record := range records {
			for ; next < len(ended) && record.CompareAge(ended[next].Created, ended[next].ID) > 0; next++ {
				if !yield(ofEnded(ended[next])) {
					return
				}
			}
			if !yield(ofRecord(record)) {
				return
			}
		}
		for ; next < len(ended) && yield(ofEnded(ended[next])); next++ {
		}
	}
}
