package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

const (
	// poolTick is how often pools are looked at for what comes by time alone: the
	// end of a pause, a pod that does not start. All else wakes them at once.
	poolTick = time.Second
	// unseenTimeout is how long a created pod counts that the watch has not brought.
	unseenTimeout = 30 * time.Second
)

// Cache is what a pool asks the read model.
type Cache interface {
	WarmPods(template string) []*corev1.Pod
	WarmTemplates() []string
	PodTemplates() []*corev1.PodTemplate
	ManagedPod(name string) (*corev1.Pod, bool)
	OnWarm(changed func()) error
}

// Pool keeps warm pods of the templates that ask for it. It runs on the elected
// leader.
type Pool struct {
	pods         typedcorev1.PodInterface
	cluster      Cache
	startTimeout time.Duration
	metrics      *metrics.Metrics
	log          *slog.Logger
	now          func() time.Time
	random       io.Reader

	changed chan struct{} // something has; several changes may be one receive
}

// NewPool makes a pool. random is where ids come from.
func NewPool(pods typedcorev1.PodInterface, cluster Cache, startTimeout time.Duration,
	metrics *metrics.Metrics, log *slog.Logger, now func() time.Time, random io.Reader) (*Pool, error) {
	p := &Pool{
		pods: pods, cluster: cluster, startTimeout: startTimeout,
		metrics: metrics, log: log, now: now, random: random,
		changed: make(chan struct{}, 1),
	}
	return p, cluster.OnWarm(p.wake)
}

func (p *Pool) wake() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Run keeps the pools until ctx is done.
func (p *Pool) Run(ctx context.Context) {
	ticker := time.NewTicker(poolTick)
	defer ticker.Stop()
	states := map[string]*poolState{}
	for ctx.Err() == nil {
		p.pass(ctx, states)
		select {
		case <-ctx.Done():
		case <-p.changed:
		case <-ticker.C:
		}
	}
}

// poolState is what is remembered of a template's pool from pass to pass, while
// leading: what was done and the watch has not shown yet, and what failed.
type poolState struct {
	failures poolFailures
	warned   string // what was complained about

	mu       sync.Mutex           // of what is written to while carrying out a plan
	creating map[string]time.Time // by pod name: created then, not seen yet
	deleted  map[types.UID]string // the names of pods that still seem to be there
	refused  error                // why the last pod was refused in this pass
	failed   error                // of the last write in this pass that failed by no fault of the template
	resting  time.Time            // until then nothing is written, after such a failure
}

// pass looks at every pool once and does what planPool says, all of it at the
// same time.
func (p *Pool) pass(ctx context.Context, states map[string]*poolState) {
	now := p.now()
	var work []func()
	for name, template := range p.templates(states) {
		state := states[name]
		if state == nil {
			state = &poolState{creating: map[string]time.Time{}, deleted: map[types.UID]string{}}
			states[name] = state
		}
		view := p.view(ctx, name, template, state, now)
		if view.size == 0 && len(view.pods)+len(state.deleted)+len(state.creating) == 0 && state.warned == "" {
			delete(states, name)
			continue
		}
		if now.Before(state.resting) {
			continue
		}
		plan := planPool(view, now, p.startTimeout)
		p.noteFailures(ctx, name, state, plan.failures, nil)
		for _, removal := range plan.remove {
			work = append(work, func() { p.remove(ctx, removal, state) })
		}
		for range plan.create {
			pod, err := p.newPod(template)
			if err != nil {
				state.refused = err
				break
			}
			work = append(work, func() { p.create(ctx, pod, state) })
		}
	}
	forEach(work, kube.Writers, func(do func()) {
		if ctx.Err() == nil { // else no longer ours to do
			do()
		}
	})
	for name, state := range states {
		if ctx.Err() != nil {
			return
		}
		if state.refused != nil {
			p.noteFailures(ctx, name, state, state.failures.and(p.now()), state.refused)
		}
		if state.failed != nil { // one line for all: while the API server is away they all fail
			state.resting = p.now().Add(firstPause)
			p.log.ErrorContext(ctx, "warm pool not kept, will be tried again", "template", name, "pause", firstPause.String(), "error", state.failed)
		}
		state.refused, state.failed = nil, nil
	}
}

// templates returns the templates that have, had or should have a pool, by
// name; nil for one that is gone.
func (p *Pool) templates(states map[string]*poolState) map[string]*corev1.PodTemplate {
	templates := map[string]*corev1.PodTemplate{}
	for name := range states {
		templates[name] = nil
	}
	for _, name := range p.cluster.WarmTemplates() {
		templates[name] = nil
	}
	for _, template := range p.cluster.PodTemplates() {
		_, tracked := templates[template.Name]
		if _, pooled := template.Annotations[instance.PoolSizeAnnotation]; tracked || pooled {
			templates[template.Name] = template
		}
	}
	return templates
}

