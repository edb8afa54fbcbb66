// Package waiters wakes clients that wait for a change of something with a name.
//
// It must never know what the names mean. Each client checks for itself what changed.
package waiters

import "sync"

// Set holds the waiting clients by name. The zero value is ready to use. Its methods may
// be called at the same time.
type Set struct {
	mu     sync.Mutex
	byName map[string]map[chan struct{}]struct{}
}

// Add returns a channel that receives after changes of a name. Several changes in quick
// succession can be one receive. The caller must call stop when it no longer waits.
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

// Any reports whether a client waits for a name.
func (s *Set) Any(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byName[name]) > 0
}

// Wake tells the clients that wait for a name of a change. It never blocks. A client that
// has not yet received an earlier change receives once for both.
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
