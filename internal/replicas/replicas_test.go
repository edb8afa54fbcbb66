package replicas

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

const namespace = "binder"

// start returns a replica of an identity, which renews its Lease until the test ends.
func start(t *testing.T, client *fake.Clientset, identity string) *Replicas {
	t.Helper()
	r := New(Deps{Leases: client.CoordinationV1().Leases(namespace), Election: "election", Identity: identity, Log: kubetest.NoLog(), Now: time.Now, Local: time.Now})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return r
}

func leases(t *testing.T, client *fake.Clientset) []coordinationv1.Lease {
	t.Helper()
	list, err := client.CoordinationV1().Leases(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: ElectionLabel + "=election"})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// A replica announces that it is there, and what it has written. Its Lease goes with it.
func TestAnnounces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		one := start(t, client, "One.example")
		time.Sleep(RenewPeriod + time.Second)
		if got := leases(t, client); len(got) != 0 {
			t.Errorf("announced %v, though nothing was written", got)
		}
		for range 2 {
			written := time.Now()
			one.Written(written)
			time.Sleep(3 * RenewPeriod)
			got := leases(t, client)
			if len(got) != 1 || *got[0].Spec.HolderIdentity != "One.example" || got[0].Annotations[WrittenUntilAnnotation] != instance.FormatTime(written) {
				t.Fatalf("announced %+v, want that One.example has written until %s", got, written)
			}
			if renewed := got[0].Spec.RenewTime; time.Since(renewed.Time) > RenewPeriod {
				t.Errorf("renewed at %s, though the replica is alive", renewed)
			}
		}
		start(t, client, "one.example").Written(time.Now())
		time.Sleep(2 * RenewPeriod)
		if got := leases(t, client); len(got) != 2 {
			t.Errorf("there are %d Leases, want one for each replica", len(got))
		}
		one.Leave(t.Context())
		if got := leases(t, client); len(got) != 1 || *got[0].Spec.HolderIdentity != "one.example" {
			t.Errorf("%+v are left, want the other's", got)
		}
	})
}

// unwritten returns a Lease that was renewed at a time, and says that nothing was written for a while.
func unwritten(identity string, renewed time.Time, while time.Duration) *coordinationv1.Lease {
	l := lease(identity, renewed)
	l.Annotations = map[string]string{WrittenUntilAnnotation: instance.FormatTime(renewed.Add(-while))}
	return l
}

func lease(identity string, written time.Time) *coordinationv1.Lease {
	renewed := metav1.NewMicroTime(written)
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: leaseName("election", identity)},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &identity, RenewTime: &renewed},
	}
}

// The slowest of the replicas that are alive counts, and the fastest.
func TestClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, lines := kubetest.RecordLog()
		r := New(Deps{Log: log, Now: time.Now, Local: time.Now})
		want := func(what string, behind, ahead time.Duration) {
			t.Helper()
			now := time.Now()
			slowest, fastest := r.Clocks(now)
			if now.Sub(slowest) != behind || fastest.Sub(now) != ahead {
				t.Errorf("%s: the slowest is %s behind, the fastest %s ahead; want %s, %s", what, now.Sub(slowest), fastest.Sub(now), behind, ahead)
			}
		}
		want("alone", 0, 0)
		r.Changed(lease("a", time.Now().Add(-time.Second)))
		r.Changed(lease("b", time.Now().Add(-3*time.Second)))
		want("two others", 3*time.Second, 0)
		r.Changed(lease("c", time.Now().Add(2*time.Hour)))
		want("one is ahead", 3*time.Second, 2*time.Hour)
		r.Gone(lease("c", time.Now()))
		want("it has ended", 3*time.Second, 0)

		time.Sleep(time.Minute)
		r.Changed(lease("a", time.Now()))
		r.Changed(lease("b", time.Now().Add(-time.Minute-3*time.Second))) // another change than of the time
		want("one is silent", time.Minute+3*time.Second, 0)
		time.Sleep(AliveFor - time.Minute)
		want("it still counts", AliveFor+3*time.Second, 0)
		r.Changed(lease("a", time.Now()))
		time.Sleep(time.Second)
		want("it counts as ended", time.Second, 0)
		r.Changed(lease("b", time.Now()))
		want("it is back", time.Second, 0)

		r.Changed(unwritten("b", time.Now().Add(time.Second), time.Hour))
		want("its writes are refused", time.Hour-time.Second, time.Second)
		r.Changed(unwritten("b", time.Now(), 0))
		want("its writes work again", time.Second, 0)
		r.Changed(&coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: leaseName("election", "b"), Annotations: map[string]string{WrittenUntilAnnotation: "by hand"}},
			Spec:       lease("b", time.Now().Add(-2*time.Second)).Spec,
		})
		want("an annotation that cannot be read", 2*time.Second, 0)

		if lines.String() != "" && !strings.Contains(lines.String(), "replica=b") {
			t.Errorf("logged %q of clocks that do not differ", lines)
		}
		r.Changed(lease("a", time.Now().Add(-2*time.Hour)))
		if got := lines.String(); !strings.Contains(got, "replica=a") || !strings.Contains(got, "behind=2h0m0s") {
			t.Errorf("logged %q, want that a is behind", got)
		}
		r.Changed(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "by hand"}})
		want("another's Lease does not count", 2*time.Hour, 0)
	})
}

// The leader deletes the Leases of replicas that do not come back, and no others.
func TestCleanUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, crashed := lease("here", time.Now()), lease("crashed", time.Now())
		client := fake.NewClientset()
		for _, l := range []*coordinationv1.Lease{here, crashed} {
			l.Labels = map[string]string{ElectionLabel: "election"}
			if _, err := client.CoordinationV1().Leases(namespace).Create(t.Context(), l, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		r := New(Deps{Leases: client.CoordinationV1().Leases(namespace), Log: kubetest.NoLog(), Now: time.Now, Local: time.Now})
		r.Changed(crashed)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			r.CleanUp(ctx)
		}()
		for range 3 {
			r.Changed(lease("here", time.Now()))
			time.Sleep(KeptFor / 2)
		}
		cancel()
		<-ended
		if got := leases(t, client); len(got) != 1 || got[0].Name != here.Name {
			t.Errorf("%v are left, want that of the replica that is here", got)
		}
	})
}
