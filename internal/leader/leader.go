package leader

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// The intervals that Kubernetes' own components use.
const (
	LeaseDuration = 15 * time.Second
	RenewDeadline = 10 * time.Second
	RetryPeriod   = 2 * time.Second
)

// Options says which Lease is stood for, and as who.
type Options struct {
	Namespace, Lease, Identity string
	Written                    func() // called after each write of the Lease; nil for nobody
}

// Run calls lead whenever this replica is elected, until ctx is done. The
// context that lead gets is done when the lead is lost; a new term does not
// begin before the last has returned. Two replicas may still overlap for a
// moment, since a Lease is no fence: what lead does must stand that.
func Run(ctx context.Context, client kubernetes.Interface, opts Options, leading func(bool), log *slog.Logger,
	lead func(ctx context.Context)) error {
	var term sync.Mutex // held while leading
	var lock resourcelock.Interface = &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: opts.Namespace, Name: opts.Lease},
		Client:     client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: opts.Identity},
	}
	if opts.Written != nil {
		lock = notedLock{lock, opts.Written}
	}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Name:            opts.Lease,
		Lock:            lock,
		LeaseDuration:   LeaseDuration,
		RenewDeadline:   RenewDeadline,
		RetryPeriod:     RetryPeriod,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				term.Lock()
				defer term.Unlock()
				if ctx.Err() != nil {
					return // lost while the last term was ending
				}
				log.InfoContext(ctx, "leading", "identity", opts.Identity)
				leading(true)
				defer leading(false)
				lead(ctx)
				log.Info("no longer leading", "identity", opts.Identity)
			},
			OnStoppedLeading: func() {}, // also called when it never led
		},
	})
	if err != nil {
		return fmt.Errorf("set up leader election: %w", err)
	}
	for ctx.Err() == nil {
		elector.Run(ctx)
	}
	term.Lock() // Run does not wait for what it started
	defer term.Unlock()
	return nil
}

// notedLock is a lock that tells of each write of its Lease.
type notedLock struct {
	resourcelock.Interface
	written func()
}

func (l notedLock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.tell(l.Interface.Create(ctx, record))
}

func (l notedLock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.tell(l.Interface.Update(ctx, record))
}

func (l notedLock) tell(err error) error {
	if err == nil {
		l.written()
	}
	return err
}
