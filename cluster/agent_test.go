package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// awayFor is an API server that answers from some request on.
type awayFor struct{ asked, requests int }

func (a *awayFor) RoundTrip(*http.Request) (*http.Response, error) {
	if a.asked++; a.asked <= a.requests {
		return nil, errors.New("connection refused")
	}
	return httptest.NewRecorder().Result(), nil
}

func TestAgentsAskAgain(t *testing.T) {
	for name, row := range map[string]struct {
		method string
		asked  int
		fails  bool
	}{
		"a list":  {http.MethodGet, 4, false},
		"a write": {http.MethodPost, 1, true},
	} {
		server := &awayFor{requests: 3}
		response, err := untilAnswered{server, time.Microsecond}.RoundTrip(httptest.NewRequestWithContext(t.Context(), row.method, "/", nil))
		if err == nil {
			_ = response.Body.Close()
		}
		if (err != nil) != row.fails || server.asked != row.asked {
			t.Errorf("%s: asked %d times, %v", name, server.asked, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	if _, err := (untilAnswered{&awayFor{requests: 3}, time.Hour}).RoundTrip(r); err == nil { //nolint:bodyclose // an error comes without a body
		t.Error("it asks on, although nobody waits")
	}
}
