package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// The load is steady and small: two processors carry the cluster, the service and the load.
const (
	template      = "faults"
	usedSlots     = 4                      // instances that are in use at any time
	usedTimeout   = 30 * time.Second       // their cull timeout
	shortTimeout  = 6 * time.Second        // of the others
	churn         = 2 * time.Second        // between two launches of the others
	useEvery      = 400 * time.Millisecond // between two uses of an instance
	pollEvery     = 2 * time.Second        // between two questions about an instance, at each replica
	patience      = 5 * time.Second        // until a request counts as failed
	startPatience = 90 * time.Second       // until an instance that is not deployed is given up
)

// Load uses the service as its users do, and notes in a ledger what it did and what it was
// answered.
type Load struct {
	ledger *Ledger
	suite  *harness.Suite
	api    harness.API
	visits *http.Client
	now    func() time.Time

	running sync.WaitGroup
	mu      sync.Mutex
	random  *rand.Rand
	last    map[Kind]outcome
	slots   map[int]time.Time // when each slot's instance was last used
	sockets sockets
}

// outcome is when a kind of request last succeeded and last failed.
type outcome struct{ succeeded, failed time.Time }

// sockets counts how WebSockets ended that the load did not end.
type sockets struct{ closed, cut int }

// NewLoad returns a load that does nothing yet.
func NewLoad(suite *harness.Suite, ledger *Ledger, seed uint64) *Load {
	return &Load{
		ledger: ledger, suite: suite, api: suite.API, now: time.Now,
		// One connection for each request, so that each can reach any replica.
		visits: &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}},
		random: rand.New(rand.NewPCG(seed, 1)), last: map[Kind]outcome{}, slots: map[int]time.Time{},
	}
}

// Run keeps the load up until ctx is done, and returns when its last request has ended.
func (l *Load) Run(ctx context.Context) {
	for slot := range usedSlots {
		l.running.Go(func() { l.keepSlotUsed(ctx, slot) })
	}
	l.running.Go(func() { l.launchOthers(ctx) })
	l.running.Go(func() { l.poll(ctx) })
	l.running.Wait()
}

// note counts a request. A request that ended because ctx is done is not counted.
func (l *Load) note(ctx context.Context, kind Kind, failure string) {
	if failure != "" && ctx.Err() != nil {
		return
	}
	l.ledger.Count(kind, failure)
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.last[kind]
	if failure == "" {
		o.succeeded = l.now()
	} else {
		o.failed = l.now()
	}
	l.last[kind] = o
}

// Well returns since when nothing has failed, at the earliest from a time on. well is false if
// that is not long enough, or something has not succeeded since.
func (l *Load) Well(from time.Time, quiet time.Duration) (since time.Time, well bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	since = from
	for _, o := range l.last {
		since = later(since, o.failed)
	}
	for _, kind := range Kinds() {
		if !l.last[kind].succeeded.After(since) {
			return since, false
		}
	}
	for slot := range usedSlots {
		if !l.slots[slot].After(since) {
			return since, false
		}
	}
	return since, l.now().Sub(since) >= quiet
}

// describeLast says when each kind of request last succeeded and failed.
func (l *Load) describeLast() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for _, kind := range Kinds() {
		o := l.last[kind]
		all = append(all, fmt.Sprintf("%s: last success %s, last failure %s", kind, o.succeeded.Format(time.TimeOnly), o.failed.Format(time.TimeOnly)))
	}
	return strings.Join(all, "; ")
}

// TakeSockets returns how many WebSockets ended since the last call: closed by a close frame,
// and cut without one.
func (l *Load) TakeSockets() (closed, cut int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	closed, cut = l.sockets.closed, l.sockets.cut
	l.sockets = sockets{}
	return closed, cut
}

// launch launches an instance, and repeats a launch that was not answered, with the same
// idempotency key, as a careful client does. ok is false if it was given up.
func (l *Load) launch(ctx context.Context, plan Plan, timeout time.Duration) (id string, ok bool) {
	l.mu.Lock()
	key := fmt.Sprintf("faults-%016x%016x", l.random.Uint64(), l.random.Uint64())
	l.mu.Unlock()
	body, _ := json.Marshal(map[string]any{"template-name": template, "cull-timeout": timeout.Milliseconds()})
	for range 3 {
		launched := l.now()
		answer, err := l.try(ctx, http.MethodPost, "/applications/", string(body), "Idempotency-Key", key)
		failure := failureOf(answer.Code, err)
		l.note(ctx, Launches, failure)
		if failure == "" {
			var status harness.Status
			if err := json.Unmarshal(answer.Body, &status); err != nil {
				l.ledger.Complain("a launch was answered with %q", answer.Body)
				return "", false
			}
			l.ledger.Launched(Entry{ID: status.ID, Template: template, Plan: plan, Timeout: timeout, Launched: launched})
			return status.ID, true
		}
		if !pause(ctx, time.Second) {
			return "", false
		}
	}
	return "", false
}

// try sends a request to the API. It takes no longer than the load's patience.
func (l *Load) try(ctx context.Context, method, path, body string, header ...string) (harness.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return l.api.Try(ctx, method, path, body, append(header, "Authorization", l.api.Key())...)
}

// launchOthers launches instances that are culled or stopped.
func (l *Load) launchOthers(ctx context.Context) {
	for n := 0; pause(ctx, churn); n++ {
		plan := Idle
		if n%3 == 0 {
			plan = Stopped
		}
		l.running.Go(func() {
			id, ok := l.launch(ctx, plan, shortTimeout)
			if !ok || !l.awaitDeployed(ctx, id) {
				return
			}
			l.visit(ctx, id)
			if plan == Stopped {
				l.stop(ctx, id)
			}
		})
	}
}

// stop stops an instance. A stop that is not answered is repeated, and the instance counts as
// stopped from the first time on.
func (l *Load) stop(ctx context.Context, id string) {
	asked := l.now()
	for range 3 {
		answer, err := l.try(ctx, http.MethodDelete, "/applications/"+template+"/"+id, "")
		failure := failureOf(answer.Code, err)
		l.note(ctx, Stops, failure)
		l.ledger.Change(id, func(e *Entry) { e.Left = asked })
		if failure == "" || !pause(ctx, time.Second) {
			return
		}
	}
	// Nobody has said that it is stopped. It is culled at the latest.
	l.ledger.Change(id, func(e *Entry) { e.Plan, e.Left = Idle, time.Time{} })
}

// awaitDeployed polls until an instance is deployed. It reports false if it is not in time.
func (l *Load) awaitDeployed(ctx context.Context, id string) bool {
	for until := l.now().Add(startPatience); l.now().Before(until); {
		answer, err := l.try(ctx, http.MethodGet, "/applications/"+template+"/"+id, "")
		failure := failureOf(answer.Code, err)
		l.note(ctx, Polls, failure)
		var status harness.Status
		if failure == "" && json.Unmarshal(answer.Body, &status) == nil {
			switch status.Status {
			case "deployed":
				l.ledger.Change(id, func(e *Entry) { e.Deployed = l.now() })
				return true
			case "failed", "deleted":
				l.ledger.Complain("%s is %s before it was deployed: %s %s", id, status.Status, status.Reason, status.Message)
				return false
			}
		}
		if !pause(ctx, 200*time.Millisecond) {
			return false
		}
	}
	return false
}

// failureOf names what was wrong with a request, in a few words; "" if nothing was.
func failureOf(code int, err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case err != nil:
		return shortError(err)
	case code >= 200 && code < 300:
		return ""
	}
	return fmt.Sprint(code)
}

// pause waits, and reports false if ctx was done before.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
