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
	"sync/atomic"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// The load is steady and small: two processors carry the cluster, the service and the load.
const (
	template      = "faults"
	pooled        = "faults-pooled"        // the same, from a warm pool while it has pods
	poolSize      = 3                      // of it
	usedSlots     = 4                      // instances that are in use at any time
	usedTimeout   = 30 * time.Second       // their cull timeout
	steadyTimeout = 7 * time.Minute        // that of one of them
	shortTimeout  = 6 * time.Second        // of the others
	churn         = 2 * time.Second        // between two launches of the others, if starts take no longer than 3 s
	slowestChurn  = 8 * time.Second        // the same at most
	churning      = 8                      // of the others that are not deployed yet, at most
	useEvery      = 400 * time.Millisecond // between two uses of an instance
	pollEvery     = 2 * time.Second        // between two questions about an instance, at each replica
	patience      = 10 * time.Second       // until a request counts as failed
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
	// otherVersion says that another version of the service answers than docs/openapi.json is of.
	otherVersion atomic.Bool
	// unsure is what replicas may not know at present; nil if they know all.
	unsure atomic.Pointer[unsure]
	// forgets is when those that ended may not be remembered; nil if all must be. Its end is zero
	// while it lasts.
	forgets atomic.Pointer[span]

	running sync.WaitGroup
	mu      sync.Mutex
	random  *rand.Rand
	bytes   *rand.ChaCha8
	last    map[Kind]outcome
	slots   map[int]time.Time // when each slot's instance was last used
	starts  time.Duration     // what starts of the others took lately, but those of warm pods
	sockets sockets
}

// outcome is when a kind of request last succeeded and last failed.
type outcome struct{ succeeded, failed time.Time }

// sockets are the WebSockets that the load did not end: how many were closed by a close frame,
// and which were cut without one.
type sockets struct {
	closed int
	cut    []string
}

// NewLoad returns a load that does nothing yet.
func NewLoad(suite *harness.Suite, ledger *Ledger, seed uint64) *Load {
	return &Load{
		ledger: ledger, suite: suite, api: suite.API, now: time.Now,
		// One connection for each request, so that each can reach any replica.
		visits: &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}},
		random: rand.New(rand.NewPCG(seed, 1)), bytes: rand.NewChaCha8([32]byte{}), last: map[Kind]outcome{}, slots: map[int]time.Time{},
	}
}

// Run keeps the load up until ctx is done, and returns when its last request has ended.
func (l *Load) Run(ctx context.Context) {
	for slot := range usedSlots {
		l.running.Go(func() { l.keepSlotUsed(ctx, slot) })
	}
	l.running.Go(func() { l.launchOthers(ctx) })
	l.running.Go(func() { l.poll(ctx) })
	l.running.Go(func() { l.WatchPods(ctx) })
	l.running.Wait()
}

