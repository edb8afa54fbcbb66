package launch

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// reports are what a Reporter was told.
type reports struct{ told []string }

func (r *reports) tell(pod *corev1.Pod, what string) {
	if pod.UID == "" {
		what += " of no pod"
	}
	r.told = append(r.told, what)
}

func (r *reports) Launched(pod *corev1.Pod, warm bool) {
	r.tell(pod, fmt.Sprintf("launched, warm %t", warm))
}

func (r *reports) Ready(pod *corev1.Pod, took time.Duration) { r.tell(pod, "ready") }

func (r *reports) Failed(pod *corev1.Pod, inst instance.Instance) {
	r.tell(pod, "failed: "+inst.Reason)
}

// Everything is reported once, by the replica that launched.
func TestReports(t *testing.T) {
	for name, test := range map[string]struct {
		key     string
		warm    bool
		changes []func(*corev1.Pod) // nil for a pod that is gone
		want    []string
	}{
		"ready":       {"", false, []func(*corev1.Pod){kubetest.Starting, kubetest.ReadySince(kubetest.Noon), kubetest.Broken}, []string{"launched, warm false", "ready"}},
		"with a key":  {"a key", false, []func(*corev1.Pod){kubetest.ReadySince(kubetest.Noon)}, []string{"launched, warm false", "ready"}},
		"failed":      {"", false, []func(*corev1.Pod){kubetest.Broken, kubetest.Broken}, []string{"launched, warm false", "failed: Error"}},
		"completed":   {"", false, []func(*corev1.Pod){kubetest.Completed}, []string{"launched, warm false"}},
		"gone":        {"", false, []func(*corev1.Pod){nil}, []string{"launched, warm false"}},
		"from a pool": {"", true, []func(*corev1.Pod){kubetest.Broken}, []string{"launched, warm true", "ready"}},
	} {
		template := poolTemplate("1")
		world := newWorld(kubetest.ClockAt(kubetest.Noon), template)
		if test.warm {
			world.PutPod(t, warmPod(template, 9))
		}
		own, others := &reports{}, &reports{}
		r := newReplica(t, world, func(deps *Deps) { deps.Reporter = own })
		other := newReplica(t, world, func(deps *Deps) { deps.Reporter = others })
		id := r.launch(t, test.key)
		if test.key != "" {
			other.launch(t, test.key)
		}
		for _, change := range test.changes {
			if change == nil {
				world.DropPod(t, instance.PodName(id))
				continue
			}
			world.PutPod(t, kubetest.Pod(id, kubetest.Noon, change))
		}
		if !slices.Equal(own.told, test.want) || len(others.told) > 0 {
			t.Errorf("%s: reported are %q, want %q; and by another replica %q", name, own.told, test.want, others.told)
		}
	}
}

// A launch whose pod the watch delivers late is reported then, also if it ends at once.
func TestReportsOfALateWatch(t *testing.T) {
	for name, end := range map[string]func(*kubetest.World, string){
		"ready": func(world *kubetest.World, id string) { world.PutPod(t, kubetest.Pod(id, kubetest.Noon)) },
		"gone":  func(world *kubetest.World, id string) { world.DropPod(t, instance.PodName(id)) },
	} {
		world, told := newWorld(kubetest.ClockAt(kubetest.Noon)), &reports{}
		r := newReplica(t, world, func(deps *Deps) { deps.Reporter = told })
		r.measure(kubetest.ID(1), &measured{began: kubetest.Noon})
		if len(told.told) > 0 {
			t.Errorf("%s: reported are %q, before the pod is known", name, told.told)
		}
		world.PutPod(t, kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.Starting))
		end(world, kubetest.ID(1))
		if len(told.told) == 0 || told.told[0] != "launched, warm false" {
			t.Errorf("%s: reported are %q", name, told.told)
		}
	}
}
