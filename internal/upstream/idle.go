package upstream

import (
	"slices"
	"sync"
	"time"
)

const (
	maxIdle = 4096 // idle connections
	// maxIdlePerPod is the most idle connections to one application: some browsers with six
	// each, or a page that loads many small files. Dialling costs more than a request.
	maxIdlePerPod = 64
	// idleTimeout is how long a connection is kept at most.
	idleTimeout = 90 * time.Second
	sweepEvery  = 10 * time.Second
	// freshFor is how long a connection can have been idle and still carry a request
	// that must not be sent twice: an application closes idle connections when it
	// likes, and then nobody can tell whether it has seen the request.
	freshFor = time.Second
	// settledAfter is how long a connection must have been idle before it carries such a
	// request: an application that answers and then closes, without having said so, has
	// closed it by then. Servers do that with a request whose body they have not read.
	settledAfter = 50 * time.Millisecond
)

// idleConns are the connections that carry no request.
type idleConns struct {
	now func() time.Time

	mu       sync.Mutex
	byPod    map[string][]*conn // the longest idle first
	count    int
	sweeping bool // a timer will call sweep
}

// take returns an open connection to an application, or nil. The one that was used
// last is taken first. If the request must not be sent twice, only a connection
// that was used a short while ago will do.
func (i *idleConns) take(address string, repeatable bool) *conn {
	for {
		c := i.pop(address, i.now(), repeatable)
		if c == nil || c.isOpen() {
			return c
		}
		c.Close()
	}
}

func (i *idleConns) pop(address string, now time.Time, repeatable bool) *conn {
	i.mu.Lock()
	defer i.mu.Unlock()
	conns := i.byPod[address]
	last := len(conns) - 1
	for !repeatable && last >= 0 && now.Sub(conns[last].since) < settledAfter {
		last--
	}
	if last < 0 || !repeatable && now.Sub(conns[last].since) > freshFor {
		return nil
	}
	c := conns[last]
	i.set(address, slices.Delete(conns, last, last+1))
	return c
}

// put keeps a connection for later requests, or closes it if there are enough.
func (i *idleConns) put(c *conn) {
	now := i.now()
	i.mu.Lock()
	defer i.mu.Unlock()
	conns := i.byPod[c.address]
	if len(conns) >= maxIdlePerPod {
		c.Close()
		return
	}
	if i.count >= maxIdle {
		i.evict()
		conns = i.byPod[c.address]
	}
	c.since = now
	i.set(c.address, append(conns, c))
	if !i.sweeping {
		i.sweeping = true
		time.AfterFunc(sweepEvery, i.sweep)
	}
}

// evict closes any idle connection, so that no pod can keep others from having some.
func (i *idleConns) evict() {
	for address, conns := range i.byPod {
		conns[0].Close()
		i.set(address, conns[1:])
		return
	}
}

// sweep closes the connections that have been idle for long enough. It runs every
// sweepEvery while there are idle connections: a timer for each would be started and
// stopped with each request.
func (i *idleConns) sweep() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.closeIdleSince(i.now().Add(sweepEvery - idleTimeout))
	if i.sweeping = i.count > 0; i.sweeping {
		time.AfterFunc(sweepEvery, i.sweep)
	}
}

// closeIdleSince closes the connections that have been idle since a time. The lock must be
// held.
func (i *idleConns) closeIdleSince(since time.Time) {
	for address, conns := range i.byPod {
		kept := conns
		for len(kept) > 0 && !kept[0].since.After(since) {
			kept[0].Close()
			kept = kept[1:]
		}
		i.set(address, kept)
	}
}

// set replaces the idle connections of an application.
func (i *idleConns) set(address string, conns []*conn) {
	i.count += len(conns) - len(i.byPod[address])
	if len(conns) == 0 {
		delete(i.byPod, address)
		return
	}
	if i.byPod == nil {
		i.byPod = map[string][]*conn{}
	}
	i.byPod[address] = conns
}
