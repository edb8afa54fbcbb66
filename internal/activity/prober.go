package activity

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// mostProbes is how many applications are asked at the same time. Each can take all its
// attempts, so 32 that are silent on purpose delay the next by about eight seconds.
const mostProbes = 32

// Prober runs questions to applications in the background, so that a slow application
// delays nobody's end but its own.
type Prober struct {
	slots   chan struct{}
	running sync.WaitGroup

	mu    sync.Mutex
	asked map[types.UID]bool // pods whose question waits or is under way
}

// NewProber returns a Prober that asks nothing yet.
func NewProber() *Prober {
	return &Prober{slots: make(chan struct{}, mostProbes), asked: map[types.UID]bool{}}
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

// HasProbe reports whether a pod names a probe, valid or not.
func HasProbe(pod *corev1.Pod) bool { return pod.Annotations[instance.ActivityProbeAnnotation] != "" }
