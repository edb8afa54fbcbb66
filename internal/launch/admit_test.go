package launch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/admission"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// limitedTo gives a Launcher limits.
func limitedTo(limits admission.Limits, world *kubetest.World) func(*Deps) {
	return func(deps *Deps) {
		deps.Admission = admission.New(admission.Deps{Limits: limits, Instances: world, Now: world.Now})
	}
}

// A created and a claimed pod say whose launch it was. A launch that counts for nobody
// leaves no label.
func TestLaunchNamesItsClient(t *testing.T) {
	for _, warm := range []int{0, 1} {
		for client, labelled := range map[string]bool{"0123456789abcdef": true, "": false} {
			r := poolReplica(t, "1", warm)
			id, err := r.Launch(t.Context(), Request{Template: kubetest.TemplateName, Client: client})
			if err != nil {
				t.Fatal(err)
			}
			pod, err := r.world.StoredPod(instance.PodName(id))
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := pod.Labels[instance.ClientLabel]; got != client || ok != labelled {
				t.Errorf("with %d warm pods, client %q: the label is %q, %t", warm, client, got, ok)
			}
			if writes := r.world.Writes(); len(writes) != 1 {
				t.Errorf("the writes are %v, want one", writes)
			}
		}
	}
}

// A client's launches count together: new ones, claims and those of other templates. What
// it cannot have, others can. An ended instance frees a place, and was launched all the same.
func TestLaunchWithinLimits(t *testing.T) {
	world := newWorld(kubetest.ClockAt(kubetest.Noon), poolTemplate("1"), kubetest.Template("other"))
	world.PutPod(t, warmPod(poolTemplate("1"), 100))
	r := newReplica(t, world, limitedTo(admission.Limits{LaunchRate: 3, MaxPerClient: 2}, world))
	launch := func(client, template string) (string, string) {
		id, err := r.Launch(t.Context(), Request{Client: client, Template: template})
		if refusal := (*admission.Refusal)(nil); errors.As(err, &refusal) {
			return id, refusal.Limit
		}
		if err != nil {
			t.Fatal(err)
		}
		return id, ""
	}
	for _, step := range []struct{ client, template, limit string }{
		{"ann", kubetest.TemplateName, ""}, // warm
		{"ann", "other", ""},
		{"ann", kubetest.TemplateName, admission.ClientInstances},
		{"bob", kubetest.TemplateName, ""},
		{"", "other", ""}, {"", "other", ""}, {"", "other", ""},
	} {
		if _, limit := launch(step.client, step.template); limit != step.limit {
			t.Errorf("%+v: refused by %q", step, limit)
		}
	}
	claimed, err := world.StoredPod(instance.PodName(kubetest.ID(100)))
	if err != nil {
		t.Fatal(err)
	}
	world.DropPod(t, claimed.Name)
	if _, err := world.Client.CoreV1().Events(kubetest.Namespace).Create(t.Context(), kubetest.Tombstone(claimed, instance.EndCulled, ""), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, limit := launch("ann", "other"); limit != "" {
		t.Errorf("after the end of an instance: refused by %q", limit)
	}
	if _, limit := launch("ann", "other"); limit != admission.LaunchRate {
		t.Errorf("the fourth launch: refused by %q", limit)
	}
	r.wantCounted(t, "claimed warm", "took 0s, warm true", "launched ok", "launched ok of other", "launched max_instances_per_client",
		"claimed empty", "launched ok", "launched ok of other", "launched ok of other", "launched ok of other", "launched ok of other", "launched launch_rate of other")
}

// A launch that fails gives its place back.
func TestFailedLaunchTakesNoPlace(t *testing.T) {
	world := newWorld(kubetest.ClockAt(kubetest.Noon), kubetest.Template(kubetest.TemplateName))
	r := newReplica(t, world, limitedTo(admission.Limits{LaunchRate: 1, MaxPerClient: 1, MaxInstances: 1}, world))
	restore := world.FailOn("create", "pods", errors.New("the API server is away"))
	for range 3 {
		if _, err := r.Launch(t.Context(), Request{Client: "ann", Template: kubetest.TemplateName}); err == nil || kindOf(err) == errLimit {
			t.Errorf("got %v, want the API server's error", err)
		}
	}
	restore()
	if _, err := r.Launch(t.Context(), Request{Client: "ann", Template: kubetest.TemplateName}); err != nil {
		t.Error(err)
	}
}

// While a quota refuses pods, one launch in two seconds is a write, whatever the number of
// launches. Other templates are not affected, nor are claims, which need no new pod.
func TestQuotaIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newWorld(time.Now, poolTemplate("1"), kubetest.Template("other"))
		r := newReplica(t, world)
		restore := world.FailOn("create", "pods", forbidden("exceeded quota: instances, limited: pods=20"))
		flood := func(template string, launches, wantWrites int) {
			t.Helper()
			before := len(world.Writes())
			for range launches {
				if _, err := r.Launch(t.Context(), Request{Template: template}); !errors.Is(err, ErrCapacity) {
					t.Fatalf("got %v, want no capacity", err)
				}
			}
			if got := len(world.Writes()) - before; got != wantWrites {
				t.Errorf("%d launches of %s were %d writes, want %d", launches, template, got, wantWrites)
			}
		}
		flood(kubetest.TemplateName, 100, 1)
		flood("other", 100, 1)
		world.PutPod(t, warmPod(poolTemplate("1"), 100))
		if id := r.launch(t, ""); id != kubetest.ID(100) {
			t.Errorf("launched %q, want the warm pod", id)
		}
		time.Sleep(quotaMemory - 1)
		flood(kubetest.TemplateName, 100, 0)
		time.Sleep(time.Nanosecond)
		flood(kubetest.TemplateName, 100, 1)
		restore()
		time.Sleep(quotaMemory)
		r.launch(t, "")
		if lines := strings.Count(r.log.String(), "refused by a quota"); lines != 1 {
			t.Errorf("%d lines are logged in the first minute, want one:\n%s", lines, r.log)
		}
		world.FailOn("create", "pods", forbidden("exceeded quota: instances, limited: pods=20"))
		time.Sleep(quotaLogPeriod)
		flood(kubetest.TemplateName, 1, 1)
		if !strings.Contains(r.log.String(), "refused=400") || !strings.Contains(r.log.String(), "pods=20") {
			t.Errorf("want a line with the refusals since the first, and the cause:\n%s", r.log)
		}
	})
}

