package contact

import (
	"net/http"
	"sync"
	"time"
)

const (
	// clockError is how far the API server's clock may seem to differ without being followed:
	// the field Date has whole seconds, and answers take a while.
	clockError = 2 * time.Second
	// slowAnswer is the longest time of a request whose answer tells the time.
	slowAnswer = time.Second
)

// Clock tells the time of the API server, so that all replicas agree on it whatever the clocks
// of their nodes say: they compare times that other replicas and the API server have written. It
// learns the time from the field Date of answers (RFC 9110, section 6.6.1), and in between it
// goes by the monotonic clock of this machine. Until the first answer, and as long as both agree,
// it tells this machine's time. It is safe for concurrent use.
type Clock struct {
	local func() time.Time // with a monotonic reading

	mu     sync.Mutex
	time   time.Time // without a monotonic reading
	readAt time.Time // when it was that time, by the local clock
}

// NewClock returns a Clock that tells what local does, which is time.Now.
func NewClock(local func() time.Time) *Clock {
	now := local()
	return &Clock{local: local, time: now.Round(0), readAt: now}
}

// Now returns the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at(c.local())
}

// at returns the time at a time by the local clock. The lock must be held.
func (c *Clock) at(local time.Time) time.Time { return c.time.Add(local.Sub(c.readAt)) }

// Watch returns a transport that learns the time from answers.
func (c *Clock) Watch(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		asked := c.local()
		response, err := next.RoundTrip(r)
		if err == nil {
			c.learn(asked, response.Header.Get("Date"))
		}
		return response, err
	})
}

// learn takes the field Date of an answer to a request that was sent at a time.
func (c *Clock) learn(asked time.Time, date string) {
	told, err := http.ParseTime(date)
	answered := c.local()
	if err != nil || answered.Sub(asked) > slowAnswer {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at(answered).Sub(told).Abs() > clockError {
		c.time, c.readAt = told, answered
	}
}
