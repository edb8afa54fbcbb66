package contact_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/contact"
)

// The time is the API server's, if that differs, and goes on between its answers.
func TestClock(t *testing.T) {
	local := time.Now()
	clock := contact.NewClock(func() time.Time { return local })
	// answer makes a request that takes a while. The API server's clock is ahead of the local one.
	answer := func(ahead, took time.Duration) {
		transport := roundTrip(func(*http.Request) (*http.Response, error) {
			local = local.Add(took)
			header := http.Header{"Date": {local.Add(ahead).UTC().Format(http.TimeFormat)}}
			return &http.Response{StatusCode: 200, Header: header, Body: &body{}}, nil
		})
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://kubernetes/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := clock.Watch(transport).RoundTrip(r); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, ahead time.Duration) {
		t.Helper()
		if got := clock.Now().Sub(local.Round(0)); got > ahead || got < ahead-time.Second {
			t.Errorf("%s: the clock is %s ahead, want %s, to the second", what, got, ahead)
		}
	}
	want("before any answer", 0)
	answer(time.Second, 0)
	want("the clocks agree", 0)
	answer(2*time.Hour, 2*time.Second)
	want("too slow to tell", 0)
	answer(2*time.Hour, time.Millisecond)
	want("the API server is ahead", 2*time.Hour)
	local = local.Add(time.Hour)
	want("an hour later", 2*time.Hour)
	answer(-2*time.Hour, 0)
	want("the API server is behind", -2*time.Hour)
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
