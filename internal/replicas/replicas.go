// Package replicas lets the replicas know of each other up to when each has written the uses
// that it has seen. Each says so on a Lease of its own, as the API servers of Kubernetes say
// that they are there (https://kubernetes.io/docs/concepts/architecture/leases/).
//
// The leader must end no instance whose use another replica has yet to write, and none because
// of a clock that is wrong. So it goes by the slowest of the clocks that the replicas write. The
// package decides nothing about instances.
package replicas

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycoordinationv1 "k8s.io/client-go/applyconfigurations/coordination/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

const (
	// RenewPeriod is the time between two renewals of a replica's Lease.
	RenewPeriod = 2 * time.Second
	// AliveFor is how long a replica counts as alive after its last renewal. It is not ready
	// for half of that time then, if it is cut off, so its visitors have gone to others.
	AliveFor = 2 * time.Minute
	// KeptFor is how long the Lease of a replica that has crashed is kept.
	KeptFor = 10 * time.Minute

	requestTimeout = 5 * time.Second
)

const (
	// ElectionLabel is on the Lease of each replica, and names the Lease of the election that it
	// takes part in.
	ElectionLabel = "binder-project.org/election"
	// WrittenUntilAnnotation is on the Lease of each replica, and says up to when it has written
	// the uses that were due: an RFC 3339 time of the replica's clock.
	WrittenUntilAnnotation = "binder-project.org/written-until"
)

// Deps are what Replicas needs.
type Deps struct {
	// Leases is how the Leases are written, in the service's own namespace.
	Leases coordinationv1.LeaseInterface
	// Election is the name of the election's Lease, and Identity that of this replica in it.
	Election, Identity string
	// Log is told of writes that fail, and of clocks that differ.
	Log *slog.Logger
	// Now is the clock of this replica.
	Now func() time.Time
	// Local is a clock that is never set: it has a monotonic reading. By it, a replica is silent.
	Local func() time.Time
}

// Replicas keeps the Lease of this replica, and knows all replicas by theirs. It is safe for
// concurrent use.
type Replicas struct {
	deps Deps

	mu      sync.Mutex
	written time.Time       // up to when this replica has written uses; zero before it was told
	all     map[string]peer // by the name of the Lease; this one too
}

// New returns Replicas that know of no replica.
func New(deps Deps) *Replicas { return &Replicas{deps: deps, all: map[string]peer{}} }

// Written notes that all uses that were due to be written at a time are written.
func (r *Replicas) Written(at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.written = at
}

// WrittenUntil returns what Written was last told, and zero before that.
func (r *Replicas) WrittenUntil() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.written
}

// Run announces that this replica is there, and what Written was told, until ctx is done. It
// begins when Written was told something: a replica that has yet to read the cluster sees no use.
func (r *Replicas) Run(ctx context.Context) {
	ticker := time.NewTicker(RenewPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		written := r.WrittenUntil()
		if written.IsZero() {
			continue
		}
		if err := r.renew(ctx, written); err != nil {
			r.deps.Log.WarnContext(ctx, "this replica's Lease is not renewed, will be tried again", "error", err)
		}
	}
}

func (r *Replicas) renew(ctx context.Context, written time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	lease := applycoordinationv1.Lease(leaseName(r.deps.Election, r.deps.Identity), "").
		WithLabels(map[string]string{instance.ManagedByLabel: instance.ManagerName, ElectionLabel: r.deps.Election}).
		WithAnnotations(map[string]string{WrittenUntilAnnotation: instance.FormatTime(written)}).
		WithSpec(applycoordinationv1.LeaseSpec().
			WithHolderIdentity(r.deps.Identity).
			WithLeaseDurationSeconds(int32(AliveFor / time.Second)).
			WithRenewTime(metav1.NewMicroTime(r.deps.Now())))
	lease.Namespace = nil // the client's
	_, err := r.deps.Leases.Apply(ctx, lease, metav1.ApplyOptions{FieldManager: instance.ManagerName, Force: true})
	return err
}

// Leave deletes the Lease, so that the leader does not wait for this replica, which ends.
func (r *Replicas) Leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := r.deps.Leases.Delete(ctx, leaseName(r.deps.Election, r.deps.Identity), metav1.DeleteOptions{}); err != nil {
		r.deps.Log.WarnContext(ctx, "this replica's Lease is not deleted: the leader waits for it", "for", AliveFor, "error", err)
	}
}

// leaseName returns the name of a replica's Lease. Identities can be anything.
func leaseName(election, identity string) string {
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(identity)) // never fails
	return fmt.Sprintf("%s-%016x", election, hash.Sum64())
}
