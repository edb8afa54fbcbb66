package contact_test

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/contact"
)

// TestContact runs a replica through what it hears. Times are in seconds; the election is
// answered every two, unless the API server is away.
func TestContact(t *testing.T) {
	const lost, stale, behind = int(contact.LostAfter / time.Second), int(contact.StaleAfter / time.Second), int(contact.BehindAfter / time.Second)
	for _, test := range []struct {
		name            string
		away, broken    [2]int // when the API server does not answer, and when no watch of pods is open
		at              int
		lost            bool
		unsure, unsure2 bool // of an instance that is overdue, and of others
		behind          bool
	}{
		{"all is well", [2]int{}, [2]int{}, 100, false, false, false, false},
		{"away for a moment", [2]int{100, 1000}, [2]int{}, 100 + behind - 4, false, false, false, false},
		{"away for a while", [2]int{100, 1000}, [2]int{100, 1000}, 100 + lost - 4, false, false, false, true},
		{"away for longer", [2]int{100, 1000}, [2]int{100, 1000}, 100 + lost + 2, true, true, false, true},
		{"away, but the watch seems open", [2]int{100, 1000}, [2]int{}, 100 + lost + 2, true, true, false, true},
		{"away for long", [2]int{100, 5000}, [2]int{100, 5000}, 100 + stale + 2, true, true, true, true},
		{"back, but not the watch", [2]int{100, 2000}, [2]int{100, 2050}, 2010, false, true, true, true},
		{"back", [2]int{100, 2000}, [2]int{100, 2050}, 2052, false, false, false, false},
		{"the watch alone is broken", [2]int{}, [2]int{100, 1000}, 100 + lost + 2, false, true, false, true},
		{"the watch alone is broken for long", [2]int{}, [2]int{100, 5000}, 100 + stale + 2, false, true, true, true},
		{"the watch is open again only now", [2]int{}, [2]int{100, 104}, 104, false, false, false, true},
		{"the watch is opened again", [2]int{}, [2]int{100, 104}, 106, false, false, false, false},
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
		if got := c.Behind(); got != test.behind {
			t.Errorf("%s: behind %t, want %t", test.name, got, test.behind)
		}
	}
}

// Nothing is lost that was never heard: a client of a test, or the time before the first
// answer.
func TestNothingWasHeardYet(t *testing.T) {
	now := time.Now()
	c := contact.New(func() time.Time { return now })
	now = now.Add(time.Hour)
	if c.Lost() || c.Behind() || c.Age() != 0 || contact.Unsure(c.Age(), true) {
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
	response, _ := c.Watch(answer).RoundTrip(r)
	return response
}

const podWatch = "https://kubernetes/api/v1/namespaces/x/pods?labelSelector=a&watch=true"

func openWatch(t *testing.T, c *contact.Contact) io.ReadCloser {
	t.Helper()
	return ask(t, c, podWatch, transport{code: 200, body: &body{}}).Body
}

// Only watches of pods tell how old the pods are. Without any one watch, this replica is
// behind.
func TestWhatIsAWatch(t *testing.T) {
	for name, test := range map[string]struct {
		url    string
		answer transport
		age    bool
		behind bool
	}{
		"pods":             {podWatch, transport{code: 200}, true, true},
		"a list":           {"https://kubernetes/api/v1/namespaces/x/pods", transport{code: 200}, false, false},
		"events":           {"https://kubernetes/api/v1/namespaces/x/events?watch=true", transport{code: 200}, false, true},
		"of templates":     {"https://kubernetes/api/v1/namespaces/pods/podtemplates?watch=1", transport{code: 200}, false, true},
		"refused":          {podWatch, transport{code: 410}, false, false},
		"a broken request": {podWatch, transport{err: errors.New("reset")}, false, false},
	} {
		now := time.Now()
		c := contact.New(func() time.Time { return now })
		test.answer.body = &body{io.ErrUnexpectedEOF}
		if response := ask(t, c, test.url, test.answer); response != nil {
			_, _ = io.ReadAll(response.Body) // to its end
		}
		now = now.Add(time.Second)
		if age, behind := c.Age() > 0, c.Behind(); age != test.age || behind != test.behind {
			t.Errorf("%s: after its end the pods are old: %t, and the replica is behind: %t; want %t, %t", name, age, behind, test.age, test.behind)
		}
	}
}

// A watch is open again only when one of the same objects is.
func TestWatchesAreToldApart(t *testing.T) {
	c := contact.New(time.Now)
	warnings := ask(t, c, "https://kubernetes/api/v1/namespaces/x/events?fieldSelector=type%3DWarning&watch=true", transport{code: 200, body: &body{}}).Body
	renewed := openWatch(t, c)
	openWatch(t, c).Close()
	if c.Behind() {
		t.Error("the end of a watch counts, though there is a newer one")
	}
	warnings.Close()
	ask(t, c, "https://kubernetes/api/v1/namespaces/x/events?labelSelector=a&watch=true", transport{code: 200, body: &body{}})
	if !c.Behind() {
		t.Error("another watch of Events counts in place of the one that has ended")
	}
	renewed.Close()
}

// A watch that brings nothing for long ends, and the pods are as old as what theirs last brought.
func TestSilentWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := contact.New(time.Now)
		arriving, send := io.Pipe()
		pods := ask(t, c, podWatch, transport{code: 200, body: arriving}).Body
		quiet, never := io.Pipe()
		defer never.Close()
		others := ask(t, c, "https://kubernetes/api/v1/namespaces/x/events?watch=true", transport{code: 200, body: quiet}).Body
		began, othersEnded := time.Now(), make(chan time.Duration, 1)
		go func() { _, _ = others.Read(make([]byte, 10)); othersEnded <- time.Since(began) }()
		read := func() error {
			_, err := pods.Read(make([]byte, 10))
			return err
		}
		for range 3 { // each a moment before it would be too late
			time.AfterFunc(contact.SilentAfter-time.Second, func() { _, _ = io.WriteString(send, "bookmark") })
			if err := read(); err != nil {
				t.Fatal(err)
			}
		}
		last := time.Now()
		if err := read(); !errors.Is(err, io.EOF) || time.Since(last) != contact.SilentAfter || c.Age() != contact.SilentAfter {
			t.Errorf("got %v after %s; the pods are %s old", err, time.Since(last), c.Age())
		}
		arriving, send = io.Pipe()
		pods = ask(t, c, podWatch, transport{code: 200, body: arriving}).Body
		defer pods.Close()
		if got := <-othersEnded; got != contact.OthersSilentAfter {
			t.Errorf("a watch of Events ended after %s", got)
		}
		defer ask(t, c, "https://kubernetes/api/v1/namespaces/x/events?watch=true", transport{code: 200, body: quiet}).Body.Close()
		if c.Age() != contact.SilentAfter || !c.Behind() {
			t.Errorf("the watch is open again, and brings nothing: the pods are %s old; behind: %t", c.Age(), c.Behind())
		}
		go func() { _, _ = io.WriteString(send, "bookmark") }()
		if err := read(); err != nil || c.Age() != 0 {
			t.Errorf("a bookmark has arrived: %v, and the pods are %s old", err, c.Age())
		}
		if !c.Behind() {
			t.Error("not behind, though the watch of Events has just begun to bring what it has missed")
		}
		if time.Sleep(2 * time.Second); c.Behind() {
			t.Error("behind, though all watches are open and have caught up")
		}
	})
}

