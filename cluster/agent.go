package main

import (
	"fmt"
	"net/http"
	"time"

	"k8s.io/client-go/kubernetes"
)

// askAgain is how often a process that serves the node asks an API server that is away.
const askAgain = time.Second

// agentClient returns a client for a process that serves the node for as long as it runs. While
// the API server is away, it asks again each second. Informers by themselves wait for up to a
// minute, and as long, new pods would be unknown: network policies would let nobody reach them.
func (c *cluster) agentClient() (kubernetes.Interface, error) {
	_, config, err := c.client()
	if err != nil {
		return nil, err
	}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return untilAnswered{next, askAgain} })
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("create an API client: %w", err)
	}
	return client, nil
}

// untilAnswered sends a request that only reads again and again, until it is answered or its
// context is done.
type untilAnswered struct {
	next  http.RoundTripper
	pause time.Duration
}

// RoundTrip sends one request.
func (u untilAnswered) RoundTrip(r *http.Request) (*http.Response, error) {
	for {
		response, err := u.next.RoundTrip(r)
		if err == nil || r.Method != http.MethodGet {
			return response, err
		}
		select {
		case <-r.Context().Done():
			return nil, err
		case <-time.After(u.pause):
		}
	}
}
