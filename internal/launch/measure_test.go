package launch

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// slowTemplates take a second to find a template.
type slowTemplates struct{ *kubetest.World }

func (s slowTemplates) Template(ctx context.Context, name string) (*corev1.PodTemplate, error) {
	time.Sleep(time.Second)
	return s.World.Template(ctx, name)
}

// The time from the request to the first moment of use is measured once, by the
// replica that launched.
func TestLaunchDuration(t *testing.T) {
	for _, key := range []string{"", "retry"} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			world := newWorld(time.Now, kubetest.Template(kubetest.TemplateName))
			r := newReplica(t, world, func(deps *Deps) { deps.Templates = slowTemplates{world} })
			other := newReplica(t, world)
			id := r.launch(t, key)
			world.PutPod(t, kubetest.Pod(id, began, kubetest.Starting))
			time.Sleep(3*time.Second - time.Since(began))
			for range 2 { // the second time, it has restarted
				world.PutPod(t, kubetest.Pod(id, began))
				world.PutPod(t, kubetest.Pod(id, began, kubetest.Starting))
			}
			r.wantCounted(t, "launched ok", "took 3s, warm false")
			if want := []string{"scheduled 0s", "started 0s", "listening 3s"}; !slices.Equal(r.phases, want) {
				t.Errorf("the phases are %q, want %q", r.phases, want)
			}
			other.wantCounted(t)
		})
	}
}

// A launch whose instance never is deployed is not measured, even if its pod recovers. One
// that fails is counted with its reason, also if the start timeout made it fail: nobody tells
// of that before it is deleted. One that is stopped is not counted.
func TestFailedLaunch(t *testing.T) {
	for name, test := range map[string]struct {
		after  time.Duration
		change func(*corev1.Pod) // nil for a pod that is gone
		reason string            // that is counted; "" for none
		warns  bool
	}{
		"failed":                    {0, kubetest.Broken, "Error", true},
		"completed":                 {0, kubetest.Completed, "", false},
		"deleted":                   {time.Second, kubetest.Deleting, "", false},
		"gone":                      {time.Second, nil, "", false},
		"deleted after the timeout": {kubetest.StartTimeout, kubetest.Deleting, "StartTimeout", false},
		"gone after the timeout":    {kubetest.StartTimeout, nil, "StartTimeout", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			r := newReplica(t, newWorld(time.Now, kubetest.Template(kubetest.TemplateName)))
			id := r.launch(t, "")
			r.world.PutPod(t, kubetest.Pod(id, began, kubetest.Starting))
			time.Sleep(test.after)
			if test.change == nil {
				r.world.DropPod(t, instance.PodName(id))
			} else {
				r.world.PutPod(t, kubetest.Pod(id, began, test.change))
			}
			if warned := strings.Contains(r.log.String(), "level=WARN"); warned != test.warns {
				t.Errorf("%s: the log is %s", name, r.log)
			}
			r.world.PutPod(t, kubetest.Pod(id, began))
			want := []string{"launched ok"}
			if test.reason != "" {
				want = append(want, "failed "+test.reason)
			}
			r.wantCounted(t, want...)
		})
	}
}

// A replica that dials the pod knows that it is deployed before the pod says so. The phases
// wait for that.
func TestPhasesOfAnEarlyInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		r := newReplica(t, newWorld(time.Now, kubetest.Template(kubetest.TemplateName)))
		id := r.launch(t, "")
		waiting := func(pod *corev1.Pod) {
			pod.Status.ContainerStatuses[0].State = kubetest.Waiting("ContainerCreating", "")
		}
		time.Sleep(2 * time.Second)
		r.world.PutPod(t, kubetest.Pod(id, began, waiting))
		r.wantCounted(t, "launched ok", "took 2s, warm false")
		if r.phases != nil {
			t.Errorf("the phases are %q already", r.phases)
		}
		time.Sleep(time.Second)
		for range 2 {
			r.world.PutPod(t, kubetest.Pod(id, began))
		}
		r.wantCounted(t, "launched ok", "took 2s, warm false")
		if want := []string{"scheduled 0s", "started 0s", "listening 2s"}; !slices.Equal(r.phases, want) {
			t.Errorf("the phases are %q, want %q", r.phases, want)
		}
	})
}
