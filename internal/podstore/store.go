// Package podstore holds the pods of the read model in little memory.
//
// A pod takes several kilobytes, and most questions about it are the same few. So of each
// version of a pod that the watch delivers, a Record keeps the answers to those, and the pod
// itself only encoded. The store finds records by name, template, client and address, and
// tells its handlers of changes.
//
// It decides nothing: the answers are those of packages instance and lifetime. It must never
// know who asks, nor what this replica has written.
package podstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
)

// Store holds the record of each pod that the watch has delivered. Its methods may be called
// at the same time, apart from those of cache.ReflectorStore, which the watch calls.
type Store struct {
	rules  lifetime.Rules
	now    func() time.Time
	synced atomic.Bool

	// telling is held while a change is made and told, so that a new handler hears of every
	// pod once, and of its changes in order.
	telling  sync.Mutex
	handlers []handler
	ended    bool

	mu         sync.RWMutex
	byName     map[string]*Record
	byTemplate map[string]map[*Record]struct{} // of all pods
	warm       map[string]map[*Record]struct{} // by template
	byClient   map[string][]*Record            // few each
	addresses  map[string]int                  // how many pods have an address
	doubled    int                             // how many addresses more than one pod has
	// anyDoubled is false only if doubled is 0 after all of a change, so that it can be read
	// without the lock.
	anyDoubled atomic.Bool
}

var _ cache.TransformingStore = (*Store)(nil)

type handler struct {
	changed func(before, record *Record)
	gone    func(record *Record)
}

// New returns a Store without pods.
func New(rules lifetime.Rules, now func() time.Time) *Store {
	return &Store{
		rules: rules, now: now,
		byName: map[string]*Record{}, byTemplate: map[string]map[*Record]struct{}{}, warm: map[string]map[*Record]struct{}{},
		byClient: map[string][]*Record{}, addresses: map[string]int{},
	}
}

// Run fills the store from a watch, until ctx is done.
func (s *Store) Run(ctx context.Context, pods cache.ListerWatcher) {
	cache.NewReflectorWithOptions(pods, &corev1.Pod{}, s, cache.ReflectorOptions{}).RunWithContext(ctx)
	s.telling.Lock()
	defer s.telling.Unlock()
	s.ended = true
}

// Synced reports whether all pods have been read once, and told to the handlers.
func (s *Store) Synced() bool { return s.synced.Load() }

// Handle calls changed for every version of a pod, with the version before it, or nil. It
// calls gone for the last version of a deleted pod. After a broken watch that is the last
// version that was delivered. The calls delay the watch, so they must not block.
func (s *Store) Handle(changed func(before, record *Record), gone func(record *Record)) error {
	s.telling.Lock()
	defer s.telling.Unlock()
	if s.ended {
		return errors.New("the watch of the pods has ended")
	}
	for _, record := range s.All() {
		changed(nil, record)
	}
	s.handlers = append(s.handlers, handler{changed, gone})
	return nil
}

// Record returns the record of a pod, for the rules and by the clock of the store.
func (s *Store) Record(pod *corev1.Pod) *Record { return NewRecord(pod, s.rules, s.now()) }

// Transformer makes records of the pods of the first read while they arrive, so that it
// never holds all pods in full.
func (s *Store) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) { return s.record(obj) }
}

func (s *Store) record(obj any) (*Record, error) {
	switch obj := obj.(type) {
	case *Record:
		return obj, nil
	case *corev1.Pod:
		return s.Record(obj), nil
	}
	return nil, fmt.Errorf("expected a pod, got %T", obj)
}

// Add stores a new pod.
func (s *Store) Add(obj any) error {
	record, err := s.record(obj)
	if err != nil {
		return err
	}
	s.telling.Lock()
	defer s.telling.Unlock()
	s.mu.Lock()
	before := s.set(record.name, record)
	s.changed()
	s.tellChanged(before, record)
	return nil
}

// Update stores a new version of a pod.
func (s *Store) Update(obj any) error { return s.Add(obj) }

// Delete removes a pod. obj is its last version.
func (s *Store) Delete(obj any) error {
	record, err := s.record(obj)
	if err != nil {
		return err
	}
	s.telling.Lock()
	defer s.telling.Unlock()
	s.mu.Lock()
	before := s.set(record.name, nil)
	s.changed()
	if before != nil {
		s.tellGone(record)
	}
	return nil
}

