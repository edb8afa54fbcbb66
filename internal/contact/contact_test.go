package contact_test

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/contact"
)

// TestContact runs a replica through what it hears. Times are in seconds; the election is
// answered every two, unless the API server is away.
func TestContact(t *testing.T) {
	const lost, stale = int(contact.LostAfter / time.Second), int(contact.StaleAfter / time.Second)
	for _, test := range []struct {
		name            string
		away, broken    [2]int // when the API server does not answer, and when no watch of pods is open
		at              int
		lost            bool
		unsure, unsure2 bool // of an instance that is overdue, and of others
	}{
		{"all is well", [2]int{}, [2]int{}, 100, false, false, false},
		{"away for a while", [2]int{100, 1000}, [2]int{100, 1000}, 100 + lost - 4, false, false, false},
		{"away for longer", [2]int{100, 1000}, [2]int{100, 1000}, 100 + lost + 2, true, true, false},
		{"away, but the watch seems open", [2]int{100, 1000}, [2]int{}, 100 + lost + 2, true, true, false},
		{"away for long", [2]int{100, 5000}, [2]int{100, 5000}, 100 + stale + 2, true, true, true},
		{"back, but not the watch", [2]int{100, 2000}, [2]int{100, 2050}, 2010, false, true, true},
		{"back", [2]int{100, 2000}, [2]int{100, 2050}, 2052, false, false, false},
		{"the watch alone is broken", [2]int{}, [2]int{100, 1000}, 100 + lost + 2, false, true, false},
		{"the watch alone is broken for long", [2]int{}, [2]int{100, 5000}, 100 + stale + 2, false, true, true},
		{"the watch is opened again", [2]int{}, [2]int{100, 104}, 106, false, false, false},
	} {
		now := time.Now()
		began := now
		c := contact.New(func() time.Time { return now })
		watch := openWatch(t, c)
		for second := 0; second <= test.at; second += 2 {
			now = began.Add(time.Duration(second) * time.Second)
			if second < test.away[0] || second >= test.away[1] {
				c.Answered()
			}
			switch second {
			case test.broken[0]:
				if test.broken[1] > 0 {
					watch.Close()
					watch.Close() // counts once
				}
			case test.broken[1]:
				watch = openWatch(t, c)
			}
		}
		if gotLost, overdue, others := c.Lost(), contact.Unsure(c.Age(), true), contact.Unsure(c.Age(), false); gotLost != test.lost || overdue != test.unsure || others != test.unsure2 {
			t.Errorf("%s: lost %t, unsure of the overdue %t, of others %t; want %t, %t, %t", test.name, gotLost, overdue, others, test.lost, test.unsure, test.unsure2)
		}
	}
}

// Nothing is lost that was never heard: a client of a test, or the time before the first
// answer.
func TestNothingWasHeardYet(t *testing.T) {
	now := time.Now()
	c := contact.New(func() time.Time { return now })
	now = now.Add(time.Hour)
	if c.Lost() || c.Age() != 0 || contact.Unsure(c.Age(), true) {
		t.Error("contact is lost before it was ever made")
	}
}

// transport answers with a code and a body.
type transport struct {
	code int
	body io.ReadCloser
	err  error
}

func (a transport) RoundTrip(*http.Request) (*http.Response, error) {
	if a.err != nil {
		return nil, a.err
	}
	return &http.Response{StatusCode: a.code, Body: a.body}, nil
}

// body is the body of a watch, which ends with an error or is closed.
type body struct{ err error }

func (b *body) Read([]byte) (int, error) { return 0, b.err }
func (b *body) Close() error             { return nil }

func ask(t *testing.T, c *contact.Contact, url string, answer transport) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, _ := c.WatchPods(answer).RoundTrip(r)
	return response
}

const podWatch = "https://kubernetes/api/v1/namespaces/x/pods?labelSelector=a&watch=true"

func openWatch(t *testing.T, c *contact.Contact) io.ReadCloser {
	t.Helper()
	return ask(t, c, podWatch, transport{code: 200, body: &body{}}).Body
}

// Only watches of pods tell how old the pods are.
func TestWhatIsAWatchOfPods(t *testing.T) {
	for name, test := range map[string]struct {
		url    string
		answer transport
		counts bool
	}{
		"pods":             {podWatch, transport{code: 200}, true},
		"a list":           {"https://kubernetes/api/v1/namespaces/x/pods", transport{code: 200}, false},
		"events":           {"https://kubernetes/api/v1/namespaces/x/events?watch=true", transport{code: 200}, false},
		"of templates":     {"https://kubernetes/api/v1/namespaces/pods/podtemplates?watch=1", transport{code: 200}, false},
		"refused":          {podWatch, transport{code: 410}, false},
		"a broken request": {podWatch, transport{err: errors.New("reset")}, false},
	} {
		now := time.Now()
		c := contact.New(func() time.Time { return now })
		test.answer.body = &body{io.ErrUnexpectedEOF}
		if response := ask(t, c, test.url, test.answer); response != nil {
			_, _ = io.ReadAll(response.Body) // to its end
		}
		now = now.Add(time.Second)
		if got := c.Age() > 0; got != test.counts {
			t.Errorf("%s: its end counts: %t, want %t", name, got, test.counts)
		}
	}
}

// An event is passed on when it arrives, whatever follows it, and an end only after what came
// before it.
func TestEventsOfAWatch(t *testing.T) {
	now := time.Now()
	c := contact.New(func() time.Time { return now })
	arriving, send := io.Pipe()
	watch := ask(t, c, podWatch, transport{code: 200, body: arriving}).Body
	read := func() (string, error) {
		buffer := make([]byte, 100)
		n, err := watch.Read(buffer)
		return string(buffer[:n]), err
	}
	go func() {
		_, _ = io.WriteString(send, "one event") // returns when it was read
	}()
	if got, err := read(); got != "one event" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	go func() {
		_, _ = io.WriteString(send, "the last")
		send.CloseWithError(io.ErrUnexpectedEOF)
	}()
	got, err := read()
	if now = now.Add(time.Second); got != "the last" || err != nil || c.Age() > 0 {
		t.Errorf("got %q, %v; the watch has ended: %t", got, err, c.Age() > 0)
	}
	if got, err = read(); got != "" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q, %v after the end", got, err)
	}
	if now = now.Add(time.Second); c.Age() == 0 {
		t.Error("the end of the watch is not noticed")
	}
}
