// Package queue gives places to launches that wait for one: those beyond the limit of their
// template, or of all instances together.
//
// An instance that waits is a pod with a scheduling gate, or one that was claimed from a pool and
// has a label, so the queue is in the cluster like everything else. The leader alone gives places,
// in order of age, by a write that names the version of the pod. So the limits hold across
// replicas. A new leader reads the pods again before it gives the first place.
//
// It must never know HTTP, and never creates or deletes a pod: an instance that nobody waits for
// any more is ended by the culler.
package queue

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
	passPause = 100 * time.Millisecond
	// refusedPause is how long an instance gets no place whose admission the API server has refused:
	// others come first meanwhile.
	refusedPause = 30 * time.Second
	// keptFor is how long places are remembered for clients that ask. With thousands of waiting
	// instances, it costs something to count them.
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
	// Sure reports whether this replica is the leader still, and its picture of the pods is up to
	// date. Nobody gets a place otherwise.
	Sure func() bool
	// CutOff reports whether this replica has no contact with the API server.
	CutOff func() bool
	// AskedWithin is how long ago somebody must have asked about an instance for it to get a place.
	// It must be longer than it takes until a question is written.
	AskedWithin time.Duration
	// MaxAge is how long the instance of a pod may live; 0 means no limit.
	MaxAge func(pod *corev1.Pod) time.Duration
	// Touch is told that somebody has asked about an instance that waits.
	Touch func(id string, source instance.Source)
	// Admitted is told of an instance that has got a place, and how long it has waited.
	Admitted func(template string, waited time.Duration)
	Log      *slog.Logger
	Now      func() time.Time
}

// Queue knows which instances wait for a place. The leader's admits them.
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
// that, and they are told how many get a place before it. A replica that is cut off cannot see to
// that, so it knows of none that waits: another one does.
func (q *Queue) Answer(inst instance.Instance, known bool) (instance.Instance, bool) {
	switch {
	case inst.Reason != instance.ReasonQueued:
		return inst, known
	case q.deps.CutOff():
		return instance.Instance{Unsure: true}, false
	}
	q.deps.Touch(inst.ID, instance.SourceQueue)
	if ahead, waits := q.places()[inst.ID]; waits {
		inst.Message = instance.QueuedMessage(ahead)
	}
	return inst, known
}

// places returns for each instance that waits how many get a place before it.
func (q *Queue) places() map[string]int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now := q.deps.Now(); q.ahead == nil || now.Sub(q.at).Abs() > keptFor {
		waiting, room := q.look(context.Background())
		waiting = slices.DeleteFunc(waiting, func(w Waiting) bool { return q.hasLeft(w, now) })
		q.ahead, q.at = Decide(waiting, room).Ahead, now
	}
	return q.ahead
}

// hasLeft reports whether nobody has asked about an instance for so long that it gets no place.
func (q *Queue) hasLeft(w Waiting, now time.Time) bool {
	return !w.asked.IsZero() && now.Sub(w.asked) > q.deps.AskedWithin
}

// Waiting returns how many instances wait for a place.
func (q *Queue) Waiting() int {
	waiting, _ := q.look(context.Background())
	return len(waiting)
}

// WaitingForTemplate returns how many of them wait for a place of their template, and keep nobody
// else waiting.
func (q *Queue) WaitingForTemplate() int {
	return Decide(q.look(context.Background())).ForTemplate
}

// look returns the waiting instances, and how much room there is, as far as this replica knows.
func (q *Queue) look(ctx context.Context) (waiting []Waiting, room Room) {
	room = Room{Most: q.deps.MaxInstances, Paused: q.deps.Paused, HeldOf: map[string]int{}, MostOf: q.mostOf(ctx)}
	for _, r := range q.deps.Cache.EachRecord() {
		switch {
		case !r.IsInstance || r.IsDeleting || !r.MayRun():
		case r.IsQueued:
			waiting = append(waiting, waitingOf(r))
		default:
			room.hold(r.Template())
		}
	}
	return waiting, room
}

// waitingOf returns what is known of an instance that waits. Its pod was created for it if it has
// the gate.
func waitingOf(r *podstore.Record) Waiting {
	w := Waiting{
		ID: r.ID, Template: r.Template(), Since: r.Launched().Truncate(time.Second), Launched: r.Launched(),
		asked: r.LastActivity, version: r.GetResourceVersion(),
	}
	if r.IsGated {
		w.Since = r.Created
	}
	return w
}

// mostOf returns Room.MostOf. A template of the registry has no limit. That of one which is gone is
// on the pod, as it was at the launch. If it is invalid, nobody gets a place until it is mended.
func (q *Queue) mostOf(ctx context.Context) func(Waiting) (int, bool) {
	type limit struct {
		most           int
		limited, known bool
	}
	known := map[string]limit{}
	return func(w Waiting) (int, bool) {
		l, ok := known[w.Template]
		if !ok {
			if template, err := q.deps.Cache.Template(ctx, w.Template); err == nil {
				l.known = true
				if l.most, l.limited, err = podtemplate.MaxInstances(template); err != nil {
					l.most, l.limited = 0, true
				}
			}
			known[w.Template] = l
		}
		if pod, exists := q.deps.Cache.Pod(w.ID); !l.known && exists {
			return instance.QueuedMost(pod)
		}
		return l.most, l.limited
	}
}
