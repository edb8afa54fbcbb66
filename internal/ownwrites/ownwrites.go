// Package ownwrites remembers what this replica wrote to the API server until the watch
// has delivered it, so that a replica always reads its own writes.
//
// The watch trails writes by some milliseconds, and by up to a minute after an outage:
// client-go opens it again with growing delays, while writes already work.
//
// The package must never know what the objects are: it compares names, UIDs,
// resourceVersions and deletion times, and talks to no API server.
package ownwrites

import (
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

const (
	// maxAge is how long a created object is remembered that the watch does not deliver:
	// it may have been deleted while the watch was broken. A change of an object that the
	// cache has is remembered for as long as it takes, because the watch will report what
	// became of it.
	maxAge = 2 * time.Minute
	// maxGone is how many deleted objects are remembered.
	maxGone = 1000
)

// Object is what is compared of an object.
type Object interface {
	GetName() string
	GetUID() types.UID
	GetResourceVersion() string
	GetDeletionTimestamp() *metav1.Time
}

// Store holds the written objects of one resource in one namespace, by name. Its methods
// may be called at the same time. Objects are shared: neither the store nor its callers
// change them.
type Store[T Object] struct {
	cached func(name string) (T, bool)
	now    func() time.Time

	mu     sync.RWMutex
	byName map[string]entry[T]
	// sweepAt is how many there must be until those are dropped that are not needed any more.
	sweepAt int
	gone    *cache.LRUExpireCache // the UIDs of objects that the watch has reported as deleted
}

type entry[T Object] struct {
	object T
	at     time.Time // of Add
}

// New returns an empty store. cached looks up what the watch has delivered; it must be up
// to date when Delivered and Gone are called. now is the clock by which entries expire; it
// should be monotonic.
func New[T Object](cached func(name string) (T, bool), now func() time.Time) *Store[T] {
	return &Store[T]{cached: cached, now: now, byName: map[string]entry[T]{}, gone: cache.NewLRUExpireCache(maxGone)}
}

// Add remembers an object as the API server returned it. To report a deletion, give the
// object with the deleted resourceVersion and a deletion time.
//
// The watch can be faster than the answer to a write. An object that it has already
// reported as deleted is not remembered: it would seem to exist until it expires.
func (s *Store[T]) Add(object T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := object.GetName()
	if _, gone := s.gone.Get(object.GetUID()); gone {
		return
	}
	if earlier, ok := s.byName[name]; ok && newer(earlier.object, object) {
		return // two writes were answered in the wrong order
	}
	s.byName[name] = entry[T]{object, s.now()}
	if len(s.byName) < s.sweepAt {
		return
	}
	for name := range s.byName { // few: the watch drops them within milliseconds
		if _, ok := s.own(name); !ok {
			delete(s.byName, name)
		}
	}
	s.sweepAt = 2 * len(s.byName) // so that many at once, of an outage, cost little each
}

// Get returns the object of a name: the written one if it is newer than the cached one,
// else the cached one. It reports whether there is either.
func (s *Store[T]) Get(name string) (T, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if own, ok := s.own(name); ok {
		return own, true
	}
	return s.cached(name)
}

// Overlay returns what list returns, some or all of the cached objects, with written
// objects in place of older ones. It adds all other written objects that are newer than
// the cache, also those that do not belong in the list: the caller filters. The order is
// not kept.
func (s *Store[T]) Overlay(list func() []T) []T {
	s.mu.RLock() // before the list is read: else Delivered could drop an object that the list lacks
	defer s.mu.RUnlock()
	listed := list()
	if len(s.byName) == 0 {
		return listed
	}
	all := make([]T, 0, len(listed)+len(s.byName))
	seen := make(map[string]bool, len(s.byName))
	for _, object := range listed {
		if own, ok := s.own(object.GetName()); ok {
			seen[object.GetName()] = true
			object = own
		}
		all = append(all, object)
	}
	for name := range s.byName {
		if own, ok := s.own(name); ok && !seen[name] {
			all = append(all, own)
		}
	}
	return all
}

// Delivered tells the store of an object that the watch has delivered. Its written object
// is dropped, unless that is newer.
func (s *Store[T]) Delivered(object T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if own, ok := s.byName[object.GetName()]; ok && !newer(own.object, object) {
		delete(s.byName, object.GetName())
	}
}

// Gone tells the store of an object that the watch has reported as deleted. Its written
// object is dropped, unless that is another object of the same name.
func (s *Store[T]) Gone(object T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone.Add(object.GetUID(), true, maxAge)
	if own, ok := s.byName[object.GetName()]; ok && own.object.GetUID() == object.GetUID() {
		delete(s.byName, object.GetName())
	}
}

// own returns the written object of a name if it is newer than the cache and has not
// expired. The caller must hold the lock.
func (s *Store[T]) own(name string) (T, bool) {
	own, ok := s.byName[name]
	if !ok {
		return own.object, false
	}
	if cached, ok := s.cached(name); ok {
		return own.object, newer(own.object, cached)
	}
	return own.object, s.now().Sub(own.at) <= maxAge
}

// newer reports whether a written object is newer than a cached one. An object that is
// being deleted is newer than any other version of itself. If the resourceVersions cannot
// be compared, the cached object counts as newer.
func newer(own, cached Object) bool {
	if own.GetUID() == cached.GetUID() && (own.GetDeletionTimestamp() != nil) != (cached.GetDeletionTimestamp() != nil) {
		return own.GetDeletionTimestamp() != nil // a deletion cannot be undone
	}
	order, err := resourceversion.CompareResourceVersion(own.GetResourceVersion(), cached.GetResourceVersion())
	return err == nil && order > 0
}
