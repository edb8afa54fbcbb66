package tombstone

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
)

// What a tombstone may cost the delete that waits for it.
const (
	tries    = 3
	pause    = 200 * time.Millisecond // between two tries
	patience = 5 * time.Second        // with all tries of one tombstone
	// After a tombstone that was not answered, the next ones are given little time for a
	// while: otherwise a sweep of many instances would take minutes.
	shortPatience = time.Second
	impatientFor  = 30 * time.Second
	// mostOwed bounds the ends that are kept for a second try.
	mostOwed = 1024
)

// writer says how often a tombstone is tried, and for how long. It keeps the ends that
// could not be written.
type writer struct {
	mu        sync.Mutex
	impatient time.Time // until when
	owed      map[types.UID]instance.End
}

// try calls write until it succeeds, is refused, or too much time has passed. It returns
// the last error.
func (w *writer) try(ctx context.Context, write func(context.Context) error) error {
	limit := w.limit()
	trying, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for n := 1; ; n++ {
		err := write(trying)
		if err == nil {
			w.setImpatient(time.Time{})
			return nil
		}
		if trying.Err() != nil && ctx.Err() == nil && limit == patience {
			w.setImpatient(time.Now().Add(impatientFor))
		}
		if n == tries || !kube.MayPass(err) || trying.Err() != nil {
			return err
		}
		select {
		case <-time.After(pause):
		case <-trying.Done():
			return err
		}
	}
}

func (w *writer) limit() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Now().Before(w.impatient) {
		return shortPatience
	}
	return patience
}

func (w *writer) setImpatient(until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.impatient = until
}

// owe keeps the end of a pod whose tombstone was not written.
func (w *writer) owe(pod types.UID, end instance.End) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.owed == nil {
		w.owed = map[types.UID]instance.End{}
	}
	if len(w.owed) < mostOwed {
		w.owed[pod] = end
	}
}

// takeOwed returns the end that is kept for a pod, and forgets it.
func (w *writer) takeOwed(pod types.UID) (instance.End, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	end, ok := w.owed[pod]
	delete(w.owed, pod)
	return end, ok
}
