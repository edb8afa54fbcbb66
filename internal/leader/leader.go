// Package leader elects one leader among the replicas, by a Lease in the cluster.
//
// It must never know what the leader does: it runs a function. Leases are no fence: after
// a pause of the process, or with clocks that run at different speeds, two replicas can
// lead for a moment. Whatever the leader does must be safe then, for example because
// a delete names the resourceVersion that was judged.
package leader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// The intervals of the election, which are those of Kubernetes' own components.
const (
	// LeaseDuration is how long the other replicas wait, after the last renewal that they
	// saw, before they take over from a leader that has not resigned.
	LeaseDuration = 15 * time.Second
	// RenewDeadline is how long a leader goes on without renewing its Lease. It is shorter
	// than LeaseDuration, so that a leader stops before another starts.
	RenewDeadline = 10 * time.Second
	// RetryPeriod is the time between two attempts to renew or to get the Lease.
	RetryPeriod = 2 * time.Second
)

// Deps are what an election needs.
type Deps struct {
	// Leases is how the Lease is read and written.
	Leases coordinationv1.LeasesGetter
	// Namespace and Lease name the Lease. They are the same for all replicas.
	Namespace, Lease string
	// Identity names this replica in the Lease. Two replicas with the same identity would
	// both lead. It must not be "".
	Identity string
	// Leading is told when this replica starts to lead, and when it no longer does.
	Leading func(leads bool)
	// Written is called after each successful write of the Lease, which a leader makes
	// every RetryPeriod. It must not block. It may be nil.
	Written func()
	// Answered is called after each answer of the API server to a read or write of the
	// Lease, even to one that it refuses, but not after an error of its own. Every replica
	// asks every few seconds. It must not block. It may be nil.
	Answered func()
	// Log gets a line at the start and at the end of each term.
	Log *slog.Logger
}

// Renewals tells whether this replica is sure to lead still. The zero value is ready for use, and
// its methods may be called at the same time.
type Renewals struct{ last atomic.Pointer[time.Time] }

// Renewed notes that the Lease was written, as Deps.Written tells.
func (r *Renewals) Renewed(now time.Time) { r.last.Store(&now) }

// Sure reports whether what a leader does now is done before another one can lead, if it takes no
// more than a few seconds: LeaseDuration counts from before the Lease was written, which takes up
// to requestTimeout. Of the two clocks in now, one may have stood still, as while a machine sleeps,
// and the other may have been set.
func (r *Renewals) Sure(now time.Time) bool {
	last := r.last.Load()
	if last == nil {
		return false
	}
	since, byWall := now.Sub(*last), now.Round(0).Sub(last.Round(0))
	return since < requestTimeout && byWall < requestTimeout && byWall > -time.Second
}

// Run calls lead whenever this replica is elected, until ctx is done. The context that
// lead gets is done when the term ends. The replica's next term starts after lead has
// returned, and Run returns after that too; but lead can still run for a while when
// another replica already leads. Run returns an error if Deps are not complete.
func Run(ctx context.Context, d Deps, lead func(ctx context.Context)) error {
	term := make(chan struct{}, 1) // full while lead runs
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Name:            d.Lease,
		Lock:            newLock(d),
		LeaseDuration:   LeaseDuration,
		RenewDeadline:   RenewDeadline,
		RetryPeriod:     RetryPeriod,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				term <- struct{}{}
				defer func() { <-term }()
				if ctx.Err() == nil { // else this term ended while lead still ran for the last one
					runTerm(ctx, d, lead)
				}
			},
			OnStoppedLeading: func() {}, // required, but also called when this replica did not lead
		},
	})
	if err != nil {
		return fmt.Errorf("set up leader election: %w", err)
	}
	for ctx.Err() == nil {
		elector.Run(ctx) // returns when a term ends; does not wait for OnStartedLeading
	}
	term <- struct{}{}
	<-term
	return nil
}

func runTerm(ctx context.Context, d Deps, lead func(ctx context.Context)) {
	d.Log.InfoContext(ctx, "leading", "identity", d.Identity)
	d.Leading(true)
	defer d.Leading(false)
	lead(ctx)
	d.Log.InfoContext(ctx, "no longer leading", "identity", d.Identity)
}

func newLock(d Deps) resourcelock.Interface {
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: d.Namespace, Name: d.Lease},
		Client:     d.Leases,
		LockConfig: resourcelock.ResourceLockConfig{Identity: d.Identity},
	}
	return reportingLock{lock, d}
}

// requestTimeout bounds each request, so that one that is lost does not take the whole
// RenewDeadline. Kubernetes' own components use the same share (NewFromKubeconfig in
// client-go's resourcelock).
const requestTimeout = RenewDeadline / 2

// reportingLock is a lock that reports each successful write and each answer.
type reportingLock struct {
	resourcelock.Interface
	deps Deps
}

// Get reads the Lease.
func (l reportingLock) Get(ctx context.Context) (record *resourcelock.LeaderElectionRecord, raw []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	record, raw, err = l.Interface.Get(ctx)
	l.reportAnswer(err)
	return record, raw, err
}

// Create creates the Lease.
func (l reportingLock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.write(ctx, record, l.Interface.Create)
}

// Update writes the Lease.
func (l reportingLock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.write(ctx, record, l.Interface.Update)
}

func (l reportingLock) write(ctx context.Context, record resourcelock.LeaderElectionRecord, write func(context.Context, resourcelock.LeaderElectionRecord) error) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := write(ctx, record)
	l.reportAnswer(err)
	if err == nil && l.deps.Written != nil {
		l.deps.Written()
	}
	return err
}

func (l reportingLock) reportAnswer(err error) {
	var refusal apierrors.APIStatus
	refused := errors.As(err, &refusal) && refusal.Status().Code < http.StatusInternalServerError
	if l.deps.Answered != nil && (err == nil || refused) {
		l.deps.Answered()
	}
}
