package leader

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// candidate is a replica that stands for election.
type candidate struct {
	leads  *atomic.Bool
	log    *kubetest.LogBuffer
	cancel func()
	resign func() // cancels, and returns when it no longer stands
}

// stand makes a replica stand for election until it resigns.
func stand(t testing.TB, server *kubetest.Server, identity string, lead func(ctx context.Context)) candidate {
	t.Helper()
	log, lines := kubetest.RecordLog()
	leads := &atomic.Bool{}
	ctx, cancel := context.WithCancel(context.Background())
	var standing sync.WaitGroup
	standing.Go(func() {
		opts := Options{Namespace: "binder", Lease: "binder-deploy-kubernetes", Identity: identity}
		if err := Run(ctx, server.Client, opts, leads.Store, log, lead); err != nil {
			t.Errorf("%s: %v", identity, err)
		}
	})
	return candidate{leads, lines, cancel, func() {
		cancel()
		standing.Wait()
	}}
}

func (c candidate) wantLeading(t testing.TB, want bool) {
	t.Helper()
	if got := c.leads.Load(); got != want {
		t.Errorf("it says that it leads: %t, want %t", got, want)
	}
}

// holder is who the Lease says leads; "" for nobody.
func holder(t testing.TB, server *kubetest.Server) string {
	t.Helper()
	lease, err := server.Client.CoordinationV1().Leases("binder").Get(t.Context(), "binder-deploy-kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

func untilDone(ctx context.Context) { <-ctx.Done() }

func TestRunElected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := kubetest.NewServer(time.Now)
		a := stand(t, server, "a", untilDone)
		synctest.Wait()
		a.wantLeading(t, true)
		if got := holder(t, server); got != "a" {
			t.Errorf("the Lease is held by %q", got)
		}
		time.Sleep(time.Minute) // renewed all the time
		synctest.Wait()
		a.wantLeading(t, true)
		if got := strings.Count(a.log.String(), "msg=leading identity=a"); got != 1 {
			t.Errorf("it began to lead %d times, want once:\n%s", got, a.log)
		}
		a.resign()
		a.wantLeading(t, false)
		if got := holder(t, server); got != "" {
			t.Errorf("the Lease is still held by %q", got)
		}
	})
}

// What leads may take a while to end, and needs what its caller then takes down.
func TestRunElectedWaitsForWhatItStarted(t *testing.T) {
	leads, mayEnd, returned := make(chan bool), make(chan bool), make(chan bool)
	var ended bool
	a := stand(t, kubetest.NewServer(time.Now), "a", func(ctx context.Context) {
		leads <- true
		<-mayEnd
		ended = true
	})
	<-leads
	go func() {
		a.resign()
		close(returned)
	}()
	select {
	case <-returned:
		t.Error("it returned before what it had started")
	case <-time.After(100 * time.Millisecond): // long enough for one that does not wait
	}
	close(mayEnd)
	<-returned
	if !ended {
		t.Error("what it started has not ended")
	}
	a.wantLeading(t, false)
}

// One leads and the other waits; it takes over at once from one that resigns,
// and after the lease has run out from one that is gone.
func TestOnlyOneLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := kubetest.NewServer(time.Now)
		a := stand(t, server, "a", untilDone)
		synctest.Wait()
		b := stand(t, server, "b", untilDone)
		time.Sleep(time.Minute)
		synctest.Wait()
		a.wantLeading(t, true)
		b.wantLeading(t, false)
		if strings.Contains(b.log.String(), "msg=leading") {
			t.Errorf("b has led:\n%s", b.log)
		}
		a.resign()
		time.Sleep(3 * RetryPeriod)
		synctest.Wait()
		a.wantLeading(t, false)
		b.wantLeading(t, true)
		b.resign()
	})
}

// Who cannot renew its lease stops before it runs out for the others, and
// stands again.
func TestLeadLostAndWonAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := kubetest.NewServer(time.Now)
		a := stand(t, server, "a", untilDone)
		synctest.Wait()
		mend := server.FailOn("*", "leases", errors.New("the API server is away"))
		time.Sleep(RenewDeadline + RetryPeriod + time.Millisecond)
		synctest.Wait()
		a.wantLeading(t, false)
		time.Sleep(time.Minute)
		synctest.Wait()
		a.wantLeading(t, false)
		mend()
		time.Sleep(3 * RetryPeriod)
		synctest.Wait()
		a.wantLeading(t, true)
		if got := strings.Count(a.log.String(), "msg=leading identity=a"); got != 2 {
			t.Errorf("it began to lead %d times, want twice:\n%s", got, a.log)
		}
		a.resign()
	})
}

// A term that is won before the last one has ended waits for its end, and does
// not begin at all if it is over by then. (Nothing here may wait for the time
// while a term waits: a mutex stops a bubble's clock.)
func TestTermsOfOneReplicaDoNotOverlap(t *testing.T) {
	for _, lost := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			server := kubetest.NewServer(time.Now)
			var running, most, terms atomic.Int64
			mayEnd, second := make(chan bool), make(chan bool)
			a := stand(t, server, "a", func(ctx context.Context) {
				if now := running.Add(1); now > most.Load() {
					most.Store(now)
				}
				defer running.Add(-1)
				if terms.Add(1) == 2 {
					close(second)
					return
				}
				<-ctx.Done()
				<-mayEnd
			})
			synctest.Wait()
			mend := server.FailOn("*", "leases", errors.New("the API server is away"))
			time.Sleep(RenewDeadline + RetryPeriod + time.Millisecond)
			synctest.Wait()
			won := make(chan bool, 1)
			server.React("update", "leases", func(k8stesting.Action) (bool, runtime.Object, error) {
				select {
				case won <- true:
				default:
				}
				return false, nil, nil
			})
			mend()
			<-won
			a.wantLeading(t, true) // the first term has not ended
			want := int64(2)
			if lost {
				a.cancel()
				want = 1
			}
			close(mayEnd)
			if !lost {
				<-second
			}
			a.resign()
			synctest.Wait()
			if got := terms.Load(); got != want {
				t.Errorf("lost %t: %d terms began, want %d", lost, got, want)
			}
			if most.Load() != 1 {
				t.Errorf("lost %t: %d terms ran at once", lost, most.Load())
			}
		})
	}
}

func TestRunElectedNeedsAnIdentity(t *testing.T) {
	server := kubetest.NewServer(time.Now)
	err := Run(t.Context(), server.Client, Options{Namespace: "binder", Lease: "lease"}, func(bool) {}, kubetest.NoLog(), untilDone)
	if err == nil || !strings.Contains(err.Error(), "identity") {
		t.Errorf("got error %v, want one about the identity", err)
	}
}
