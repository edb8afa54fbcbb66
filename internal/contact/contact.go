// Package contact knows whether this replica still hears from the API server, and how old
// its picture of the pods can be.
//
// It does not ask the API server itself: the election tells it what it hears, and the watch of
// the pods passes through it, which reads ahead of it. It decides nothing about instances.
package contact

import (
	"bufio"
	"io"
	"net/http"
	"strings"
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
)

// Contact is what a replica has heard from the API server. It is safe for concurrent use.
type Contact struct {
	now func() time.Time // its monotonic clock counts

	mu       sync.Mutex
	answered time.Time // when the election was last answered; zero before the first time
	open     int       // watches of pods
	ended    time.Time // when the last of them ended; zero if none has
}

// New returns a Contact that has heard nothing. Nothing is lost until the first answer.
func New(now func() time.Time) *Contact { return &Contact{now: now} }

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
// watch of the pods ended, if that is longer.
func (c *Contact) Age() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, age := c.now(), time.Duration(0)
	if !c.answered.IsZero() {
		age = now.Sub(c.answered)
	}
	if c.open == 0 && !c.ended.IsZero() {
		age = max(age, now.Sub(c.ended))
	}
	return age
}

// Unsure reports whether an instance may have lost its address to another, if the picture of
// the pods can be as old as age. overdue says that by what this replica knows the instance
// should have ended: another replica, to which its last uses were not told, may have ended
// it as soon as that.
func Unsure(age time.Duration, overdue bool) bool {
	return age > StaleAfter || overdue && age > LostAfter
}

// WatchPods returns a transport that notes when watches of pods begin and end.
func (c *Contact) WatchPods(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(r)
		if err == nil && response.StatusCode == http.StatusOK && isPodWatch(r) {
			response.Body = c.begin(response.Body)
		}
		return response, err
	})
}

func isPodWatch(r *http.Request) bool {
	return strings.HasSuffix(r.URL.Path, "/pods") && r.URL.Query().Has("watch")
}

// roundTripper is a function as an http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip calls the function.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// readAhead is how many bytes of a watch are read at once, if so many have arrived. HTTP/2
// acknowledges what is read, in a packet for each read of some kilobytes: when thousands of
// pods arrived one by one, a tenth of a replica's work at its start was that.
const readAhead = 32 << 10

// watched is the body of a watch: the events, one after the other.
type watched struct {
	io.Closer
	events *bufio.Reader
	end    func()
}

func (c *Contact) begin(body io.ReadCloser) io.ReadCloser {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open++
	return &watched{body, bufio.NewReaderSize(body, readAhead), sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.open--
		c.ended = c.now()
	})}
}

// Read reads what has arrived. Its error is the end of the watch.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.events.Read(p)
	if err != nil {
		w.end()
	}
	return n, err
}

// Close ends the watch.
func (w *watched) Close() error {
	w.end()
	return w.Closer.Close()
}
