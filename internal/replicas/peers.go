package replicas

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxSkew is how far the clocks of two replicas may differ before that is logged.
const maxSkew = time.Minute

// peer is what a replica has last said, and when this one heard of it.
type peer struct {
	renewed, written time.Time // by the peer's clock
	heard            time.Time // by this replica's local one
}

// Changed takes a version of a replica's Lease.
func (r *Replicas) Changed(lease *coordinationv1.Lease) {
	if lease.Spec.RenewTime == nil || lease.Spec.HolderIdentity == nil { // not as this service writes it
		return
	}
	renewed := lease.Spec.RenewTime.Time
	r.mu.Lock()
	before, known := r.all[lease.Name]
	news := !renewed.Equal(before.renewed)
	if news {
		r.all[lease.Name] = peer{renewed, writtenUntil(lease), r.deps.Local()}
	}
	r.mu.Unlock()
	if skew := r.deps.Now().Round(0).Sub(renewed); known && news && skew.Abs() > maxSkew {
		r.deps.Log.Warn("the clock of another replica differs from this one's: instances end late",
			"replica", *lease.Spec.HolderIdentity, "behind", skew.Round(time.Second))
	}
}

// writtenUntil returns up to when a replica has written the uses that were due. Earlier versions
// of this service renewed their Leases only then.
func writtenUntil(lease *coordinationv1.Lease) time.Time {
	if written, err := time.Parse(time.RFC3339, lease.Annotations[WrittenUntilAnnotation]); err == nil {
		return written
	}
	return lease.Spec.RenewTime.Time
}

// Gone takes the Lease of a replica that has ended.
func (r *Replicas) Gone(lease *coordinationv1.Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, lease.Name)
}

// Clocks returns the slowest and the fastest of the clocks of all replicas that are alive; own
// is what that of this one says. The slowest is not later than the time up to which each has
// written the uses that were due, as Written was told.
func (r *Replicas) Clocks(own time.Time) (slowest, fastest time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	slowest, fastest = own, own
	now := r.deps.Local()
	for _, peer := range r.all {
		if now.Sub(peer.heard) > AliveFor {
			continue
		}
		if peer.written.Before(slowest) {
			slowest = peer.written
		}
		if peer.renewed.After(fastest) {
			fastest = peer.renewed
		}
	}
	return slowest, fastest
}

// CleanUp deletes the Leases of replicas that have crashed and did not come back, until ctx is
// done.
func (r *Replicas) CleanUp(ctx context.Context) {
	ticker := time.NewTicker(KeptFor / 10)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, name := range r.silent() {
			deleting, cancel := context.WithTimeout(ctx, requestTimeout)
			if err := r.deps.Leases.Delete(deleting, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				r.deps.Log.WarnContext(ctx, "the Lease of a replica that has crashed is not deleted, will be tried again", "lease", name, "error", err)
			}
			cancel()
		}
	}
}

// silent returns the Leases that were not renewed for KeptFor.
func (r *Replicas) silent() (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, peer := range r.all {
		if r.deps.Local().Sub(peer.heard) > KeptFor {
			names = append(names, name)
		}
	}
	return names
}