// The watch of Leases is silent for a short time only, or the replica is behind; until something
// arrives, and not only until the watch is opened again.
func TestSilentWatchOfLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := contact.New(time.Now)
		open := func() (leases io.ReadCloser, send *io.PipeWriter) {
			arriving, send := io.Pipe()
			return ask(t, c, "https://kubernetes/apis/coordination.k8s.io/v1/namespaces/x/leases?watch=true", transport{code: 200, body: arriving}).Body, send
		}
		read := func(from io.Reader) error {
			_, err := from.Read(make([]byte, 10))
			return err
		}
		leases, send := open()
		defer send.Close()
		if err := read(leases); !errors.Is(err, io.EOF) || !c.Behind() {
			t.Errorf("a silent watch: %v; behind: %t", err, c.Behind())
		}
		leases, send = open()
		defer leases.Close()
		time.Sleep(2 * time.Second)
		if !c.Behind() {
			t.Error("not behind, though nothing has arrived")
		}
		go func() { _, _ = io.WriteString(send, "renewed") }()
		if err := read(leases); err != nil || c.Behind() {
			t.Errorf("a Lease was renewed: %v; behind: %t", err, c.Behind())
		}
	})
}

// When the watch of Leases is silent, so are most others, also one that has brought something just
// after the last Lease. Those that have brought something of late are left alone.
func TestSilenceOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := contact.New(time.Now)
		open := func(url string) (events io.ReadCloser, send *io.PipeWriter) {
			arriving, send := io.Pipe()
			return ask(t, c, url, transport{code: 200, body: arriving}).Body, send
		}
		leases, _ := open("https://kubernetes/apis/coordination.k8s.io/v1/namespaces/x/leases?watch=true")
		pods, _ := open(podWatch)
		silent, sendOnce := open("https://kubernetes/api/v1/namespaces/x/events?watch=true")
		time.AfterFunc(time.Second, func() { _, _ = io.WriteString(sendOnce, "an event") })
		others, send := open("https://kubernetes/api/v1/namespaces/x/services?watch=true")
		time.AfterFunc(contact.LeasesSilentAfter-time.Second, func() { _, _ = io.WriteString(send, "an event") })
		ended := make(chan time.Duration, 4)
		began := time.Now()
		for _, events := range []io.Reader{leases, pods, silent, others} {
			go func() {
				_, _ = io.Copy(io.Discard, events)
				ended <- time.Since(began)
			}()
		}
		time.Sleep(contact.SilentAfter)
		if len(ended) != 3 || <-ended != contact.LeasesSilentAfter || <-ended != contact.LeasesSilentAfter || <-ended != contact.LeasesSilentAfter {
			t.Errorf("%d more watches have ended, want those of Leases, pods and Events after %s", len(ended), contact.LeasesSilentAfter)
		}
		_, _ = send.Close(), sendOnce.Close()
	})
}

// An event is passed on when it arrives, whatever follows it, and an end only after what came
// before it. A watch ends in the same way, whatever breaks it.
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
	if got, err = read(); got != "" || err != io.EOF {
		t.Errorf("got %q, %v after the end", got, err)
	}
	if now = now.Add(time.Second); c.Age() == 0 {
		t.Error("the end of the watch is not noticed")
	}
}
