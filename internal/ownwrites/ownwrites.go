// Package ownwrites remembers what this replica wrote to the API server until the
// watch has delivered it, so that a replica always reads its own writes.
//
// A watch trails writes by some milliseconds, and by a minute after an outage: it
// is opened again with growing delays, while writes work at once.
package ownwrites

import (
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// maxAge is how long a write is remembered that the watch does not deliver, for
// example because the object was deleted while the watch was broken.
const maxAge = 2 * time.Minute

// Store holds the written objects of one resource by name. All of them are in one
// namespace. Its methods may be called at the same time.
type Store[T metav1.Object] struct {
	cached func(name string) (T, bool)
	now    func() time.Time

	mu     sync.Mutex
	byName map[string]entry[T]
}

type entry[T metav1.Object] struct {
	object T
	at     time.Time
}

// New returns an empty store. cached looks up what the watch has delivered; now is
// the clock by which entries expire, which should be monotonic.
func New[T metav1.Object](cached func(name string) (T, bool), now func() time.Time) *Store[T] {
	return &Store[T]{cached: cached, now: now, byName: map[string]entry[T]{}}
}

// Add remembers an object as the API server returned it. An object whose deletion
// was accepted is given with the resourceVersion that was deleted and a deletion
// time.
func (s *Store[T]) Add(object T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if earlier, ok := s.byName[object.GetName()]; ok && newer(earlier.object, object) {
		return // two writes returned in the wrong order
	}
	s.byName[object.GetName()] = entry[T]{object, s.now()}
}

// Get returns what is known of a name: the written object if it is newer than the
// cached one, else the cached one.
func (s *Store[T]) Get(name string) (T, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cached, ok := s.cached(name)
	if own, found := s.lookup(name); found && (!ok || newer(own, cached)) {
		return own, true
	}
	return cached, ok
}

// Overlay returns some of the cached objects with written ones in place of older
// ones, and with all other written objects that are newer than the cache. The
// order is not kept.
func (s *Store[T]) Overlay(listed []T) []T {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.byName) == 0 {
		return listed
	}
	all := make([]T, 0, len(listed)+len(s.byName))
	seen := make(map[string]bool, len(s.byName))
	for _, object := range listed {
		name := object.GetName()
		if own, found := s.lookup(name); found {
			seen[name] = true
			if newer(own, object) {
				object = own
			}
		}
		all = append(all, object)
	}
	for name := range s.byName {
		own, found := s.lookup(name)
		if !found || seen[name] {
			continue
		}
		if cached, ok := s.cached(name); !ok || newer(own, cached) {
			all = append(all, own)
		}
	}
	return all
}

// Delivered drops a written object that the watch has caught up with.
func (s *Store[T]) Delivered(object T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if own, ok := s.byName[object.GetName()]; ok && !newer(own.object, object) {
		delete(s.byName, object.GetName())
	}
}

// Gone drops a written object that the watch has reported as deleted. An object of
// the same name that was created since is kept.
func (s *Store[T]) Gone(object T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if own, ok := s.byName[object.GetName()]; ok && own.object.GetUID() == object.GetUID() {
		delete(s.byName, object.GetName())
	}
}

// lookup returns a written object that has not expired. The lock must be held.
func (s *Store[T]) lookup(name string) (T, bool) {
	own, ok := s.byName[name]
	if ok && s.now().Sub(own.at) > maxAge {
		delete(s.byName, name)
		ok = false
	}
	return own.object, ok
}

// newer reports whether a written object is newer than a cached one. A deletion
// has the resourceVersion of what it deleted, and is newer than that. Where the
// versions cannot be compared, the cache is right.
func newer(own, cached metav1.Object) bool {
	order, err := resourceversion.CompareResourceVersion(own.GetResourceVersion(), cached.GetResourceVersion())
	if err != nil {
		return false
	}
	return order > 0 || order == 0 && own.GetDeletionTimestamp() != nil && cached.GetDeletionTimestamp() == nil
}
