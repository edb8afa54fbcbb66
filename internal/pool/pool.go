// Package pool keeps warm pods: pods of a template that run before anybody asks
// for them, so that a launch can claim one. It is a Kubernetes controller, which
// the elected leader runs; its work queue is keyed by the name of the template.
//
// It must never touch an instance: once a pod is claimed, the pool leaves it alone.
package pool

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

const (
	// workers is how many templates are reconciled at the same time.
	workers = 4
	// firstRetry and longestRetry bound the wait before a template is reconciled
	// again after an error of the API server. Each wait is twice as long as the one
	// before. The longest is short, because launches are slower until the pool is
	// back.
	firstRetry   = time.Second
	longestRetry = 5 * time.Second
)

// Cache is what a Pool asks the read model.
type Cache interface {
	podtemplate.Source
	PodTemplates() []*corev1.PodTemplate
	// WarmPods returns a template's warm pods, own writes included.
	WarmPods(template string) []*corev1.Pod
	// WarmTemplates returns the names of the templates that have warm pods.
	WarmTemplates() []string
	// OnWarm calls changed with the name of a template when the template or one of
	// its warm pods changes. It must be called before the cache runs.
	OnWarm(changed func(template string)) error
	// Wrote adds what a write has returned. A pod whose deletion was accepted is
	// given with its deletion time set.
	Wrote(pod *corev1.Pod)
}

// PodWriter is the part of client-go's pod client that a Pool uses.
type PodWriter interface {
	Create(ctx context.Context, pod *corev1.Pod, opts metav1.CreateOptions) (*corev1.Pod, error)
	Delete(ctx context.Context, name string, opts metav1.DeleteOptions) error
}

// Metrics counts what happens to pools.
type Metrics interface {
	// PoolFailed counts a pool that stopped growing because its pods fail.
	PoolFailed()
}

// Deps are what a Pool needs.
type Deps struct {
	Pods  PodWriter
	Cache Cache
	// StartTimeout is how long a warm pod may take to become ready.
	StartTimeout time.Duration
	Metrics      Metrics
	Log          *slog.Logger
	Now          func() time.Time
	// Random is where ids come from. It must allow concurrent use.
	Random io.Reader
}

// Pool keeps the warm pods of all templates that ask for some.
type Pool struct {
	deps Deps

	mu    sync.Mutex
	queue workqueue.TypedRateLimitingInterface[string] // of the last term; nil before the first
}

// New returns a Pool that does nothing until Run. It must be called before the cache
// runs.
func New(deps Deps) (*Pool, error) {
	p := &Pool{deps: deps}
	return p, deps.Cache.OnWarm(p.enqueue)
}

// enqueue has a template reconciled soon. While not leading it does nothing: the
// queue is shut down then, and a term begins with every template there is.
func (p *Pool) enqueue(template string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.queue != nil {
		p.queue.Add(template)
	}
}

// Run keeps the pools for one term of leading: until ctx is done. When it returns,
// nothing of it is running.
func (p *Pool) Run(ctx context.Context) {
	t := &term{
		deps: p.deps,
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, longestRetry)),
		remembered: map[string]memory{},
	}
	p.mu.Lock()
	p.queue = t.queue
	p.mu.Unlock()
	p.enqueueAll()
	var running sync.WaitGroup
	for range workers {
		running.Go(func() { t.work(ctx) })
	}
	<-ctx.Done()
	t.queue.ShutDown()
	running.Wait()
}

// enqueueAll has every template reconciled that has warm pods or asks for some.
func (p *Pool) enqueueAll() {
	for _, template := range p.deps.Cache.PodTemplates() {
		if _, ok := template.Annotations[instance.PoolSizeAnnotation]; ok {
			p.enqueue(template.Name)
		}
	}
	for _, template := range p.deps.Cache.WarmTemplates() {
		p.enqueue(template)
	}
}

// term is one term of leading. What it remembers ends with it.
type term struct {
	deps  Deps
	queue workqueue.TypedRateLimitingInterface[string]

	mu         sync.Mutex
	remembered map[string]memory // by template
}

// memory is what is remembered of a template's pool from one reconcile to the next.
type memory struct {
	failures failures
	problem  string // of the pool-size annotation, as it was last logged
}

func (t *term) recall(template string) memory {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.remembered[template]
}

func (t *term) remember(template string, m memory) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.failures.count == 0 && m.problem == "" {
		delete(t.remembered, template)
		return
	}
	t.remembered[template] = m
}

// work reconciles templates until the queue is shut down. What is still queued then
// is left to the next leader.
func (t *term) work(ctx context.Context) {
	for {
		template, stopped := t.queue.Get()
		if stopped {
			return
		}
		if ctx.Err() == nil {
			t.process(ctx, template)
		}
		t.queue.Done(template)
	}
}

func (t *term) process(ctx context.Context, template string) {
	err := t.reconcile(ctx, template)
	if err == nil {
		t.queue.Forget(template)
		return
	}
	if ctx.Err() == nil {
		t.deps.Log.ErrorContext(ctx, "warm pool not reconciled, will retry", "template", template, "error", err)
	}
	t.queue.AddRateLimited(template)
}