// Replace stores a list of all pods, in place of those of the store.
func (s *Store) Replace(list []any, _ string) error {
	read := make(map[string]*Record, len(list))
	for _, obj := range list {
		record, err := s.record(obj)
		if err != nil {
			return err
		}
		read[record.name] = record
	}
	s.telling.Lock()
	defer s.telling.Unlock()
	type change struct{ before, record *Record }
	changes := make([]change, 0, len(read))
	s.mu.Lock()
	for name, before := range s.byName {
		if read[name] == nil {
			changes = append(changes, change{before, nil})
			s.set(name, nil)
		}
	}
	for name, record := range read {
		changes = append(changes, change{s.set(name, record), record})
	}
	s.changed()
	for _, c := range changes {
		if c.record == nil {
			s.tellGone(c.before)
		} else {
			s.tellChanged(c.before, c.record)
		}
	}
	s.synced.Store(true)
	return nil
}

// Resync does nothing.
func (s *Store) Resync() error { return nil }

func (s *Store) tellChanged(before, record *Record) {
	for _, h := range s.handlers {
		h.changed(before, record)
	}
}

func (s *Store) tellGone(record *Record) {
	for _, h := range s.handlers {
		h.gone(record)
	}
}

// set stores the record of a name, or removes it if that is nil, and returns the one before.
// The lock must be held.
func (s *Store) set(name string, record *Record) (before *Record) {
	if before = s.byName[name]; before != nil {
		delete(s.byName, name) // its key is a part of the old record
		s.unindex(before)
	}
	if record != nil {
		s.byName[record.name] = record
		s.index(record)
	}
	return before
}

// changed ends a change, and gives the lock back.
func (s *Store) changed() {
	s.anyDoubled.Store(s.doubled > 0)
	s.mu.Unlock()
}

func (s *Store) index(r *Record) {
	insert(s.byTemplate, r)
	if r.IsWarm {
		insert(s.warm, r)
	}
	if r.Client != "" {
		s.byClient[r.Client] = append(s.byClient[r.Client], r)
	}
	if r.address != "" {
		if s.addresses[r.address]++; s.addresses[r.address] == 2 {
			s.doubled++
		}
	}
	r.stored.Store(true)
}

func (s *Store) unindex(r *Record) {
	r.stored.Store(false)
	remove(s.byTemplate, r)
	if r.IsWarm {
		remove(s.warm, r)
	}
	if r.Client != "" {
		left := slices.DeleteFunc(s.byClient[r.Client], func(other *Record) bool { return other == r })
		delete(s.byClient, r.Client) // as in set
		if len(left) > 0 {
			s.byClient[left[0].Client] = left
		}
	}
	if r.address != "" {
		left := s.addresses[r.address] - 1
		delete(s.addresses, r.address)
		if left > 0 {
			s.addresses[r.address] = left
		}
		if left == 1 {
			s.doubled--
		}
	}
}

func insert(index map[string]map[*Record]struct{}, r *Record) {
	template := r.Template()
	if index[template] == nil {
		index[template] = map[*Record]struct{}{}
	}
	index[template][r] = struct{}{}
}

func remove(index map[string]map[*Record]struct{}, r *Record) {
	template := r.Template()
	delete(index[template], r)
	if len(index[template]) == 0 {
		delete(index, template)
	}
}

// Get returns the record of a pod's name.
func (s *Store) Get(name string) (*Record, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	record, ok := s.byName[name]
	return record, ok
}

// All returns all records.
func (s *Store) All() []*Record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.AppendSeq(make([]*Record, 0, len(s.byName)), maps.Values(s.byName))
}

// Count returns how many instances live, and how many pods wait in pools.
func (s *Store) Count() (instances, warm int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, r := range s.byName {
		switch {
		case r.IsDeleting:
		case r.IsWarm:
			warm++
		case r.IsInstance && !r.Status().Over():
			instances++
		}
	}
	return instances, warm
}

// OfTemplate returns the records of a template's pods.
func (s *Store) OfTemplate(template string) []*Record { return s.list(s.byTemplate, template) }

// Warm returns the records of a template's warm pods.
func (s *Store) Warm(template string) []*Record { return s.list(s.warm, template) }

func (s *Store) list(index map[string]map[*Record]struct{}, template string) []*Record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.AppendSeq(make([]*Record, 0, len(index[template])), maps.Keys(index[template]))
}

// WarmTemplates returns the names of the templates that have warm pods.
func (s *Store) WarmTemplates() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Keys(s.warm))
}

// OfClient returns the records of the pods that a client has launched.
func (s *Store) OfClient(client string) []*Record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.byClient[client])
}

// SharesAddress reports whether another pod that lives has the address of a record's pod.
func (s *Store) SharesAddress(r *Record) bool {
	if r.address == "" || r.stored.Load() && !s.anyDoubled.Load() {
		return false // nearly always, without a search
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	others := s.addresses[r.address]
	if others > 0 {
		if stored := s.byName[r.name]; stored != nil && stored.address == r.address {
			others--
		}
	}
	return others > 0
}
