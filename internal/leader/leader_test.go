package leader_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/klog/v2"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/leader"
)

// TestMain silences client-go.
func TestMain(m *testing.M) {
	klog.SetSlogLogger(kubetest.NoLog())
	os.Exit(m.Run())
}

// candidate is a replica that stands for election.
type candidate struct {
	leads          atomic.Bool
	terms, written atomic.Int64 // terms that it started, and writes of the Lease
	answered       atomic.Int64 // answers of the API server
	cancel         func()
	running        sync.WaitGroup
}

// stand makes a replica stand for election. It must resign before the test ends.
func stand(t testing.TB, server *kubetest.Server, identity string, lead func(ctx context.Context)) *candidate {
	t.Helper()
	c := &candidate{}
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.running.Go(func() {
		err := leader.Run(ctx, leader.Deps{
			Leases: server.Client.CoordinationV1(), Namespace: "binder", Lease: "lease", Identity: identity,
			Leading: c.leads.Store, Written: func() { c.written.Add(1) }, Answered: func() { c.answered.Add(1) }, Log: kubetest.NoLog(),
		}, func(ctx context.Context) {
			c.terms.Add(1)
			lead(ctx)
		})
		if err != nil {
			t.Errorf("%s: %v", identity, err)
		}
	})
	return c
}

// resign returns when the replica no longer stands.
func (c *candidate) resign() {
	c.cancel()
	c.running.Wait()
}

// want lets some time pass. Then it checks whether the replica leads, and how many terms
// it has started.
func (c *candidate) want(t testing.TB, after time.Duration, leads bool, terms int64) {
	t.Helper()
	time.Sleep(after)
	synctest.Wait()
	if c.leads.Load() != leads || c.terms.Load() != terms {
		t.Errorf("after %s: it leads: %t, in term %d; want %t, %d", after, c.leads.Load(), c.terms.Load(), leads, terms)
	}
}

func wantHolder(t testing.TB, server *kubetest.Server, want string) {
	t.Helper()
	lease, err := server.Client.CoordinationV1().Leases("binder").Get(t.Context(), "lease", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	if lease.Spec.HolderIdentity != nil {
		got = *lease.Spec.HolderIdentity
	}
	if got != want {
		t.Errorf("the Lease is held by %q, want %q", got, want)
	}
}

func untilDone(ctx context.Context) { <-ctx.Done() }

// away makes the API server refuse Leases until the function that it returns is called.
func away(server *kubetest.Server) (back func()) {
	return server.FailOn("*", "leases", errors.New("the API server is away"))
}

// lost is how long after its last write of the Lease a leader has surely stopped.
const lost = leader.RenewDeadline + leader.RetryPeriod + time.Millisecond

// One replica leads at a time. The other takes over when it resigns.
func TestOneReplicaLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := kubetest.NewServer(time.Now)
		a := stand(t, server, "a", untilDone)
		a.want(t, 0, true, 1)
		b := stand(t, server, "b", untilDone)
		b.want(t, time.Minute, false, 0)
		a.want(t, 0, true, 1)
		wantHolder(t, server, "a")
		a.resign()
		a.want(t, 0, false, 1)
		wantHolder(t, server, "")
		b.want(t, 3*leader.RetryPeriod, true, 1)
		b.resign()
	})
}

// A leader that cannot renew its Lease stops before another can start, and stands again.
func TestLeadIsLostAndWonAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := kubetest.NewServer(time.Now)
		a := stand(t, server, "a", untilDone)
		a.want(t, 0, true, 1)
		back := away(server)
		a.want(t, lost, false, 1)
		a.want(t, time.Minute, false, 1)
		back()
		a.want(t, 3*leader.RetryPeriod, true, 2)
		a.resign()
	})
}

