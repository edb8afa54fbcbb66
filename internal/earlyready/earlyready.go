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
	// knockTimeout is for one attempt. A pod whose network is up refuses or
	// accepts at once; one whose is not says nothing.
	knockTimeout = 250 * time.Millisecond
	// The pause between two attempts grows with the wait, so that it adds a
	// twentieth to a launch and a slow one costs no more than ten attempts a second.
	ShortestKnockPause = 5 * time.Millisecond
	longestKnockPause  = 100 * time.Millisecond
	knockPauseShare    = 20
)

// Dialer knows which starting instances listen already. The kubelet looks
// once a second, and a client that waits would wait for that look; so for as
// long as somebody waits, this replica looks itself, by the very question that
// the kubelet asks: is there a connection to be had.
//
// What it has heard is forgotten when the pod is Ready or gone.
type Dialer struct {
	Dial func(ctx context.Context, address string) error

	mu       sync.Mutex
	knocking map[string]bool      // by id: there is a loop
	Heard    map[string]types.UID // by id: the pod that listens
}

func New() *Dialer {
	return &Dialer{Dial: DialTCP, knocking: map[string]bool{}, Heard: map[string]types.UID{}}
}

// Has reports whether a pod is known to listen.
func (l *Dialer) Has(pod *corev1.Pod) bool {
	if !startsListening(pod) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hasHeard(pod)
}

func (l *Dialer) hasHeard(pod *corev1.Pod) bool {
	uid, ok := l.Heard[pod.Labels[instance.IDLabel]]
	return ok && uid == pod.UID
}

// Knock has a loop ask an instance's pod until it listens: one loop, however
// many wait for it. current returns the pod as long as there is somebody to ask
// for; heard is called once it listens. It returns at once.
func (l *Dialer) Knock(id string, current func() (*corev1.Pod, bool), heard func(*corev1.Pod)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if pod, wanted := current(); !wanted || l.knocking[id] || !startsListening(pod) || l.hasHeard(pod) {
		return
	}
	l.knocking[id] = true
	go func() {
		began := time.Now()
		for pod, wanted := l.next(id, current); wanted; pod, wanted = l.next(id, current) {
			if l.answers(pod) && l.Note(id, pod, current) {
				heard(pod)
				continue // and thereby end: it need not be asked again
			}
			time.Sleep(min(max(time.Since(began)/knockPauseShare, ShortestKnockPause), longestKnockPause))
		}
	}()
}

// next returns the pod to ask, or ends the loop. Both are one step, so that who
// begins to wait now either finds the loop going on or starts another.
func (l *Dialer) next(id string, current func() (*corev1.Pod, bool)) (*corev1.Pod, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	pod, wanted := current()
	if wanted && startsListening(pod) && !l.hasHeard(pod) {
		return pod, true
	}
	delete(l.knocking, id)
	return nil, false
}

func (l *Dialer) answers(pod *corev1.Pod) bool {
	ctx, cancel := context.WithTimeout(context.Background(), knockTimeout)
	defer cancel()
	return l.Dial(ctx, instance.PodAddress(pod)) == nil
}

// Note remembers that a pod listens, if it is still the one that is there: what
// is remembered of one that has gone would stay for ever.
func (l *Dialer) Note(id string, pod *corev1.Pod, current func() (*corev1.Pod, bool)) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, wanted := current()
	if !wanted || now.UID != pod.UID || !startsListening(now) {
		return false
	}
	l.Heard[id] = pod.UID
	return true
}

// Observe forgets what the pod itself says by now.
func (l *Dialer) Observe(pod *corev1.Pod) {
	if !startsListening(pod) {
		l.Forget(pod.Labels[instance.IDLabel])
	}
}

func (l *Dialer) Forget(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.Heard, id)
}

// startsListening reports whether all that a pod is waiting for is that its port
// answers: its readiness probe is ours, and no container has ended yet. After a
// crash the kubelet has the say.
func startsListening(pod *corev1.Pod) bool {
	if pod.Annotations[instance.ReadyWhenAnnotation] != instance.ReadyWhenListening || pod.Status.PodIP == "" ||
		pod.DeletionTimestamp != nil || instance.IsReady(pod) {
		return false
	}
	if pod.Status.Phase != corev1.PodPending && pod.Status.Phase != corev1.PodRunning {
		return false
	}
	for _, status := range pod.Status.ContainerStatuses {
		if status.State.Terminated != nil || status.LastTerminationState.Terminated != nil {
			return false
		}
	}
	return true
}

func DialTCP(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}
