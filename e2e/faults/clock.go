package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
	"github.com/binder-project/binder-deploy-kubernetes/e2e/wrongclock"
)

const (
	// wrongBy is by how much a clock is wrong: more than any timeout of the load, and less than
	// the service's max age.
	wrongBy = 2 * time.Hour
	// loyalTimeout is the cull timeout of instances that are used through one replica only. It
	// is short, so that they end within the fault if their use does not count.
	loyalTimeout = 12 * time.Second
)

// clockFaults are wrong clocks, of one replica each. The other's, the API server's and the
// node's are right.
func clockFaults() []Fault {
	var faults []Fault
	for n, who := range []string{"the leader's clock", "the clock of one that does not lead"} {
		for _, how := range []struct {
			name string
			make func(harness.Replica) clock
		}{
			{"is two hours ahead", func(r harness.Replica) clock { return clock{r, []time.Duration{wrongBy}} }},
			{"is two hours behind", func(r harness.Replica) clock { return clock{r, []time.Duration{-wrongBy}} }},
			{"jumps", func(r harness.Replica) clock {
				return clock{r, []time.Duration{wrongBy, 0, -wrongBy, wrongBy, -wrongBy, 0}}
			}},
		} {
			faults = append(faults, Fault{
				Name: who + " " + how.name, Make: setClock(n, how.make), Hold: 45 * time.Second, Within: 30 * time.Second,
				Harmless: served(), Renews: true,
			})
		}
	}
	return faults
}

// clock is that of a replica, which is wrong by these durations in turn.
type clock struct {
	replica harness.Replica
	ahead   []time.Duration
}

// setClock sets the clock of one replica wrong: 0 is the leader. In addition to the load,
// visitors use instances through one replica only, as browsers do that keep a connection.
func setClock(n int, of func(harness.Replica) clock) maker {
	return func(ctx context.Context, w *World, random *rand.Rand) (func(context.Context) error, error) {
		replicas, err := w.replicas(ctx)
		if err != nil {
			return nil, err
		}
		var running, turning sync.WaitGroup
		visiting, leave := context.WithCancel(ctx)
		for _, replica := range replicas {
			id, ok := w.Load.launch(ctx, template, Used, loyalTimeout)
			if !ok || !w.Load.awaitDeployed(ctx, template, id) {
				leave()
				return nil, fmt.Errorf("an instance for %s was not deployed", replica.Name)
			}
			running.Go(func() { w.Load.useThrough(visiting, replica, id) })
		}
		wrong, right := context.WithCancel(ctx)
		seed := random.Uint64()
		turning.Go(func() { of(replicas[n]).turn(wrong, w.Ledger, rand.New(rand.NewPCG(seed, 0))) })
		return func(ctx context.Context) error {
			right()
			turning.Wait()
			err := w.setClocksRight(ctx)
			pause(ctx, loyalTimeout) // uses of before must not look old either
			leave()
			running.Wait()
			return err
		}, nil
	}
}

// setClocksRight sets the clocks of all replicas right: one may have been restarted meanwhile.
func (w *World) setClocksRight(ctx context.Context) error {
	replicas, err := w.Suite.ReadyReplicas(ctx)
	for _, replica := range replicas {
		err = errors.Join(err, wrongclock.Set(replica, 0))
	}
	return err
}

// turn sets the clock to one error after the other until ctx is done. An error lasts for some
// seconds: less and more than the service's hold of deletes.
func (c clock) turn(ctx context.Context, ledger *Ledger, random *rand.Rand) {
	for i := 0; ctx.Err() == nil; i++ {
		if err := wrongclock.Set(c.replica, c.ahead[i%len(c.ahead)]); err != nil {
			ledger.Complain("set a clock wrong: %v", err)
		}
		if len(c.ahead) == 1 {
			<-ctx.Done()
		}
		pause(ctx, time.Second+time.Duration(random.Int64N(int64(8*time.Second))))
	}
}

// useThrough uses an instance through one replica only, until it has ended or ctx is done.
func (l *Load) useThrough(ctx context.Context, replica harness.Replica, id string) {
	for pause(ctx, useEvery) {
		sent := l.now()
		code, err := l.visitAt(ctx, replica, id, "")
		switch {
		case err == nil && code == http.StatusOK:
			l.ledger.UsedAt(id, sent)
		case err == nil && code == http.StatusGone:
			l.ledger.Change(id, func(e *Entry) { e.Left = l.now() })
			return
		}
	}
	l.ledger.Change(id, func(e *Entry) { e.Left = l.now() })
}
