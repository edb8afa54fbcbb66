package podstore

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// LaunchTimes returns when instances were launched, of which records and tombstones are left.
func LaunchTimes(records []*Record, tombstones []*corev1.Event) []time.Time {
	times := make([]time.Time, 0, len(records)+len(tombstones))
	for _, r := range records {
		times = append(times, r.launched)
	}
	for _, event := range tombstones {
		times = append(times, instance.FromTombstone(event).Launched)
	}
	return times
}

// startsRead is of how many of a template's newest instances UsualStart reads the pods.
const startsRead = 20

// UsualStart returns how long it takes until an instance of a template is ready that was not
// launched from a pool: the median of those that live, or 0 if none of them tells.
func (s *Store) UsualStart(template string) time.Duration {
	const atOnce = 2 * time.Second // times of pods are cut to seconds
	records := slices.DeleteFunc(s.OfTemplate(template), func(r *Record) bool {
		claimed := r.launched.Sub(r.Created).Abs() > atOnce && !r.WasQueued
		return !r.IsInstance || !r.IsServing || claimed
	})
	slices.SortFunc(records, func(a, b *Record) int { return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.name, b.name)) })
	var took []time.Duration
	for _, r := range records[:min(len(records), startsRead)] {
		if d, ok := instance.StartTook(r.Pod(), s.rules.StartTimeout); ok {
			took = append(took, d)
		}
	}
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[(len(took)-1)/2]
}
