package pool

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
	"k8s.io/client-go/util/workqueue"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

const (
	// poolTick is how often pools are looked at for what comes by time alone: the
	// end of a pause, a pod that does not start. All else wakes them at once.
	poolTick = time.Second
	// UnseenTimeout is how long a created pod counts that the watch has not brought.
	UnseenTimeout = 30 * time.Second
)

// Cache is what a pool asks the read model.
type Cache interface {
	WarmPods(template string) []*corev1.Pod
	WarmTemplates() []string
	PodTemplates() []*corev1.PodTemplate
	ManagedPod(name string) (*corev1.Pod, bool)
	OnWarm(changed func(template string)) error
}

// Pool keeps warm pods of the templates that ask for it. It runs on the elected
// leader.
type Pool struct {
	pods         typedcorev1.PodInterface
	Cluster      Cache
	startTimeout time.Duration
	Metrics      *metrics.Metrics
	log          *slog.Logger
	Now          func() time.Time
	random       io.Reader

	changed chan struct{} // something has; several changes may be one receive
}

// New makes a pool. random is where ids come from.
func New(pods typedcorev1.PodInterface, cluster Cache, startTimeout time.Duration,
	metrics *metrics.Metrics, log *slog.Logger, now func() time.Time, random io.Reader) (*Pool, error) {
	p := &Pool{
		pods: pods, Cluster: cluster, startTimeout: startTimeout,
		Metrics: metrics, log: log, Now: now, random: random,
		changed: make(chan struct{}, 1),
	}
	return p, cluster.OnWarm(func(string) { p.wake() })
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
	states := map[string]*PoolState{}
	for ctx.Err() == nil {
		p.Pass(ctx, states)
		select {
		case <-ctx.Done():
		case <-p.changed:
		case <-ticker.C:
		}
	}
}

// PoolState is what is remembered of a template's pool from pass to pass, while
// leading: what was done and the watch has not shown yet, and what failed.
type PoolState struct {
	failures PoolFailures
	warned   string // what was complained about

	mu       sync.Mutex           // of what is written to while carrying out a plan
	Creating map[string]time.Time // by pod name: created then, not seen yet
	Deleted  map[types.UID]string // the names of pods that still seem to be there
	refused  error                // why the last pod was refused in this pass
	failed   error                // of the last write in this pass that failed by no fault of the template
	resting  time.Time            // until then nothing is written, after such a failure
}

// Pass looks at every pool once and does what planPool says, all of it at the
// same time.
func (p *Pool) Pass(ctx context.Context, states map[string]*PoolState) {
	now := p.Now()
	var work []func()
	for name, template := range p.templates(states) {
		state := states[name]
		if state == nil {
			state = &PoolState{Creating: map[string]time.Time{}, Deleted: map[types.UID]string{}}
			states[name] = state
		}
		view := p.View(ctx, name, template, state, now)
		if view.Size == 0 && len(view.Pods)+len(state.Deleted)+len(state.Creating) == 0 && state.warned == "" {
			delete(states, name)
			continue
		}
		if now.Before(state.resting) {
			continue
		}
		plan := PlanPool(view, now, p.startTimeout)
		p.noteFailures(ctx, name, state, plan.Failures, nil)
		for _, removal := range plan.Remove {
			work = append(work, func() { p.Remove(ctx, removal, state) })
		}
		for range plan.Create {
			pod, err := p.newPod(template)
			if err != nil {
				state.refused = err
				break
			}
			work = append(work, func() { p.create(ctx, pod, state) })
		}
	}
	workqueue.ParallelizeUntil(ctx, kube.Writers, len(work), func(i int) {
		if ctx.Err() == nil { // else no longer ours to do
			work[i]()
		}
	})
	for name, state := range states {
		if ctx.Err() != nil {
			return
		}
		if state.refused != nil {
			p.noteFailures(ctx, name, state, state.failures.And(p.Now()), state.refused)
		}
		if state.failed != nil { // one line for all: while the API server is away they all fail
			state.resting = p.Now().Add(FirstPause)
			p.log.ErrorContext(ctx, "warm pool not kept, will be tried again", "template", name, "pause", FirstPause.String(), "error", state.failed)
		}
		state.refused, state.failed = nil, nil
	}
}

