package launch

import (
	"cmp"
	"errors"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func TestStop(t *testing.T) {
	pod := func(changes ...func(*corev1.Pod)) *corev1.Pod {
		return kubetest.Pod(kubetest.ID(1), kubetest.Noon, changes...)
	}
	unavailable := errors.New("the API server is unavailable")
	for _, test := range []struct {
		name     string
		object   runtime.Object // nil for none
		template string
		fails    error // of the Remover
		want     error
		removes  bool
		counted  []string
	}{
		{name: "deployed", object: pod(), removes: true, counted: []string{"ended Stopped after 0s"}},
		{name: "not deployed yet", object: pod(kubetest.Unscheduled), removes: true, counted: []string{"ended Stopped after 0s"}},
		{name: "failed", object: pod(kubetest.Broken), removes: true, counted: []string{"ended Stopped after 0s"}},
		{name: "ended by another replica a moment ago", object: pod(), fails: kubetest.NotFound("x"), removes: true},
		{name: "API server unavailable", object: pod(), fails: unavailable, want: unavailable, removes: true},
		{name: "ended", object: kubetest.Tombstone(pod(), instance.EndCulled, "")},
		{name: "being deleted", object: pod(kubetest.Deleting)},
		{name: "of another template", object: pod(), template: "other", want: ErrNoRecord},
		{name: "nobody's", object: pod(kubetest.WithLabel(instance.PoolLabel, "warm")), want: ErrNoRecord},
		{name: "unknown", object: kubetest.Template("other"), want: ErrNoRecord},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := noonReplica(t, test.object)
			r.world.PauseWatch()
			r.fakeRemover.err = test.fails
			if err := r.Stop(t.Context(), cmp.Or(test.template, kubetest.TemplateName), kubetest.ID(1)); !errors.Is(err, test.want) {
				t.Errorf("got error %v, want %v", err, test.want)
			}
			if want := []string{instance.PodName(kubetest.ID(1))}; test.removes != slices.Equal(r.removed, want) {
				t.Errorf("removed are %q", r.removed)
			}
			// The watch tells nothing, and yet the next answer is right.
			if inst, known := r.world.Instance(kubetest.ID(1)); test.want == nil && (!known || inst.Status != instance.StatusDeleted) {
				t.Errorf("it is %+v, %t; want deleted", inst, known)
			}
			r.wantCounted(t, test.counted...)
		})
	}
}
