package main

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
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

// leaderOptions says which Lease is stood for, and as who.
type leaderOptions struct {
	namespace, lease, identity string
	written                    func() // called after each write of the Lease; nil for nobody
}

// runElected calls lead whenever this replica is elected, until ctx is done. The
// context that lead gets is done when the lead is lost; a new term does not
// begin before the last has returned. Two replicas may still overlap for a
// moment, since a Lease is no fence: what lead does must stand that.
func runElected(ctx context.Context, client kubernetes.Interface, opts leaderOptions, leading func(bool), log *slog.Logger,
	lead func(ctx context.Context)) error {
	var term sync.Mutex // held while leading
	var lock resourcelock.Interface = &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: opts.namespace, Name: opts.lease},
		Client:     client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: opts.identity},
	}
	if opts.written != nil {
		lock = notedLock{lock, opts.written}
	}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Name:            opts.lease,
		Lock:            lock,
		LeaseDuration:   leaseDuration,
		RenewDeadline:   renewDeadline,
		RetryPeriod:     retryPeriod,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				term.Lock()
				defer term.Unlock()
				if ctx.Err() != nil {
					return // lost while the last term was ending
				}
				log.InfoContext(ctx, "leading", "identity", opts.identity)
				leading(true)
				defer leading(false)
				lead(ctx)
				log.Info("no longer leading", "identity", opts.identity)
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
