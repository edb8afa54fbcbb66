// Package contact knows whether this replica still hears from the API server, how old its
// picture of the cluster can be, and what time the API server has.
//
// It does not ask the API server itself: the election tells it what it hears, and the watches
// pass through it. It reads ahead of them, and ends those that have broken, so that they are
// opened again at once. It decides nothing about instances.
package contact

import (
	"sync"
	"time"
)

const (
	// LostAfter is how long the API server may not answer before contact counts as lost.
	// The election asks every few seconds, so about fifteen questions have failed then.
	LostAfter = time.Minute
	// StaleAfter is how old the picture of the pods may be before no instance is sure to
	// have its address still. It is longer than an API server is usually away for an
	// upgrade, and as short as that allows: the address of an ended pod can be given to
	// another after as little as 30 s (the cooldown of the AWS VPC CNI).
	StaleAfter = 15 * time.Minute
	// BehindAfter is how long the API server may not answer before this replica may lack what
	// others know. The election has asked four times then.
	BehindAfter = 8 * time.Second
	// SilentAfter is how long a watch of pods may bring nothing before it counts as broken:
	// its connection is open, but nothing arrives. API servers send a bookmark every minute
	// (https://kubernetes.io/docs/reference/using-api/api-concepts/#watch-bookmarks). A watch
	// that was silent for a good reason is opened again, and has missed nothing.
	SilentAfter = 90 * time.Second
	// LeasesSilentAfter is the same for the watch of the replicas' Leases, each of which is
	// renewed every 2 s. It tells so much earlier that watches are silent: all others that bring
	// nothing either count as broken then.
	LeasesSilentAfter = 10 * time.Second
	// OthersSilentAfter is the same for all other watches. Those of Events get no bookmarks,
	// and can be silent for a good reason. API servers end a watch after 5 to 10 minutes in any
	// case, if the connection works.
	OthersSilentAfter = 5 * time.Minute
	// catchUp is how long a watch that is open again may take to bring what it has missed, and
	// missed is for how long one must have been away to have missed more than what its renewal
	// does: API servers end each after some minutes, and reflectors open another at once.
	catchUp = 2 * time.Second
	missed  = time.Second
)

// Contact is what a replica has heard from the API server. It is safe for concurrent use.
type Contact struct {
	now func() time.Time // its monotonic clock counts

	mu       sync.Mutex
	answered time.Time         // when the election was last answered; zero before the first time
	kinds    map[string]*kind  // of watches, by what they watch; those that were open once
	open     map[*watched]bool // those that have not ended: silence of one can end others
}

// New returns a Contact that has heard nothing. Nothing is lost until the first answer.
func New(now func() time.Time) *Contact {
	return &Contact{now: now, kinds: map[string]*kind{}, open: map[*watched]bool{}}
}

// Answered notes that the API server has answered.
func (c *Contact) Answered() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered = c.now()
}

// Lost reports whether contact is lost: uses cannot be written then.
func (c *Contact) Lost() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.answered.IsZero() && c.now().Sub(c.answered) > LostAfter
}

// Age returns how old the picture of the pods can be, apart from the seconds in which a
// broken connection is not yet noticed. It is the time since the last answer, or since the
// watch of the pods ended, if that is longer. One that was silent for too long counts as ended
// until something arrives again: a new one can be as silent.
func (c *Contact) Age() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, age := c.now(), time.Duration(0)
	if !c.answered.IsZero() {
		age = now.Sub(c.answered)
	}
	for _, k := range c.kinds {
		switch {
		case !k.ofPods:
		case k.silent:
			age = max(age, now.Sub(k.heard))
		case k.open == 0:
			age = max(age, now.Sub(k.ended))
		}
	}
	return age
}

// Behind reports whether this replica may lack what others know. That is so
//   - while a watch is not open, and for catchUp once it is open again, if it has missed something,
//   - while that of the pods has brought nothing since it was silent: API servers send a bookmark
//     every minute,
//   - while that of the replicas' Leases is silent, and
//   - while the API server does not answer.
func (c *Contact) Behind() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.kinds {
		switch {
		case k.open == 0, k.ofPods && k.silent, k.ofLeases && c.now().Sub(k.heard) > LeasesSilentAfter,
			!k.resumed.IsZero() && c.now().Sub(k.resumed) < catchUp:
			return true
		}
	}
	return !c.answered.IsZero() && c.now().Sub(c.answered) > BehindAfter
}

// Unsure reports whether an instance may have lost its address to another, if the picture of
// the pods can be as old as age. overdue says that by what this replica knows the instance
// should have ended: another replica, to which its last uses were not told, may have ended
// it as soon as that.
func Unsure(age time.Duration, overdue bool) bool {
	return age > StaleAfter || overdue && age > LostAfter
}
