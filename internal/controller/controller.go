// Package controller runs reconcilers as Kubernetes' own controllers do: events put
// keys into a rate-limited work queue, and workers reconcile one key at a time. The
// keys are names of templates.
//
// It does not know what is done for a template, nor the Kubernetes API.
package controller

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
)

// Deps are what a Controller needs.
type Deps struct {
	// Subject names what is reconciled, for the log: "warm pool".
	Subject string
	// Workers is how many keys are reconciled at the same time.
	Workers int
	// FirstRetry and LongestRetry bound the wait before a key is reconciled again
	// after an error. Each wait is twice as long as the one before.
	FirstRetry, LongestRetry time.Duration
	// Queues is told of the work queue, under the subject as its name, such as warm_pool;
	// nil for nobody.
	Queues workqueue.MetricsProvider
	Log    *slog.Logger
}

// Reconcile brings what a key names into its wanted state. again is when the key is
// to be reconciled without an event; 0 means never. After an error the key is retried.
type Reconcile func(ctx context.Context, key string) (again time.Duration, err error)

// Controller reconciles during terms of leading.
type Controller struct {
	deps Deps

	mu    sync.Mutex
	queue workqueue.TypedRateLimitingInterface[string] // of the last term; nil before the first
}

// New returns a Controller that does nothing until Run.
func New(deps Deps) *Controller { return &Controller{deps: deps} }

// Enqueue schedules a key to be reconciled soon. It never blocks. While no term runs it does
// nothing: a term begins with every key there is.
func (c *Controller) Enqueue(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.queue != nil {
		c.queue.Add(key) // a queue that is shut down drops it
	}
}

// Run reconciles for one term of leading: until ctx is done. keys returns all keys
// there are at its start. When Run returns, nothing of it is running.
func (c *Controller) Run(ctx context.Context, keys func() []string, reconcile Reconcile) {
	queue := workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](c.deps.FirstRetry, c.deps.LongestRetry),
		workqueue.TypedRateLimitingQueueConfig[string]{Name: strings.ReplaceAll(c.deps.Subject, " ", "_"), MetricsProvider: c.deps.Queues})
	c.mu.Lock()
	c.queue = queue // before the keys are read, so that no change is missed in between
	c.mu.Unlock()
	for _, key := range keys() {
		queue.Add(key)
	}
	var running sync.WaitGroup
	for range c.deps.Workers {
		running.Go(func() { c.work(ctx, queue, reconcile) })
	}
	<-ctx.Done()
	queue.ShutDown()
	running.Wait()
}

// work reconciles keys until the queue is shut down. What is still queued then is
// left to the next leader.
func (c *Controller) work(ctx context.Context, queue workqueue.TypedRateLimitingInterface[string], reconcile Reconcile) {
	for {
		key, stopped := queue.Get()
		if stopped {
			return
		}
		if ctx.Err() == nil {
			c.process(ctx, queue, key, reconcile)
		}
		queue.Done(key)
	}
}

func (c *Controller) process(ctx context.Context, queue workqueue.TypedRateLimitingInterface[string], key string, reconcile Reconcile) {
	again, err := reconcile(ctx, key)
	if err != nil {
		if ctx.Err() == nil { // else the end of the term is the cause
			c.deps.Log.ErrorContext(ctx, c.deps.Subject+" not reconciled, will retry", "template", key, "error", err)
		}
		queue.AddRateLimited(key)
		return
	}
	queue.Forget(key)
	if again > 0 {
		queue.AddAfter(key, again)
	}
}
