// Package earlyready finds out that a starting instance listens before the kubelet
// reports it.
//
// The kubelet probes a port once a second. While a client waits for an instance,
// this replica dials the port as well, and more often, so that the client does not
// have to wait for the kubelet. The package dials only pods that are Ready as soon as
// their port is open; for all others the kubelet decides.
//
// It does not know clients, the read model or the API server.
package earlyready

import (
	"context"
	"net"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const (
	// dialTimeout bounds one attempt. A pod whose network is up accepts or refuses a
	// connection at once.
	dialTimeout = 250 * time.Millisecond
	// The pause between two attempts is a share of the time since the first one, so
	// that it makes a launch at most a twentieth longer. The bounds keep a loop from
	// dialing more than 200 times a second at first, and 10 times a second later.
	pauseShare    = 20
	shortestPause = 5 * time.Millisecond
	longestPause  = 100 * time.Millisecond
)

// Deps are what a Dialer needs.
type Deps struct {
	// Awaited returns the pod of an instance, as long as a client waits for that
	// instance. It must not call the Dialer.
	Awaited func(id string) (*corev1.Pod, bool)
	// Found is called with a pod that was just found to listen.
	Found func(pod *corev1.Pod)
	// Dial opens a TCP connection to host:port and closes it. Nil does that over the
	// network.
	Dial func(ctx context.Context, address string) error
}

// Dialer knows which starting instances listen. It keeps that knowledge until the
// pod is Ready, has failed or is gone. Its methods may be called at the same time.
type Dialer struct {
	deps Deps
	// The loops run until ctx is done, or nobody waits for their instance.
	ctx   context.Context
	stop  context.CancelFunc
	loops sync.WaitGroup

	mu        sync.Mutex
	dialed    map[string]bool      // by id: whether a loop runs
	listening map[string]types.UID // by id: the UID of the pod that listens
}

// New returns a Dialer that dials nothing yet. Close ends it.
func New(d Deps) *Dialer {
	if d.Dial == nil {
		d.Dial = dialTCP
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Dialer{deps: d, ctx: ctx, stop: stop, dialed: map[string]bool{}, listening: map[string]types.UID{}}
}

// Close stops dialing and returns when the last attempt has ended.
func (d *Dialer) Close() {
	d.mu.Lock()
	d.stop()
	d.mu.Unlock()
	d.loops.Wait()
}

// Listens reports whether a pod that is not Ready was found to listen, and needs
// nothing else to be Ready.
func (d *Dialer) Listens(pod *corev1.Pod) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return needsOnlyPort(pod) && d.known(pod)
}

// Knows reports whether a pod of an instance was found to listen. Listens tells whether that
// still counts.
func (d *Dialer) Knows(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.listening[id]
	return ok
}

// known reports whether a pod was found to listen. The lock must be held.
func (d *Dialer) known(pod *corev1.Pod) bool {
	uid, ok := d.listening[pod.Labels[instance.IDLabel]]
	return ok && uid == pod.UID
}

// Watch dials an instance until it listens or nobody waits for it any more, in the
// background. However many clients wait for an instance, one loop dials it.
func (d *Dialer) Watch(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.target(id); ok && !d.dialed[id] {
		d.dialed[id] = true
		d.loops.Go(func() { d.dialUntilListening(id) })
	}
}

// target returns the pod that is to be dialed for an instance. The lock must be
// held.
func (d *Dialer) target(id string) (*corev1.Pod, bool) {
	pod, ok := d.deps.Awaited(id)
	return pod, ok && d.ctx.Err() == nil && needsOnlyPort(pod) && !d.known(pod)
}

func (d *Dialer) dialUntilListening(id string) {
	began := time.Now()
	for pod, ok := d.next(id); ok; pod, ok = d.next(id) {
		if d.accepts(pod) && d.remember(id, pod) {
			d.deps.Found(pod)
			continue // to the end of the loop, unless another pod has replaced this one
		}
		select {
		case <-time.After(min(max(time.Since(began)/pauseShare, shortestPause), longestPause)):
		case <-d.ctx.Done():
		}
	}
}

// next returns the pod to dial, or marks the loop as ended. Both happen under one
// lock, so that Watch sees either a loop that will dial again, or none.
func (d *Dialer) next(id string) (*corev1.Pod, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	pod, ok := d.target(id)
	if !ok {
		delete(d.dialed, id)
	}
	return pod, ok
}

func (d *Dialer) accepts(pod *corev1.Pod) bool {
	ctx, cancel := context.WithTimeout(d.ctx, dialTimeout)
	defer cancel()
	return d.deps.Dial(ctx, instance.PodAddress(pod)) == nil
}

// remember notes that a pod listens, unless it was deleted or replaced while it was
// dialed: nothing would forget it again.
func (d *Dialer) remember(id string, dialed *corev1.Pod) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	pod, ok := d.target(id)
	if !ok || pod.UID != dialed.UID {
		return false
	}
	d.listening[id] = pod.UID
	return true
}

// Observe takes a new version of a pod, and forgets that the pod listens once the
// pod's own status tells.
func (d *Dialer) Observe(pod *corev1.Pod) {
	if !needsOnlyPort(pod) {
		d.Forget(pod.Labels[instance.IDLabel])
	}
}

// Forget drops what is known of an instance. It must be called when the pod is gone.
func (d *Dialer) Forget(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.listening, id)
}

func dialTCP(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}
