// Package queue gives places to launches that wait for one: those beyond the limit of their
// template, or of all instances together.
//
// An instance that waits is a pod with a scheduling gate, or one that was claimed from a pool and
// has a label, so the queue is in the cluster like everything else. The leader alone gives places,
// in order of age, by a write that names the version of the pod. So the limits hold across
// replicas. A new leader reads the pods anew before it gives the first place.
//
// It must never know HTTP, and never creates or deletes a pod: an instance that nobody waits for
// any more is ended by the culler.
package queue

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podstore"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

const (
	// takeover is how long a new leader waits before it reads the pods: a write of the leader
	// before it, which takes at most kube.CreateTimeout, may be under way.
	takeover = kube.CreateTimeout + time.Second
	// lookAgain is how soon the leader looks again while somebody waits. Else it looks when an
	// instance begins to wait.
	lookAgain = time.Second
	// passPause is the least time between two looks while somebody waits: each counts all instances.
	passPause = 20 * time.Millisecond
	// keptFor is how long places are remembered for those who ask. With thousands who wait, it
	// costs something to count them.
	keptFor = time.Second
	// pageSize is how many pods are read at once.
	pageSize = 500
)

// Pods is the part of client-go's pod client that a Queue uses.
type Pods interface {
	kube.PodPatcher
	List(ctx context.Context, opts metav1.ListOptions) (*corev1.PodList, error)
}

// Cache is what a Queue asks of the read model.
type Cache interface {
	podtemplate.Source
	// Pod returns the pod of an instance.
	Pod(id string) (*corev1.Pod, bool)
	// Queued reports whether an instance waits for a place.
	Queued(id string) bool
	// EachRecord returns the records of all pods, with own writes.
	EachRecord() []*podstore.Record
	// OnInstance calls updated with the id of an instance for every version of its pod, and gone
	// with the last one.
	OnInstance(updated func(id string), gone func(*corev1.Pod)) error
	// Wrote adds what a write has returned, or a read that was not the watch's.
	Wrote(pod *corev1.Pod)
}

// Deps are what a Queue needs.
type Deps struct {
	Pods         Pods
	Cache        Cache
	MaxInstances int // in all; 0 means no limit
	Paused       bool
	// Leads reports whether this replica is sure to be the leader still: it has just renewed
	// its Lease.
	Leads func() bool
	// Touch is told that somebody has asked about an instance that waits.
	Touch func(id string, source instance.Source)
	// Admitted is told of an instance that has got a place, and how long it has waited.
	Admitted func(template string, waited time.Duration)
	Log      *slog.Logger
	Now      func() time.Time
}

// Queue knows who waits for a place. The leader's gives places.
type Queue struct {
	deps    Deps
	changed chan struct{} // an element: look again
	waits   atomic.Bool   // somebody waited at the last look

	mu    sync.Mutex
	at    time.Time
	ahead map[string]int // as Decide returned it then
}

// New returns a Queue. It must be called before the cache runs.
func New(deps Deps) (*Queue, error) {
	q := &Queue{deps: deps, changed: make(chan struct{}, 1)}
	return q, deps.Cache.OnInstance(func(id string) { q.wake(deps.Cache.Queued(id)) }, func(*corev1.Pod) { q.wake(false) })
}

// wake makes the leader look again, if an instance waits.
func (q *Queue) wake(waits bool) {
	if !waits && !q.waits.Load() {
		return
	}
	select {
	case q.changed <- struct{}{}:
	default:
	}
}

// Answer returns what somebody is told who asks about an instance. One that waits keeps its place by
// that, and they are told how many get a place before it.
func (q *Queue) Answer(inst instance.Instance) instance.Instance {
	if inst.Reason != instance.ReasonQueued {
		return inst
	}
	q.deps.Touch(inst.ID, instance.SourceQueue)
	if ahead, known := q.places()[inst.ID]; known {
		inst.Message = instance.QueuedMessage(ahead)
	}
	return inst
}

// places returns for each instance that waits how many get a place before it.
func (q *Queue) places() map[string]int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now := q.deps.Now(); q.ahead == nil || now.Sub(q.at).Abs() > keptFor {
		_, q.ahead = Decide(q.look(context.Background()))
		q.at = now
	}
	return q.ahead
}

// Waiting returns how many instances wait for a place.
func (q *Queue) Waiting() int {
	waiting, _ := q.look(context.Background())
	return len(waiting)
}

