package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// Limits of dial.
const (
	maxTargets  = 64
	dialTimeout = 2 * time.Second // for one target; a packet filter does not answer at all
)

// dial tries to reach each target, all at the same time, and answers with an object
// of the targets: "" if a target was reached, otherwise why it was not. A UDP target
// is reached if it answers a datagram.
func (a *app) dial(w http.ResponseWriter, r *http.Request) {
	targets := r.URL.Query()["to"]
	if len(targets) > maxTargets {
		http.Error(w, fmt.Sprintf("there are more than %d targets", maxTargets), http.StatusBadRequest)
		return
	}
	results := make([]string, len(targets))
	var group sync.WaitGroup
	for i, target := range targets {
		group.Go(func() {
			if err := reach(r.Context(), target); err != nil {
				results[i] = err.Error()
			}
		})
	}
	group.Wait()
	answer := map[string]string{}
	for i, target := range targets {
		answer[target] = results[i]
	}
	writeJSON(w, answer)
}

// reach connects to a target, such as tcp://192.0.2.1:80.
func reach(ctx context.Context, target string) error {
	parsed, err := url.Parse(target)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, parsed.Scheme, parsed.Host)
	if err != nil {
		return err
	}
	defer connection.Close()
	if parsed.Scheme != "udp" {
		return nil
	}
	deadline, _ := ctx.Deadline()
	if err := connection.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := connection.Write([]byte("?")); err != nil {
		return err
	}
	_, err = connection.Read(make([]byte, 1))
	return err
}
