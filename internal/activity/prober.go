package activity

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
)

// mostProbes is how many applications are asked at the same time. Each can take all its
// attempts, so 32 that are silent on purpose delay the next by about eight seconds.
const mostProbes = 32

// ProberDeps are what a Prober needs.
type ProberDeps struct {
	// Pods writes to the pods of instances, and Wrote tells the read model of it.
	Pods  kube.PodPatcher
	Wrote func(pod *corev1.Pod)
	// Rules say how long ago work may be.
	Rules lifetime.Rules
	// Probed counts a question, by its result: one of ProbeResults.
	Probed func(result string)
	// Log is told what applications say, and of writes that fail.
	Log *slog.Logger
	Now func() time.Time
}

// Prober asks applications whether they are at work, in the background, so that a slow
// application delays nobody's end but its own.
type Prober struct {
	deps    ProberDeps
	slots   chan struct{}
	running sync.WaitGroup

	mu    sync.Mutex
	asked map[types.UID]bool // pods whose question waits or is under way
}

// NewProber returns a Prober that asks nothing yet.
func NewProber(deps ProberDeps) *Prober {
	return &Prober{deps: deps, slots: make(chan struct{}, mostProbes), asked: map[types.UID]bool{}}
}

// Go calls ask in the background, once there is room, and unless ctx is done before. A pod
// has one question at a time: further ones are dropped.
func (p *Prober) Go(ctx context.Context, pod *corev1.Pod, ask func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked[pod.UID] {
		return
	}
	p.asked[pod.UID] = true
	p.running.Go(func() {
		defer p.forget(pod.UID)
		select {
		case p.slots <- struct{}{}:
			defer func() { <-p.slots }()
			ask()
		case <-ctx.Done():
		}
	})
}

func (p *Prober) forget(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.asked, uid)
}

// Wait returns when no question is left.
func (p *Prober) Wait() { p.running.Wait() }

// AtWork reports whether the application of an instance that nobody has used says that it is
// or was at work. What it says is written to the pod: from then on, the instance was used then.
func (p *Prober) AtWork(ctx context.Context, pod *corev1.Pod) bool {
	result, active, asked := Probe(ctx, pod, p.deps.Rules, p.deps.Now)
	if !asked {
		return false
	}
	p.deps.Probed(string(result))
	log := p.deps.Log.With("pod", pod.Name, "template", instance.TemplateOf(pod), "probe", result)
	if active.IsZero() {
		log.DebugContext(ctx, "idle, and its application is not at work")
		return false
	}
	switch written, err := Write(ctx, p.deps.Pods, pod, active, instance.SourceProbe); {
	case err == nil:
		p.deps.Wrote(written)
		log.InfoContext(ctx, "not culled: its application is or was at work", "active", instance.FormatTime(active))
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
	default:
		log.ErrorContext(ctx, "not culled: its application is or was at work, which could not be written", "error", err)
	}
	return true
}

// HasProbe reports whether a pod names a probe, valid or not.
func HasProbe(pod *corev1.Pod) bool { return pod.Annotations[instance.ActivityProbeAnnotation] != "" }
