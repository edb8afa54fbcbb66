package protocol

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func TestPreferredWait(t *testing.T) {
	for _, row := range []struct {
		headers []string
		want    time.Duration
		given   bool
	}{
		{nil, 0, false},
		{[]string{""}, 0, false},
		{[]string{"wait=10"}, 10 * time.Second, true},
		{[]string{"WAIT = 10"}, 10 * time.Second, true},
		{[]string{`wait="10"`}, 10 * time.Second, true},
		{[]string{`wait="1\0"`}, 10 * time.Second, true},
		{[]string{"wait=0"}, 0, true},
		{[]string{"wait=60"}, time.Minute, true},
		{[]string{"wait=61"}, time.Minute, true},
		{[]string{"wait=99999999999999999999999999"}, time.Minute, true},
		{[]string{"wait=10; why=not"}, 10 * time.Second, true},
		{[]string{"respond-async, wait=10"}, 10 * time.Second, true},
		{[]string{"respond-async", "return=minimal , wait=10"}, 10 * time.Second, true},
		{[]string{`foo="a, wait=1", wait=2`}, 2 * time.Second, true},
		{[]string{`foo="a\", wait=1", wait=2`}, 2 * time.Second, true},
		{[]string{`foo; wait=1, wait=2`}, 2 * time.Second, true},
		{[]string{`foo; bar="x;y, wait=1"; wait=3, wait=2`}, 2 * time.Second, true},
		{[]string{"wait=1, wait=2"}, time.Second, true},
		{[]string{",, wait=1"}, time.Second, true},
		{[]string{`foo="bar, wait=1`, "wait=2"}, 2 * time.Second, true},
		{[]string{"wait=soon, wait=2"}, 0, false}, // the first counts
		{[]string{"wait"}, 0, false},
		{[]string{"wait="}, 0, false},
		{[]string{`wait=""`}, 0, false},
		{[]string{"wait=-1"}, 0, false},
		{[]string{"wait=+1"}, 0, false},
		{[]string{"wait=1.5"}, 0, false},
		{[]string{"wait=1 2"}, 0, false},
		{[]string{"wait=10s"}, 0, false},
		{[]string{`wait="10`}, 0, false},
		{[]string{`wait="10"0`}, 0, false},
		{[]string{`wait="\`}, 0, false},
		{[]string{"waiting=10, xwait=10"}, 0, false},
	} {
		if got, given := PreferredWait(row.headers); got != row.want || given != row.given {
			t.Errorf("%q is read as %s, %t; want %s, %t", row.headers, got, given, row.want, row.given)
		}
	}
}

// startingWorld has one instance, which is starting.
func startingWorld() *kubetest.World {
	return kubetest.NewWorld(time.Now, nil, kubetest.Pod(kubetest.ID(1), time.Now(), kubetest.Starting))
}

// becomes makes the pod of the instance what it would be after changes.
func becomes(t testing.TB, world *kubetest.World, changes ...func(*corev1.Pod)) {
	t.Helper()
	world.PutPod(t, kubetest.Pod(kubetest.ID(1), time.Now(), changes...))
}

// TestAwaitSettled: a request is held until the launch has ended, and no longer than
// the client, the server or the time asked for allow.
func TestAwaitSettled(t *testing.T) {
	for _, row := range []struct {
		name  string
		id    string
		after func(t testing.TB, world *kubetest.World, goAway, drain func()) // what happens after 2 s
		took  time.Duration
		want  instance.Status // "" if nothing is known
	}{
		{"deployed", kubetest.ID(1), func(t testing.TB, world *kubetest.World, _, _ func()) { becomes(t, world) }, 2 * time.Second, instance.StatusDeployed},
		{"failed", kubetest.ID(1), func(t testing.TB, world *kubetest.World, _, _ func()) { becomes(t, world, kubetest.Broken) }, 2 * time.Second, instance.StatusFailed},
		{"deleted", kubetest.ID(1), func(t testing.TB, world *kubetest.World, _, _ func()) { becomes(t, world, kubetest.Deleting) }, 2 * time.Second, instance.StatusDeleted},
		{"another step", kubetest.ID(1), func(t testing.TB, world *kubetest.World, _, _ func()) { becomes(t, world, kubetest.Unscheduled) }, 7 * time.Second, instance.StatusPending},
		{"the client goes", kubetest.ID(1), func(_ testing.TB, _ *kubetest.World, goAway, _ func()) { goAway() }, 2 * time.Second, instance.StatusDeploying},
		{"the server stops", kubetest.ID(1), func(_ testing.TB, _ *kubetest.World, _, drain func()) { drain() }, 2 * time.Second, instance.StatusDeploying},
		{"unknown", kubetest.ID(2), func(testing.TB, *kubetest.World, func(), func()) {}, 7 * time.Second, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world := startingWorld()
				ctx, goAway := context.WithCancel(t.Context())
				draining, drain := context.WithCancel(t.Context())
				time.AfterFunc(2*time.Second, func() { row.after(t, world, goAway, drain) })
				w, began := httptest.NewRecorder(), time.Now()
				r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
				inst, known := AwaitSettled(w, r, world, row.id, 7*time.Second, draining)
				if took := time.Since(began); took != row.took || inst.Status != row.want || known != (row.want != "") {
					t.Errorf("after %s: %q, known %t; want %q after %s", took, inst.Status, known, row.want, row.took)
				}
				if got := w.Header().Get("Preference-Applied"); got != "wait=7" {
					t.Errorf("Preference-Applied is %q", got)
				}
				goAway()
				drain()
			})
		})
	}
}
