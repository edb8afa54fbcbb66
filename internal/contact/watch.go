package contact

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// readAhead is how many bytes of a watch are read at once, if so many have arrived. HTTP/2
// acknowledges what is read, in a packet for each read of some kilobytes: when thousands of
// pods arrived one by one, a tenth of a replica's work at its start was that.
const readAhead = 32 << 10

// Watch returns a transport that notes when watches begin and end.
//
// Whatever breaks a watch, it ends as if the API server had ended it: client-go's reflectors
// then go on at once from where they were. After an error they would first wait, longer each
// time, and then read everything again.
func (c *Contact) Watch(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(r)
		if err == nil && response.StatusCode == http.StatusOK && r.URL.Query().Has("watch") {
			response.Body = c.begin(r, response.Body)
		}
		return response, err
	})
}

// roundTripper is a function as an http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip calls the function.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// kind is the watches of the same objects: one, or for a moment two, while it is renewed.
type kind struct {
	ofPods, ofLeases bool
	open             int
	ended            time.Time // when the last of them ended, or broke
	heard            time.Time // when one of them last brought something; at first, when it began
	silent           bool      // whether one was broken off, and none has brought something since
	resumed          time.Time // when one was opened that has missed something; zero for never
}

// silentAfter is how long these watches may bring nothing.
func (k *kind) silentAfter() time.Duration {
	switch {
	case k.ofPods:
		return SilentAfter
	case k.ofLeases:
		return LeasesSilentAfter
	}
	return OthersSilentAfter
}

// watched is the body of a watch: the events, one after the other.
type watched struct {
	body    io.ReadCloser
	events  *bufio.Reader
	contact *Contact
	kind    *kind
	silence *time.Timer // ends a watch that brings nothing

	mu     sync.Mutex
	broken bool // was silent for too long
	ended  bool
}

func (c *Contact) begin(r *http.Request, body io.ReadCloser) io.ReadCloser {
	query := r.URL.Query()
	objects := strings.Join([]string{r.URL.Path, query.Get("labelSelector"), query.Get("fieldSelector")}, " ")
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.kinds[objects]
	if k == nil {
		k = &kind{ofPods: strings.HasSuffix(r.URL.Path, "/pods"), ofLeases: strings.HasSuffix(r.URL.Path, "/leases"), heard: c.now()}
		c.kinds[objects] = k
	}
	if away := k.open == 0 && !k.ended.IsZero(); away && (k.silent || c.now().Sub(k.ended) > missed) {
		k.resumed = c.now()
		k.silent = k.silent && k.ofPods // of the others, nobody asks further
	}
	k.open++
	w := &watched{body: body, events: bufio.NewReaderSize(body, readAhead), contact: c, kind: k}
	c.open[w] = true
	w.silence = time.AfterFunc(k.silentAfter(), w.breakOff)
	return w
}

// Read reads what has arrived. Whatever ends the watch, the error is io.EOF.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.events.Read(p)
	if err != nil {
		w.end()
		return n, io.EOF
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.contact.heard(w.kind)
	if !w.ended {
		w.silence.Reset(w.kind.silentAfter())
	}
	return n, nil
}

// heard notes that a watch has brought something.
func (c *Contact) heard(k *kind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k.heard, k.silent = c.now(), false
}

// breakOff makes Read return. If the watch of Leases is silent, the cause is seldom that one alone:
// all others that have brought nothing for half as long are broken off as well. What they brought
// before that can have come just after the last Lease, and just before the silence.
func (w *watched) breakOff() {
	for _, silent := range w.contact.silentLike(w) {
		silent.mu.Lock()
		silent.broken = silent != w || w.kind.ofPods || w.kind.ofLeases // others can be silent for a good reason
		silent.mu.Unlock()
		_ = silent.body.Close()
	}
}

// silentLike returns a watch that is silent, and the others that must be so for the same cause.
func (c *Contact) silentLike(w *watched) []*watched {
	all := []*watched{w}
	c.mu.Lock()
	defer c.mu.Unlock()
	for other := range c.open {
		if w.kind.ofLeases && other != w && c.now().Sub(other.kind.heard) >= LeasesSilentAfter/2 {
			all = append(all, other)
		}
	}
	return all
}

// Close ends the watch.
func (w *watched) Close() error {
	w.end()
	return w.body.Close()
}

// end notes the end of the watch, once.
func (w *watched) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	w.ended = true
	w.silence.Stop()
	w.contact.mu.Lock()
	defer w.contact.mu.Unlock()
	delete(w.contact.open, w)
	w.kind.open--
	w.kind.ended = w.contact.now()
	w.kind.silent = w.kind.silent || w.broken
}
