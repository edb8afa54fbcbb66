// Package waiters wakes clients that wait for a change of something with a name.
package waiters

import "sync"

// Set holds the waiting clients by the name of what they wait for. The zero value
// is ready to use, and its methods may be called at the same time.
type Set struct {
	mu     sync.Mutex
	byName map[string]map[chan struct{}]struct{}
}

// Add returns a channel that receives after each change; changes in quick
// succession may be one receive. stop must be called when the wait is over.
func (s *Set) Add(name string) (changed <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byName == nil {
		s.byName = map[string]map[chan struct{}]struct{}{}
	}
	if s.byName[name] == nil {
		s.byName[name] = map[chan struct{}]struct{}{}
	}
	s.byName[name][ch] = struct{}{}
	return ch, func() { s.remove(name, ch) }
}

func (s *Set) remove(name string, ch chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byName[name], ch)
	if len(s.byName[name]) == 0 {
		delete(s.byName, name)
	}
}

// Any reports whether anybody waits for a name.
func (s *Set) Any(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byName[name]) > 0
}

// Wake tells all who wait for a name of a change. It never blocks: a client that
// has not yet received the last change will see this one with it.
func (s *Set) Wake(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ch := range s.byName[name] {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}
