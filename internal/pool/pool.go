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

	"github.com/binder-project/binder-deploy-kubernetes/internal/controller"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

const (
	// workers is how many templates are reconciled at the same time: one, because the
	// writes of a template run kube.Writers at a time already.
	workers = 1
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
	// Launches tells what the size of a pool follows. Its warm pods include own writes.
	Launches
	// Warnings returns the Warning Events of a pod.
	Warnings(pod *corev1.Pod) []*corev1.Event
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
	PoolFailed(template string)
}

// Deps are what a Pool needs.
type Deps struct {
	Pods  PodWriter
	Cache Cache
	// StartTimeout is how long a warm pod may take to become ready.
	StartTimeout time.Duration
	Metrics      Metrics
	Queues       workqueue.MetricsProvider // of the work queue; nil for none
	Log          *slog.Logger
	Now          func() time.Time
	// Random is where ids and tokens come from. It must allow concurrent use.
	Random io.Reader
}

// Pool keeps the warm pods of all templates that ask for some.
type Pool struct {
	deps       Deps
	controller *controller.Controller
}

// New returns a Pool that does nothing until Run. It must be called before the cache
// runs.
func New(deps Deps) (*Pool, error) {
	p := &Pool{deps: deps, controller: controller.New(controller.Deps{
		Subject: "warm pool", Workers: workers, FirstRetry: firstRetry, LongestRetry: longestRetry, Queues: deps.Queues, Log: deps.Log,
	})}
	return p, deps.Cache.OnWarm(p.controller.Enqueue)
}

// Run keeps the pools for one term of leading: until ctx is done. When it returns,
// nothing of it is running.
func (p *Pool) Run(ctx context.Context) {
	t := &term{deps: p.deps, memories: map[string]memory{}}
	p.controller.Run(ctx, p.templates, t.reconcile)
}

// templates are the names of all templates that have warm pods or ask for some.
func (p *Pool) templates() []string {
	names := p.deps.Cache.WarmTemplates()
	for _, template := range p.deps.Cache.PodTemplates() {
		if _, ok := template.Annotations[instance.PoolSizeAnnotation]; ok {
			names = append(names, template.Name)
		}
	}
	return names
}

// term is one term of leading. What it remembers ends with it.
type term struct {
	deps Deps

	mu       sync.Mutex
	memories map[string]memory // by template; only those that count
}

// memory is what is remembered of a template's pool from one plan to the next.
type memory struct {
	failures failures
	demand   demand
	sized    sized
}

func (t *term) recall(template string) memory {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.memories[template]
}

func (t *term) remember(template string, m memory) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.failures.count == 0 && m.demand.load == 0 && len(m.demand.kept) == 0 && m.sized.at.IsZero() {
		delete(t.memories, template)
		return
	}
	t.memories[template] = m
}
