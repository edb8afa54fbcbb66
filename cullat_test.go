package main

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"
)

// What clients are told is what the culler does: it ends an instance at that
// moment and not before.
func TestCullAtIsWhenItIsCulled(t *testing.T) {
	const moment = time.Millisecond
	used := kubetest.Noon.Add(10*time.Hour + 123*time.Millisecond)
	for name, change := range map[string]func(*corev1.Pod){
		"never used":            changes(),
		"used":                  kubetest.LastUsed(used),
		"own timeout":           changes(kubetest.LastUsed(used), kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "90s")),
		"own max age":           changes(kubetest.LastUsed(used), kubetest.WithAnnotation(instance.MaxAgeAnnotation, "11h")),
		"the server's max age":  kubetest.LastUsed(kubetest.Noon.Add(48 * time.Hour)),
		"used too recently":     kubetest.LastUsed(kubetest.Noon.Add(12*time.Hour + time.Minute)), // within what clocks differ by
		"claimed":               changes(kubetest.LastUsed(used), kubetest.LaunchedAt(used), kubetest.WithAnnotation(instance.MaxAgeAnnotation, "30m")),
		"launched unreadably":   changes(kubetest.LastUsed(used), kubetest.WithAnnotation(instance.LaunchedAnnotation, "?")),
		"not ready, just begun": unready(used.Add(-time.Minute)),
	} {
		policy := cullPolicy{cullTimeout: time.Hour, startTimeout: kubetest.StartTimeout, maxAge: 48 * time.Hour}
		pod := kubetest.Pod(kubetest.ID(1), kubetest.Noon, change)
		now := kubetest.Noon.Add(12 * time.Hour)
		switch name {
		case "not ready, just begun":
			now = used
		case "the server's max age":
			now = kubetest.Noon.Add(48 * time.Hour)
		}
		inst := instance.Instance{Status: instance.StatusDeployed}
		tellLifetime(&inst, pod, now, policy)
		if inst.CullAt.IsZero() || inst.LastActivity.IsZero() {
			t.Errorf("%s: told is %+v", name, inst)
			continue
		}
		if name == "not ready, just begun" { // as it will be at that time
			pod.Status.Conditions[1].LastTransitionTime.Time = inst.CullAt
		}
		if got := judge(pod, inst.CullAt.Add(-moment), policy); got.action == end {
			t.Errorf("%s: to be culled at %s, a moment before it is %+v", name, inst.CullAt, got)
		}
		if got := judge(pod, inst.CullAt, policy); got.action != end {
			t.Errorf("%s: to be culled at %s, then it is %+v", name, inst.CullAt, got)
		}
	}
}

// The longest of timeouts is no short one.
func TestLongestTimeout(t *testing.T) {
	pod := kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "2562047h"))
	at, _ := dueEnd(pod, kubetest.Noon, kubetest.Noon, cullPolicy{cullTimeout: time.Hour})
	if at.Year() < 2300 {
		t.Errorf("it ends at %s", at)
	}
}

func TestNothingIsToldOfWhatIsOver(t *testing.T) {
	policy := cullPolicy{cullTimeout: time.Hour, startTimeout: kubetest.StartTimeout, maxAge: time.Hour}
	for name, change := range map[string]func(*corev1.Pod){
		"deleting": kubetest.Deleting, "broken": kubetest.Broken, "completed": kubetest.Completed,
		"mangled": kubetest.WithAnnotation(instance.LastActivityAnnotation, "mangled"),
		"missing": func(pod *corev1.Pod) { delete(pod.Annotations, instance.LastActivityAnnotation) },
		"ahead":   kubetest.LastUsed(kubetest.Noon.Add(time.Hour)),
	} {
		pod := kubetest.Pod(kubetest.ID(1), kubetest.Noon, change, kubetest.WithAnnotation(instance.ActivitySourceAnnotation, "http"))
		inst := instance.FromPod(pod, kubetest.Noon, kubetest.StartTimeout)
		bare := inst
		if tellLifetime(&inst, pod, kubetest.Noon, policy); inst != bare {
			t.Errorf("%s: told is %+v", name, inst)
		}
	}
}

// The owner sees it, in the status and in lists, and not once it is over.
func TestStatusTellsLifetime(t *testing.T) {
	zone := time.FixedZone("somewhere", 2*60*60)
	pod := kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.WithAnnotation(instance.ActivitySourceAnnotation, "websocket"),
		kubetest.WithAnnotation(instance.LastActivityAnnotation, kubetest.Noon.Add(time.Minute).In(zone).Format(time.RFC3339)))
	c := startCluster(t, kubetest.ClockAt(kubetest.Noon.Add(2*time.Minute)), pod)
	routes := newTestAPI(c.Cluster, &fakeLauncher{}).Routes()
	const told = `"location": "binder.example:8084/user/00000000000000000000000000000001", "last-activity": "2026-01-02T12:01:00.000Z",
		"last-activity-source": "websocket", "cull-at": "2026-01-02T13:06:02.000Z"`
	status := `{"id": "` + kubetest.ID(1) + `", "template-name": "jupyter", "status": "deployed", ` + told + `}`
	target := "/applications/jupyter/" + kubetest.ID(1)
	wantJSON(t, ask(t, routes, "GET", target, "", ""), status)
	wantJSON(t, ask(t, routes, "GET", "/applications/jupyter", testAPIKey, ""), "["+status+"]")
	wantJSON(t, ask(t, routes, "GET", "/applications", testAPIKey, ""), "["+status+"]")
	wantJSON(t, ask(t, routes, "DELETE", target, testAPIKey, ""),
		`{"id": "`+kubetest.ID(1)+`", "template-name": "jupyter", "status": "deleted", "reason": "Stopped", "message": "`+launch.StoppedMessage+`"}`)
}