// view gathers what planPool goes by, and forgets what the watch has shown.
func (p *Pool) view(ctx context.Context, name string, template *corev1.PodTemplate, state *poolState, now time.Time) poolView {
	view := poolView{failures: state.failures}
	if template != nil {
		view.size, view.hash = p.size(ctx, template, state), podtemplate.Hash(template)
	} else {
		state.warned = ""
	}
	for pod, created := range state.creating {
		if _, seen := p.cluster.ManagedPod(pod); seen || now.Sub(created) > unseenTimeout {
			delete(state.creating, pod)
		}
	}
	for uid, pod := range state.deleted {
		if seen, there := p.cluster.ManagedPod(pod); !there || seen.UID != uid || seen.DeletionTimestamp != nil {
			delete(state.deleted, uid)
		}
	}
	for _, pod := range p.cluster.WarmPods(name) {
		if _, deleted := state.deleted[pod.UID]; !deleted {
			view.pods = append(view.pods, pod)
		}
	}
	view.creating = len(state.creating)
	return view
}

// size is how many pods a template wants warm. One that does not say it right
// is warned about once, and has no pool.
func (p *Pool) size(ctx context.Context, template *corev1.PodTemplate, state *poolState) int {
	size, err := podtemplate.PoolSize(template)
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	if problem != "" && problem != state.warned {
		p.log.WarnContext(ctx, "template has no warm pool", "template", template.Name, "problem", problem)
	}
	state.warned = problem
	return size
}

// noteFailures keeps a pool's failures, and tells of a new one: once a pause.
func (p *Pool) noteFailures(ctx context.Context, name string, state *poolState, failures poolFailures, err error) {
	if failures.last.After(state.failures.last) {
		p.metrics.PoolFailed()
		log := p.log.With("template", name, "in a row", failures.count, "pause", failures.pause().String())
		if err != nil {
			log = log.With("error", err)
		}
		log.WarnContext(ctx, "warm pods fail, the pool does not grow for a while")
	}
	state.failures = failures
}

func (p *Pool) newPod(template *corev1.PodTemplate) (*corev1.Pod, error) {
	id, err := instance.NewID(p.random)
	if err != nil {
		return nil, err
	}
	pod, err := podtemplate.NewWarmPod(template, id)
	if err != nil {
		return nil, &podtemplate.Error{Template: template.Name, Err: err}
	}
	return pod, nil
}

// create adds a pod to a pool.
func (p *Pool) create(ctx context.Context, pod *corev1.Pod, state *poolState) {
	ctx, cancel := context.WithTimeout(ctx, kube.WriteTimeout)
	defer cancel()
	_, err := p.pods.Create(ctx, pod, metav1.CreateOptions{FieldManager: instance.ManagerName})
	state.mu.Lock()
	defer state.mu.Unlock()
	switch {
	case err == nil, apierrors.IsAlreadyExists(err): // by an attempt that got lost: the id is random
		state.creating[pod.Name] = p.now()
		p.log.DebugContext(ctx, "warm pod created", "id", pod.Labels[instance.IDLabel], "template", instance.TemplateOf(pod))
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		state.refused = fmt.Errorf("create warm pod %s: %w", pod.Name, err) // by a quota, validation, pod security
	default:
		state.failed = fmt.Errorf("create warm pod %s: %w", pod.Name, err)
	}
}

// remove deletes a warm pod, but not one that has changed since it was looked
// at: it may have been claimed. Nobody has known it, so nobody remembers it.
func (p *Pool) remove(ctx context.Context, removal poolRemoval, state *poolState) {
	ctx, cancel := context.WithTimeout(ctx, kube.WriteTimeout)
	defer cancel()
	pod := removal.pod
	log := p.log.With("id", pod.Labels[instance.IDLabel], "template", instance.TemplateOf(pod), "reason", removal.reason)
	only := metav1.NewUIDPreconditions(string(pod.UID))
	only.ResourceVersion = &pod.ResourceVersion
	err := p.pods.Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: only})
	state.mu.Lock()
	defer state.mu.Unlock()
	switch {
	case err == nil, apierrors.IsNotFound(err):
		state.deleted[pod.UID] = pod.Name
		if removal.reason == removeFailed {
			_, _, message := instance.DeriveStatus(pod, p.now(), p.startTimeout)
			log = log.With("message", message)
		}
		log.InfoContext(ctx, "warm pod deleted")
	case apierrors.IsConflict(err):
		log.DebugContext(ctx, "warm pod not deleted: it has changed since it was looked at")
	default:
		state.failed = fmt.Errorf("delete warm pod %s: %w", pod.Name, err)
	}
}
