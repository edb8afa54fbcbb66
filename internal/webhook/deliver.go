package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// The limits of one attempt and of its answer. Only the answer's code and Retry-After are used.
const (
	tryTimeout     = 10 * time.Second
	dialTimeout    = 5 * time.Second
	maxHeaderBytes = 16 << 10
	maxAnswerBytes = 4 << 10 // read so that the connection can be used again
)

// How long to wait before a delivery is tried again.
const (
	firstRetry    = time.Second
	longestRetry  = 5 * time.Minute
	longestAsked  = 10 * time.Minute // by Retry-After
	giveUpRetries = time.Hour        // since the event was queued
)

// newClient returns an HTTP client that goes to the receiver and nowhere else: it follows no
// redirects, and no proxy of the environment sees the events.
func newClient() *http.Client {
	return &http.Client{
		Timeout: tryTimeout,
		Transport: &http.Transport{
			Proxy:                  nil,
			DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout:    dialTimeout,
			MaxConnsPerHost:        workers,
			MaxIdleConnsPerHost:    workers,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: maxHeaderBytes,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// outcome is what came of one try.
type outcome struct {
	err   error // nil if the receiver has accepted the event
	final bool  // the receiver does not want the event, now or later
	wait  time.Duration
}

// try posts an event once. Its errors do not have the URL, which can hold a password.
func (s *Sender) try(ctx context.Context, e event) outcome {
	body, err := e.encode(s.deps.Namespace)
	if err != nil {
		return outcome{err: err, final: true}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.deps.URL, bytes.NewReader(body))
	if err != nil {
		return outcome{err: errors.New("the URL cannot be used"), final: true}
	}
	now := s.deps.Now()
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("User-Agent", s.deps.UserAgent)
	setSignature(request.Header, s.deps.Key, e.id(), now, body)
	response, err := s.client.Do(request)
	if err != nil {
		if wrapped := new(url.Error); errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return outcome{err: err}
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, maxAnswerBytes) // the code says it all
	return judge(response.StatusCode, response.Header.Get("Retry-After"), now)
}

// judge says what an answer means. A receiver that asks for time gets it. Redirects are not
// followed: they are refusals, as are most answers that blame the request.
func judge(code int, retryAfter string, now time.Time) outcome {
	if code >= 200 && code < 300 {
		return outcome{}
	}
	passing := code >= 500 ||
		slices.Contains([]int{http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests}, code)
	return outcome{err: fmt.Errorf("the receiver answered %d", code), final: !passing, wait: asked(retryAfter, now)}
}

// asked reads a Retry-After, which is seconds or a date. Without one that can be read it
// returns 0.
func asked(retryAfter string, now time.Time) time.Duration {
	var wait time.Duration
	if n, err := strconv.Atoi(retryAfter); err == nil {
		wait = time.Duration(min(n, int(longestAsked/time.Second))) * time.Second
	} else if at, err := http.ParseTime(retryAfter); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), longestAsked)
}

// backoff returns how long to wait after some failed tries, at least one: twice as long after
// each, of which random, from 0 to 1, takes off up to a half. So what failed together is not
// tried together.
func backoff(failures int, random float64) time.Duration {
	wait := longestRetry
	if failures < 10 { // else it is longer anyway, and would overflow at last
		wait = min(wait, firstRetry<<(failures-1))
	}
	return wait - time.Duration(random*float64(wait/2))
}