// templates returns the templates that have, had or should have a pool, by
// name; nil for one that is gone.
func (p *Pool) templates(states map[string]*PoolState) map[string]*corev1.PodTemplate {
	templates := map[string]*corev1.PodTemplate{}
	for name := range states {
		templates[name] = nil
	}
	for _, name := range p.Cluster.WarmTemplates() {
		templates[name] = nil
	}
	for _, template := range p.Cluster.PodTemplates() {
		_, tracked := templates[template.Name]
		if _, pooled := template.Annotations[instance.PoolSizeAnnotation]; tracked || pooled {
			templates[template.Name] = template
		}
	}
	return templates
}

// View gathers what planPool goes by, and forgets what the watch has shown.
func (p *Pool) View(ctx context.Context, name string, template *corev1.PodTemplate, state *PoolState, now time.Time) PoolView {
	view := PoolView{Failures: state.failures}
	if template != nil {
		view.Size, view.Hash = p.size(ctx, template, state), podtemplate.Hash(template)
	} else {
		state.warned = ""
	}
	for pod, created := range state.Creating {
		if _, seen := p.Cluster.ManagedPod(pod); seen || now.Sub(created) > UnseenTimeout {
			delete(state.Creating, pod)
		}
	}
	for uid, pod := range state.Deleted {
		if seen, there := p.Cluster.ManagedPod(pod); !there || seen.UID != uid || seen.DeletionTimestamp != nil {
			delete(state.Deleted, uid)
		}
	}
	for _, pod := range p.Cluster.WarmPods(name) {
		if _, deleted := state.Deleted[pod.UID]; !deleted {
			view.Pods = append(view.Pods, pod)
		}
	}
	view.Creating = len(state.Creating)
	return view
}

// size is how many pods a template wants warm. One that does not say it right
// is warned about once, and has no pool.
func (p *Pool) size(ctx context.Context, template *corev1.PodTemplate, state *PoolState) int {
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
func (p *Pool) noteFailures(ctx context.Context, name string, state *PoolState, failures PoolFailures, err error) {
	if failures.Last.After(state.failures.Last) {
		p.Metrics.PoolFailed()
		log := p.log.With("template", name, "in a row", failures.Count, "pause", failures.Pause().String())
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
	pod, err := podtemplate.NewPod(template, id)
	if err != nil {
		return nil, &podtemplate.Error{Template: template.Name, Err: err}
	}
	pod.Labels[instance.PoolLabel] = instance.PoolWarm
	return pod, nil
}

// create adds a pod to a pool.
func (p *Pool) create(ctx context.Context, pod *corev1.Pod, state *PoolState) {
	ctx, cancel := context.WithTimeout(ctx, kube.WriteTimeout)
	defer cancel()
	_, err := p.pods.Create(ctx, pod, metav1.CreateOptions{FieldManager: instance.ManagerName})
	state.mu.Lock()
	defer state.mu.Unlock()
	switch {
	case err == nil, apierrors.IsAlreadyExists(err): // by an attempt that got lost: the id is random
		state.Creating[pod.Name] = p.Now()
		p.log.DebugContext(ctx, "warm pod created", "id", pod.Labels[instance.IDLabel], "template", instance.TemplateOf(pod))
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		state.refused = fmt.Errorf("create warm pod %s: %w", pod.Name, err) // by a quota, validation, pod security
	default:
		state.failed = fmt.Errorf("create warm pod %s: %w", pod.Name, err)
	}
}

// Remove deletes a warm pod, but not one that has changed since it was looked
// at: it may have been claimed. Nobody has known it, so nobody remembers it.
func (p *Pool) Remove(ctx context.Context, removal PoolRemoval, state *PoolState) {
	ctx, cancel := context.WithTimeout(ctx, kube.WriteTimeout)
	defer cancel()
	pod := removal.Pod
	log := p.log.With("id", pod.Labels[instance.IDLabel], "template", instance.TemplateOf(pod), "reason", removal.Reason)
	only := metav1.NewUIDPreconditions(string(pod.UID))
	only.ResourceVersion = &pod.ResourceVersion
	err := p.pods.Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: only})
	state.mu.Lock()
	defer state.mu.Unlock()
	switch {
	case err == nil, apierrors.IsNotFound(err):
		state.Deleted[pod.UID] = pod.Name
		if removal.Reason == removeFailed {
			_, _, message := instance.DeriveStatus(pod, p.Now(), p.startTimeout)
			log = log.With("message", message)
		}
		log.InfoContext(ctx, "warm pod deleted")
	case apierrors.IsConflict(err):
		log.DebugContext(ctx, "warm pod not deleted: it has changed since it was looked at")
	default:
		state.failed = fmt.Errorf("delete warm pod %s: %w", pod.Name, err)
	}
}
