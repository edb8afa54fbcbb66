package pages

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// TestSteps checks the steps of an instance that was launched at noon, and how long each took, 75 s
// later.
func TestSteps(t *testing.T) {
	at := func(seconds int) time.Time { return kubetest.Noon.Add(time.Duration(seconds) * time.Second) }
	for _, test := range []struct {
		name               string
		status             instance.Status
		reason             string
		scheduled, started time.Time
		want               string
		waited             time.Duration
	}{
		{"waits for a place", instance.StatusPending, instance.ReasonQueued, time.Time{}, time.Time{}, "queue now 1:15, node next, prepare next, start next, open next", 0},
		{"has its place, and waits for a node", instance.StatusPending, "", time.Time{}, time.Time{}, "queue done 2:05, node now 1:15, prepare next, start next, open next", 125 * time.Second},
		{"has waited, and runs", instance.StatusDeploying, "", at(2), at(70), "queue done 0:01, node done 0:02, prepare done 1:08, start now 0:05, open next", 1500 * time.Millisecond},
		{"waits for a node", instance.StatusPending, "", time.Time{}, time.Time{}, "node now 1:15, prepare next, start next, open next", 0},
		{"fetches its image", instance.StatusDeploying, "", at(2), time.Time{}, "node done 0:02, prepare now 1:13, start next, open next", 0},
		{"runs", instance.StatusDeploying, "", at(2), at(70), "node done 0:02, prepare done 1:08, start now 0:05, open next", 0},
		{"had its node before the launch", instance.StatusDeploying, "", at(-5), at(70), "node done 0:00, prepare done 1:10, start now 0:05, open next", 0},
		{"does not say when it had its node", instance.StatusDeploying, "", time.Time{}, at(70), "node done, prepare done 1:10, start now 0:05, open next", 0},
		{"is ready", instance.StatusDeployed, "", time.Time{}, time.Time{}, "node done, prepare done, start done, open now 1:15", 0},
		{"has failed", instance.StatusFailed, "Error", time.Time{}, time.Time{}, "node next, prepare next, start next, open next", 0},
		{"runs, by a clock that is ahead", instance.StatusDeploying, "", at(2), at(80), "node done 0:02, prepare done 1:18, start now 0:00, open next", 0},
	} {
		inst := instance.Instance{Status: test.status, Reason: test.reason, Launched: kubetest.Noon, Waited: test.waited, Scheduled: test.scheduled, Started: test.started}
		var got []string
		for _, s := range steps(inst, at(75)) {
			got = append(got, strings.TrimSpace(fmt.Sprint(s.Name, " ", s.State, " ", s.Took)))
		}
		if got := strings.Join(got, ", "); got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}
