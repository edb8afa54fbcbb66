package launch

import (
	"math"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
)

// The kubelet ends an instance an hour after its max age, if nobody else does. A warm pod
// has had a life before, which does not count.
func TestDeadline(t *testing.T) {
	const hour = 3600
	for _, row := range []struct {
		name         string
		server       time.Duration
		template     string // its max age
		own          int64  // the deadline of the template's pod
		created, won int64  // seconds; 0 for none
	}{
		{"no max age", 0, "", 0, 0, 0},
		{"no max age, but the template has a deadline", 0, "", 600, 600, 600},
		{"the server's", 12 * time.Hour, "", 0, 13 * hour, 43 * hour},
		{"the template's", 0, "2h", 0, 3 * hour, 33 * hour},
		{"the template's is shorter", 12 * time.Hour, "2h", 0, 3 * hour, 33 * hour},
		{"the template's is longer", 12 * time.Hour, "20h", 0, 13 * hour, 43 * hour},
		{"a part of a second", 0, "1500ms", 0, hour + 2, 31*hour + 2},
		{"the template has an earlier deadline", 12 * time.Hour, "", 600, 600, 600},
		{"the template has a later deadline", 12 * time.Hour, "", 90 * hour, 13 * hour, 43 * hour},
		{"beyond what the API allows", math.MaxInt64, "", 0, math.MaxInt32, math.MaxInt32},
	} {
		for kind, want := range map[string]int64{"created": row.created, "claimed": row.won} {
			template := poolTemplate("1")
			if row.template != "" {
				template.Annotations[instance.MaxAgeAnnotation] = row.template
			}
			if row.own != 0 {
				template.Template.Spec.ActiveDeadlineSeconds = &row.own
			}
			world := newWorld(kubetest.ClockAt(kubetest.Noon), template)
			if kind == "claimed" { // created 30 hours ago
				world.PutPod(t, warmPod(template, 100, func(pod *corev1.Pod) {
					pod.Spec.ActiveDeadlineSeconds = template.Template.Spec.ActiveDeadlineSeconds
					if row.template != "" {
						pod.Annotations[instance.MaxAgeAnnotation] = row.template
					}
				}))
			}
			r := newReplica(t, world, func(d *Deps) { d.MaxAge = lifetime.Rules{MaxAge: row.server}.MaxAgeOf })
			pod, err := world.StoredPod(instance.PodName(r.launch(t, "")))
			if err != nil {
				t.Fatal(err)
			}
			var got int64
			if pod.Spec.ActiveDeadlineSeconds != nil {
				got = *pod.Spec.ActiveDeadlineSeconds
			}
			if got != want || !instance.IsInstance(pod) || len(world.Writes()) != 1 {
				t.Errorf("%s, %s: the deadline is %d s, want %d, after %v", row.name, kind, got, want, world.Writes())
			}
		}
	}
}
