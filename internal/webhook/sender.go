// Package webhook tells a receiver of an operator's choice what becomes of instances:
// launched, ready, failed, ended. It posts CloudEvents, signed as Standard Webhooks says.
//
// Each event is told at least once, as long as the process lives and the receiver is back
// within an hour: a receiver drops repeats by the id. It must never hold up what it tells
// of, and never know why that happens.
package webhook

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"
)

const (
	// maxQueued bounds the events that wait, for their first try or another one. Each takes
	// some 500 bytes, and at most some 2 KiB more for its message.
	maxQueued = 10_000
	// workers is how many deliveries are tried at the same time.
	workers = 4
	// flushTimeout bounds the deliveries at the end of the process. It must not be longer
	// than the last write of activity may take, which happens at the same time.
	flushTimeout = 10 * time.Second
)

// Results of deliveries, as a label of a metric.
const (
	resultOK      = "ok"      // the receiver has the event
	resultRetried = "retried" // a try failed, and there will be another
	resultRefused = "refused" // the receiver does not want it
	resultDropped = "dropped" // it was given up: no room, an hour of failures, the end of the process
)

// Results are the results of deliveries.
func Results() []string { return []string{resultOK, resultRetried, resultRefused, resultDropped} }

// Metrics counts what a Sender does.
type Metrics interface {
	WebhookDelivered(result string) // one of Results
	WebhookQueued(events int)
}

// Deps are what a Sender needs.
type Deps struct {
	URL string
	// Key signs the deliveries.
	Key []byte
	// Namespace is that of the instances. It is in the source of the events.
	Namespace string
	UserAgent string
	// Ended returns the tombstones of all instances that have ended.
	Ended   func() []*corev1.Event
	Metrics Metrics
	// Log is told of each delivery that fails, so it should be sparse.
	Log *slog.Logger
	Now func() time.Time
	// Random returns numbers from 0 to 1, which spread tries out. Several goroutines call it.
	Random func() float64
}

// Sender delivers events. Its methods may be called at the same time. Run and ReportEnds of a
// nil Sender, which has no receiver, do nothing.
type Sender struct {
	deps   Deps
	client *http.Client

	mu sync.Mutex
	// queue hands out the deliveries that are due. It has no bound of its own: waiting has.
	// It is nil before Run.
	queue    workqueue.TypedDelayingInterface[*delivery]
	waiting  map[*delivery]struct{} // all that are not done with
	stopping bool                   // nothing is tried again, and nothing is taken any more
	emptied  chan struct{}          // closed when stopping and nothing waits
}

// delivery is an event that is to be delivered. Only the worker that has it from the queue
// changes it.
type delivery struct {
	event    event
	queued   time.Time
	failures int
}

// New returns a Sender. It takes events at once, and delivers them in Run.
func New(deps Deps) *Sender {
	return &Sender{deps: deps, client: newClient(), waiting: map[*delivery]struct{}{}, emptied: make(chan struct{})}
}

// send queues an event, or drops it if there is no room.
func (s *Sender) send(e event) {
	if !s.offer(e, maxQueued) {
		s.drop(e, "no room in the queue")
	}
}

// offer queues an event if fewer than limit are waiting. It reports whether it did.
func (s *Sender) offer(e event, limit int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping || len(s.waiting) >= limit {
		return false
	}
	d := &delivery{event: e, queued: s.deps.Now()}
	s.waiting[d] = struct{}{}
	if s.queue != nil {
		s.queue.Add(d)
	}
	s.deps.Metrics.WebhookQueued(len(s.waiting))
	return true
}

// Run delivers events until ctx is done. Then it tries each event that waits once more,
// within flushTimeout. When it returns, nothing of it is running. It runs once.
func (s *Sender) Run(ctx context.Context) {
	if s == nil {
		return
	}
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	queue := workqueue.NewTypedDelayingQueue[*delivery]()
	s.begin(queue)
	var working sync.WaitGroup
	for range workers {
		working.Go(func() { s.work(sending, queue) })
	}
	<-ctx.Done()
	s.flush()
	cancel()
	queue.ShutDown()
	working.Wait()
	s.client.CloseIdleConnections()
	s.mu.Lock()
	defer s.mu.Unlock()
	for d := range s.waiting {
		delete(s.waiting, d)
		s.drop(d.event, "the process ends")
	}
	s.deps.Metrics.WebhookQueued(0)
}

// begin queues what has come before.
func (s *Sender) begin(queue workqueue.TypedDelayingInterface[*delivery]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = queue
	for d := range s.waiting {
		queue.Add(d)
	}
}

// flush makes all that waits due, and waits until each has been tried.
func (s *Sender) flush() {
	s.mu.Lock()
	s.stopping = true
	for d := range s.waiting {
		s.queue.Add(d)
	}
	s.tellEmptied()
	s.mu.Unlock()
	select {
	case <-s.emptied:
	case <-time.After(flushTimeout):
	}
}

// tellEmptied is called with the lock when something has changed that flush waits for.
func (s *Sender) tellEmptied() {
	if !s.stopping || len(s.waiting) > 0 {
		return
	}
	select {
	case <-s.emptied:
	default:
		close(s.emptied)
	}
}

// work delivers what is due, until the queue is shut down.
func (s *Sender) work(ctx context.Context, queue workqueue.TypedDelayingInterface[*delivery]) {
	for {
		d, stopped := queue.Get()
		if stopped {
			return
		}
		if ctx.Err() == nil && s.waits(d) { // flush can have queued it twice
			s.deliver(ctx, d)
		}
		queue.Done(d)
	}
}

func (s *Sender) waits(d *delivery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, waits := s.waiting[d]
	return waits
}

// deliver tries a delivery once, and says what becomes of it.
func (s *Sender) deliver(ctx context.Context, d *delivery) {
	tried := s.try(ctx, d.event)
	if ctx.Err() != nil {
		return // what is left over is dropped by Run
	}
	log := s.deps.Log.With("event", d.event.kind, "pod", d.event.name)
	switch {
	case tried.err == nil:
		s.deps.Metrics.WebhookDelivered(resultOK)
		log.DebugContext(ctx, "event delivered")
	case tried.final:
		s.deps.Metrics.WebhookDelivered(resultRefused)
		log.WarnContext(ctx, "an event was refused by the receiver of the webhook, and is dropped", "error", tried.err)
	case s.retry(d, tried.wait):
		s.deps.Metrics.WebhookDelivered(resultRetried)
		log.WarnContext(ctx, "an event was not delivered to the receiver of the webhook, will be tried again", "error", tried.err)
		return
	default:
		s.drop(d.event, tried.err.Error())
	}
	s.done(d)
}

// retry schedules another try, after wait at the earliest, unless it is too late for that.
func (s *Sender) retry(d *delivery, wait time.Duration) bool {
	d.failures++
	wait = max(wait, backoff(d.failures, s.deps.Random()))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping || s.deps.Now().Add(wait).Sub(d.queued) > giveUpRetries {
		return false
	}
	s.queue.AddAfter(d, wait)
	return true
}

// done forgets a delivery.
func (s *Sender) done(d *delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, d)
	s.deps.Metrics.WebhookQueued(len(s.waiting))
	s.tellEmptied()
}

// drop counts an event that is given up.
func (s *Sender) drop(e event, why string) {
	s.deps.Metrics.WebhookDelivered(resultDropped)
	s.deps.Log.Warn("an event was dropped, the receiver of the webhook does not get it", "event", e.kind, "pod", e.name, "why", why)
}