// Only successful writes of the Lease are reported.
func TestWritesAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := kubetest.NewServer(time.Now)
		a := stand(t, server, "a", untilDone)
		wantWrites := func(after time.Duration, want int64) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if got := a.written.Swap(0); got != want {
				t.Errorf("after %s: got %d writes, want %d", after, got, want)
			}
		}
		wantWrites(0, 2) // client-go creates the Lease, and renews it at once
		wantWrites(5*leader.RetryPeriod, 5)
		away(server)
		wantWrites(time.Minute, 0)
		a.resign()
	})
}

// The caller of Run can take down what lead needs once Run has returned.
func TestRunWaitsForLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mayEnd := make(chan bool)
		var returned atomic.Bool
		a := stand(t, kubetest.NewServer(time.Now), "a", func(context.Context) { <-mayEnd })
		a.want(t, 0, true, 1)
		go func() {
			a.resign()
			returned.Store(true)
		}()
		a.want(t, time.Minute, true, 1)
		if returned.Load() {
			t.Error("Run returned before lead")
		}
		close(mayEnd)
		a.want(t, 0, false, 1)
		if !returned.Load() {
			t.Error("Run did not return after lead")
		}
	})
}

// A term that is won while lead still runs for the last one waits for its end. It does
// not start at all if it has ended by then.
func TestTermsDoNotOverlap(t *testing.T) {
	for _, ended := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			server := kubetest.NewServer(time.Now)
			mayEnd := make(chan bool)
			a := stand(t, server, "a", func(ctx context.Context) {
				<-ctx.Done()
				<-mayEnd
			})
			a.want(t, 0, true, 1)
			back := away(server)
			time.Sleep(lost)
			back()
			before := a.written.Load()
			a.want(t, leader.LeaseDuration, true, 1) // lead still runs
			if a.written.Load() == before {
				t.Error("the second term is not won")
			}
			terms := int64(2)
			if ended {
				a.cancel()
				terms = 1
			}
			synctest.Wait()
			close(mayEnd)
			a.want(t, 0, !ended, terms)
			a.resign()
		})
	}
}

// Every answer of the API server is told of, also a refusal and that to a replica that does
// not lead. An error of the API server is none, and neither is silence.
func TestTellsOfAnswers(t *testing.T) {
	leases := schema.GroupResource{Resource: "leases"}
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"answers":         {nil, true},
		"no right":        {apierrors.NewForbidden(leases, "lease", errors.New("no")), true},
		"conflict":        {apierrors.NewConflict(leases, "lease", errors.New("changed")), true},
		"busy":            {apierrors.NewTooManyRequests("busy", 1), true},
		"etcd is away":    {apierrors.NewInternalError(errors.New("etcd")), false},
		"unavailable":     {apierrors.NewServiceUnavailable("starting"), false},
		"refuses":         {errors.New("connection refused"), false},
		"does not answer": {context.DeadlineExceeded, false},
	} {
		for _, leads := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				server := kubetest.NewServer(time.Now)
				a := stand(t, server, "a", untilDone)
				synctest.Wait()
				b := stand(t, server, "b", untilDone)
				time.Sleep(leader.LeaseDuration)
				tested := b
				if leads {
					tested = a
				}
				if test.err != nil {
					server.FailOn("*", "leases", test.err)
				}
				time.Sleep(leader.RetryPeriod)
				before := tested.answered.Load()
				time.Sleep(3 * leader.RetryPeriod)
				if got := tested.answered.Load() > before; got != test.want {
					t.Errorf("%s, to a replica that leads (%t): told of an answer: %t, want %t", name, leads, got, test.want)
				}
				a.resign()
				b.resign()
			})
		}
	}
}

func TestRunNeedsAnIdentity(t *testing.T) {
	server := kubetest.NewServer(time.Now)
	err := leader.Run(t.Context(), leader.Deps{Leases: server.Client.CoordinationV1(), Namespace: "binder", Lease: "lease"}, untilDone)
	if err == nil || !strings.Contains(err.Error(), "identity") {
		t.Errorf("got error %v, want one about the identity", err)
	}
}