// note counts a request. A request that ended because ctx is done is not counted.
func (l *Load) note(ctx context.Context, kind Kind, failure string, of ...string) {
	if failure != "" && ctx.Err() != nil {
		return
	}
	l.ledger.Count(kind, failure, strings.Join(append(of, "at "+l.now().Format(time.TimeOnly)), " "))
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

// noteOf is note for a request about an instance. Nobody promises that one about an edited
// instance succeeds.
func (l *Load) noteOf(ctx context.Context, id string, kind Kind, failure string) {
	entry := l.ledger.Entry(id)
	if failure != "" && entry.Edited {
		return
	}
	if kind != Stops {
		failure += l.unsure.Load().refusal(kind, entry, failure, l.now())
	}
	l.note(ctx, kind, failure, id, "launched at", entry.Launched.Format(time.TimeOnly))
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

// TakeSockets returns the WebSockets that have ended since the last call.
func (l *Load) TakeSockets() (since sockets) {
	l.mu.Lock()
	defer l.mu.Unlock()
	since, l.sockets = l.sockets, sockets{}
	return since
}

// launch launches an instance of a template, and repeats a launch that was not answered. It does so
// with the same idempotency key, as a careful client does, but for those of the template pooled:
// such a launch claims no warm pod. ok is false if it was given up.
func (l *Load) launch(ctx context.Context, template string, plan Plan, timeout time.Duration) (id string, ok bool) {
	var header []string
	if template != pooled {
		l.mu.Lock()
		header = []string{"Idempotency-Key", fmt.Sprintf("faults-%016x%016x", l.random.Uint64(), l.random.Uint64())}
		l.mu.Unlock()
	}
	body, _ := json.Marshal(map[string]any{"template-name": template, "cull-timeout": timeout.Milliseconds()})
	for range 3 {
		launched := l.now()
		answer, err := l.try(ctx, http.MethodPost, "/applications/", string(body), header...)
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
	return l.described(l.api).Try(ctx, method, path, body, append(header, "Authorization", l.api.Key())...)
}

// described returns a client that compares answers with docs/openapi.json, if that is of the
// version that answers.
func (l *Load) described(api harness.API) harness.API {
	if l.otherVersion.Load() {
		return api.OfOtherVersion()
	}
	return api
}

// launchOthers launches instances that are culled or stopped. It waits while many start, or starts
// take long: on a machine that cannot keep up, ever more would start ever more slowly, and what is
// seen would be of the machine.
func (l *Load) launchOthers(ctx context.Context) {
	starting := make(chan struct{}, churning)
	for n := 0; pause(ctx, l.pace()); n++ {
		plan, of := Idle, template
		if n%3 == 0 {
			plan = Stopped
		}
		if n%4 < 2 {
			of = pooled
		}
		starting <- struct{}{}
		l.running.Go(func() {
			defer func() { <-starting }()
			launched := l.now()
			id, ok := l.launch(ctx, of, plan, shortTimeout)
			if !ok || !l.awaitDeployed(ctx, of, id) {
				return
			}
			if of == template {
				l.noteStart(l.now().Sub(launched))
			}
			l.visit(ctx, id)
			if plan == Stopped {
				l.stop(ctx, of, id)
			}
		})
	}
}

// pace returns how long to wait before the next launch of the others.
func (l *Load) pace() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return min(max(churn, l.starts*2/3), slowestChurn)
}

// noteStart notes what a start took.
func (l *Load) noteStart(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.starts = (l.starts + took) / 2
}

// stop stops an instance. A stop that is not answered is repeated, and the instance counts as
// stopped from the first time on.
func (l *Load) stop(ctx context.Context, template, id string) {
	asked := l.now()
	l.ledger.Change(id, func(e *Entry) { e.Asked = asked })
	for range 3 {
		answer, err := l.try(ctx, http.MethodDelete, "/applications/"+template+"/"+id, "")
		failure := failureOf(answer.Code, err)
		l.noteOf(ctx, id, Stops, failure)
		l.ledger.Change(id, func(e *Entry) { e.Left = asked })
		if failure == "" || !pause(ctx, time.Second) {
			return
		}
	}
	// Nobody has said that it is stopped. It is culled at the latest.
	l.ledger.Change(id, func(e *Entry) { e.Plan, e.Left = Idle, time.Time{} })
}

// awaitDeployed polls until an instance is deployed. It reports false if it is not in time.
func (l *Load) awaitDeployed(ctx context.Context, template, id string) bool {
	for until := l.now().Add(startPatience); l.now().Before(until); {
		answer, err := l.try(ctx, http.MethodGet, "/applications/"+template+"/"+id, "")
		failure := failureOf(answer.Code, err)
		l.noteOf(ctx, id, Polls, failure)
		var status harness.Status
		if failure == "" && json.Unmarshal(answer.Body, &status) == nil {
			switch status.Status {
			case "deployed":
				l.ledger.Change(id, func(e *Entry) { e.Deployed = l.now() })
				return true
			case "failed", "deleted":
				if l.ledger.Excused(status.Reason) || l.ledger.Entry(id).Edited {
					return false
				}
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

const noAnswer = "no answer in time"

// failureOf names what was wrong with a request, in a few words; "" if nothing was.
func failureOf(code int, err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return noAnswer
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