// At most maxWriting launches write at the same time. Others wait for a while, and then
// fail without a write.
func TestLaunchesAreFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var writing, busy, ok atomic.Int64
		var reached atomic.Bool
		slow := &hookedPods{before: func(context.Context) error {
			now := writing.Add(1)
			defer writing.Add(-1)
			if now > maxWriting {
				t.Errorf("%d write at once", now)
			}
			reached.Store(now == maxWriting || reached.Load())
			time.Sleep(writeWait - time.Second/2)
			return nil
		}}
		world := newWorld(time.Now, kubetest.Template(kubetest.TemplateName))
		r := newReplica(t, world, slow.into)
		began := time.Now()
		var launches sync.WaitGroup
		for n := range 10 * maxWriting {
			launches.Go(func() {
				switch _, err := r.Launch(t.Context(), Request{Template: kubetest.TemplateName, IdempotencyKey: fmt.Sprint("key", n)}); {
				case err == nil:
					ok.Add(1)
				case errors.Is(err, ErrBusy):
					if waited := time.Since(began); waited != writeWait {
						t.Errorf("refused after %s, want %s", waited, writeWait)
					}
					busy.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		gone, cancel := context.WithCancel(t.Context())
		launches.Go(func() {
			if _, err := r.Launch(gone, Request{Template: kubetest.TemplateName, IdempotencyKey: "gone"}); !errors.Is(err, context.Canceled) {
				t.Errorf("a client that has gone: got %v", err)
			}
		})
		synctest.Wait()
		cancel()
		launches.Wait()
		// Two rounds of writes begin within the wait.
		if !reached.Load() || ok.Load() != 2*maxWriting || busy.Load() != 8*maxWriting {
			t.Errorf("as many as can wrote at once: %t; %d succeeded, %d were refused", reached.Load(), ok.Load(), busy.Load())
		}
		r.launch(t, "later")
	})
}
