package launch

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// claimFor makes a warm pod an instance, as another replica does for the key "retry".
func claimFor(t testing.TB, world *kubetest.World, id string) {
	world.ChangePod(t, instance.PodName(id), func(pod *corev1.Pod) {
		delete(pod.Labels, instance.PoolLabel)
		pod.Annotations[instance.ClaimedForAnnotation] = retryID
		pod.Annotations[instance.LastActivityAnnotation] = instance.FormatTime(time.Now())
	})
}

// A launch that may claim a warm pod is found by repeated requests at any replica, whether it has
// claimed one or not, and whenever they come. Where nothing was launched, one of them launches.
func TestWarmLaunchIsFound(t *testing.T) {
	warm := kubetest.ID(100)
	for name, row := range map[string]struct {
		size   string
		pods   int           // that are warm
		first  bool          // the first request is made, before the others
		during time.Duration // when another replica claims the pod, after the repeated requests have begun; 0 for never
		want   string
		waits  time.Duration
		late   time.Duration // of the first request, after its key was made
	}{
		"a warm pod":                    {"1", 1, true, 0, warm, 0, 0},
		"a warm pod, nearly too late":   {"1", 1, true, 0, warm, 0, writeWait},
		"too late for a warm pod":       {"1", 1, true, 0, retryID, 0, writeWait + 1},
		"an empty pool":                 {"1", 0, true, 0, retryID, 0, 0},
		"no pool":                       {"0", 0, true, 0, retryID, 0, 0},
		"claimed meanwhile":             {"1", 1, false, time.Second, warm, time.Second, 0},
		"claimed at the last moment":    {"1", 1, false, claimWait - claimLook, warm, claimWait - claimLook, 0},
		"nothing was launched":          {"1", 1, false, 0, retryID, claimWait, 0},
		"nothing was launched, no pool": {"0", 0, false, 0, retryID, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			template := poolTemplate(row.size)
			world := newWorld(time.Now, template)
			for range row.pods {
				world.PutPod(t, warmPod(template, 100))
			}
			replicas := []*replica{newReplica(t, world), newReplica(t, world)}
			req := Request{Template: template.Name, IdempotencyKey: "retry", Warm: true, KeyMade: time.Now().Add(-row.late)}
			if row.first {
				if id, err := replicas[0].Launch(t.Context(), req); err != nil || id != row.want {
					t.Errorf("%s: got %q, %v; want %q", name, id, err, row.want)
				}
			}
			if row.during > 0 {
				time.AfterFunc(row.during, func() { claimFor(t, world, warm) })
			}
			req.Repeated = true
			began, ids := time.Now(), make([]string, 4)
			var asking sync.WaitGroup
			for i := range ids {
				asking.Go(func() {
					var err error
					if ids[i], err = replicas[i%2].Launch(t.Context(), req); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				})
			}
			asking.Wait()
			if took := time.Since(began); took < row.waits || took > row.waits+claimLook {
				t.Errorf("%s: took %s, want %s", name, took, row.waits)
			}
			slices.Sort(ids)
			if instances := world.Instances(template.Name); !slices.Equal(slices.Compact(ids), []string{row.want}) || len(instances) != 1 {
				t.Errorf("%s: got %q and %d instances, want %q", name, ids, len(instances), row.want)
			}
		})
	}
}

// Nobody finds the pod of another key, and the annotation leads to no instance itself.
func TestClaimedForIsOfOneKey(t *testing.T) {
	r := poolReplica(t, "1", 1)
	first, err := r.Launch(t.Context(), Request{Template: kubetest.TemplateName, IdempotencyKey: "retry", Warm: true, KeyMade: time.Now()})
	if err != nil || first != kubetest.ID(100) {
		t.Fatalf("got %q, %v", first, err)
	}
	pod, err := r.world.StoredPod(instance.PodName(first))
	if err != nil {
		t.Fatal(err)
	}
	if got := pod.Annotations[instance.ClaimedForAnnotation]; got != retryID {
		t.Errorf("the annotation is %q, want %q", got, retryID)
	}
	if inst, known := r.world.Instance(retryID); known {
		t.Errorf("the annotation leads to %+v", inst)
	}
	other, err := r.Launch(t.Context(), Request{Template: kubetest.TemplateName, IdempotencyKey: "other", Warm: true, KeyMade: time.Now()})
	if err != nil || other == first || other == retryID {
		t.Errorf("another key got %q, %v", other, err)
	}
}