// look returns who waits, and how much room there is, as far as this replica knows. An instance
// that has failed holds its place until it is deleted or its pod says so: nobody knows of one
// whose start took too long whether it runs.
func (q *Queue) look(ctx context.Context) (waiting []Waiting, room Room) {
	room = Room{Most: q.deps.MaxInstances, Paused: q.deps.Paused, HeldOf: map[string]int{}, MostOf: q.mostOf(ctx)}
	for _, r := range q.deps.Cache.EachRecord() {
		switch {
		case !r.IsInstance || r.IsDeleting || r.Status().Over():
		case r.IsQueued:
			waiting = append(waiting, Waiting{r.ID, r.Template(), r.Launched()})
		default:
			room.Held++
			room.HeldOf[r.Template()]++
		}
	}
	return waiting, room
}

// mostOf returns Room.MostOf. A template of the registry has no limit, and neither has one that is
// gone. If the limit is invalid, nobody gets a place until it is mended.
func (q *Queue) mostOf(ctx context.Context) func(string) (int, bool) {
	type limit struct {
		most    int
		limited bool
	}
	known := map[string]limit{}
	return func(name string) (int, bool) {
		l, ok := known[name]
		if !ok {
			if template, err := q.deps.Cache.Template(ctx, name); err == nil {
				if l.most, l.limited, err = podtemplate.MaxInstances(template); err != nil {
					l = limit{0, true}
				}
			}
			known[name] = l
		}
		return l.most, l.limited
	}
}

// Run gives places for one term of leading: until ctx is done.
func (q *Queue) Run(ctx context.Context) {
	if !q.takeOver(ctx) {
		return
	}
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.changed:
		case <-look.C:
		}
		if q.pass(ctx) {
			look.Reset(lookAgain)
			time.Sleep(passPause)
		}
	}
}

// takeOver makes the cache have every place that the leader before has given. It reports false
// if the term has ended before that.
func (q *Queue) takeOver(ctx context.Context) bool {
	for wait := takeover; ; wait = lookAgain {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
		err := q.readPods(ctx)
		if err == nil {
			return true
		}
		q.deps.Log.WarnContext(ctx, "the pods could not be read, so those who wait get no place yet; will be tried again", "error", err)
	}
}

// readPods reads all pods from the API server as they are now: the watch may be late.
func (q *Queue) readPods(ctx context.Context) error {
	opts := metav1.ListOptions{LabelSelector: instance.Selector().String(), Limit: pageSize}
	for {
		page, err := q.readPage(ctx, opts)
		if err != nil {
			return err
		}
		for i := range page.Items {
			q.deps.Cache.Wrote(&page.Items[i])
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			return nil
		}
	}
}

func (q *Queue) readPage(ctx context.Context, opts metav1.ListOptions) (*corev1.PodList, error) {
	ctx, cancel := context.WithTimeout(ctx, kube.WriteTimeout)
	defer cancel()
	return q.deps.Pods.List(ctx, opts)
}

// pass gives all places that are free. It reports whether somebody waits after that.
func (q *Queue) pass(ctx context.Context) (wait bool) {
	q.waits.Store(true) // so that a change after the look counts
	waiting, room := q.look(ctx)
	admitted, ahead := Decide(waiting, room)
	var left atomic.Int64
	workqueue.ParallelizeUntil(ctx, kube.Writers, len(admitted), func(i int) {
		if !q.admit(ctx, admitted[i]) {
			left.Add(1)
		}
	})
	wait = len(ahead) > 0 || left.Load() > 0
	q.waits.Store(wait)
	return wait
}

// admit gives an instance its place. Nothing is written once the term may be over: the next
// leader could give the same place to another. It reports whether it has one.
func (q *Queue) admit(ctx context.Context, w Waiting) bool {
	pod, exists := q.deps.Cache.Pod(w.ID)
	if !exists || ctx.Err() != nil || !q.deps.Leads() {
		return false
	}
	now := q.deps.Now()
	metadata, spec := instance.Admission(pod, now)
	writing, cancel := context.WithTimeout(ctx, kube.CreateTimeout)
	defer cancel()
	log := q.deps.Log.With("pod", pod.Name, "template", w.Template)
	switch written, err := kube.PatchPod(writing, q.deps.Pods, pod, metadata, spec); {
	case err == nil:
		q.deps.Cache.Wrote(written)
		q.deps.Admitted(w.Template, max(0, now.Sub(w.Since)))
		return true
	case apierrors.IsConflict(err), apierrors.IsNotFound(err): // it has changed, or has ended
	default:
		log.WarnContext(ctx, "an instance that waits was not given its place, will be tried again", "error", err)
	}
	return false
}
