package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/tombstone"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"

	"github.com/binder-project/binder-deploy-kubernetes/internal/launch"

	"github.com/binder-project/binder-deploy-kubernetes/internal/protocol"
)

// poolReplica is a launcher on a read model of its own.
func poolReplica(t testing.TB, server *poolServer) *launch.Launcher {
	t.Helper()
	cluster, read := poolCluster(t, server)
	remover := &tombstone.Remover{Client: server.client, Namespace: poolNamespace, Now: server.now}
	launcher, err := launch.New(server.client.CoreV1().Pods(poolNamespace), cluster, kubetest.StartTimeout, clusterTemplates{cluster}, remover,
		metrics.New("test", metricValues()), poolLog(), server.now, rand.Reader, protocol.NewAPIKey("a key").InstanceID)
	if err != nil {
		t.Fatal(err)
	}
	read()
	return launcher
}

func wantClaims(t testing.TB, l *launch.Launcher, warm, lost, empty float64) {
	t.Helper()
	got := func(result launch.ClaimResult) float64 {
		return poolMetric(t, l.Metrics, "binder_pool_claims_total", string(result))
	}
	if got(launch.ClaimWarm) != warm || got(launch.ClaimLostRace) != lost || got(launch.ClaimEmpty) != empty {
		t.Errorf("claims: %v warm, %v lost, %v empty; want %v, %v, %v",
			got(launch.ClaimWarm), got(launch.ClaimLostRace), got(launch.ClaimEmpty), warm, lost, empty)
	}
}

// A claim is one write, after which an old pod is a new instance.
func TestClaim(t *testing.T) {
	template := poolTemplate("jupyter", "1")
	server := newPoolServer(func() time.Time { return poolNoon }, template, poolPod(t, template, 7, poolNoon.Add(-30*time.Hour)))
	launcher := poolReplica(t, server)
	warm := fmt.Sprintf("%032x", 7)
	if inst, known := launcher.Instances.Instance(warm); known {
		t.Errorf("before the claim it is known as %+v", inst)
	}
	if all := launcher.Instances.Instances(""); len(all) != 0 {
		t.Errorf("before the claim there are %+v", all)
	}
	waiting := make(chan instance.Instance, 1)
	go func() { // whoever asks for the id too early is woken by the claim
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		inst, _ := launcher.Instances.Await(ctx, warm, func(_ instance.Instance, known bool) bool { return known })
		waiting <- inst
	}()

	id, err := launcher.Launch(t.Context(), launch.Request{Template: "jupyter", CullTimeout: 90 * time.Second})
	if err != nil || id != warm {
		t.Fatalf("got %q, %v; want the warm pod's id %q", id, err, warm)
	}
	if patches, creates := server.written("patch"), server.written("create"); len(patches) != 1 || len(creates) != 0 {
		t.Errorf("wrote %q and created %q, want one patch", patches, creates)
	}
	inst, known := launcher.Instances.Instance(id)
	if !known || inst.Status != instance.StatusDeployed || inst.Address != "10.0.0.9:8888" {
		t.Errorf("it is %+v, %t; want deployed at once", inst, known)
	}
	if inst := <-waiting; inst.Status != instance.StatusDeployed {
		t.Errorf("who waited was told %+v", inst)
	}
	pod, err := server.get(instance.PodName(id))
	if err != nil {
		t.Fatal(err)
	}
	if _, pooled := pod.Labels[instance.PoolLabel]; pooled {
		t.Errorf("the labels are %v", pod.Labels)
	}
	if got := pod.Annotations; got[instance.LastActivityAnnotation] != instance.FormatTime(poolNoon) ||
		got[instance.LaunchedAnnotation] != instance.FormatTime(poolNoon) || got[instance.ActivitySourceAnnotation] != "launch" || got[instance.CullTimeoutAnnotation] != "1m30s" {
		t.Errorf("the annotations are %v", got)
	}
	wantClaims(t, launcher, 1, 0, 0)
	poolEventually(t, "the launch was timed", func() bool {
		return poolMetric(t, launcher.Metrics, "binder_launch_duration_seconds", "") == 1
	})
	launcher.Mu.Lock()
	defer launcher.Mu.Unlock()
	if len(launcher.Launching) != 0 || len(launcher.Claiming.Names) != 0 {
		t.Errorf("left over are %v and %v", launcher.Launching, launcher.Claiming.Names)
	}
}

// An instance is as old as its claim and not as its pod.
func TestClaimedPodIsNotIdle(t *testing.T) {
	template := poolTemplate("jupyter", "1")
	pod := poolPod(t, template, 1, poolNoon.Add(-1000*time.Hour))
	delete(pod.Labels, instance.PoolLabel)
	pod.Annotations[instance.LastActivityAnnotation] = instance.FormatTime(poolNoon)
	pod.Annotations[instance.CullTimeoutAnnotation] = "1h"
	policy := cullPolicy{cullTimeout: time.Hour, startTimeout: poolStartTimeout, since: poolNoon.Add(-2000 * time.Hour)}
	for age, want := range map[time.Duration]action{0: keep, 59 * time.Minute: keep, 66 * time.Minute: end} {
		if v := judge(pod, poolNoon.Add(age), policy); v.action != want {
			t.Errorf("%s after the claim: %+v, want action %d", age, v, want)
		}
	}
	// One that breaks down then gets the whole start timeout.
	pod.Status.Conditions[1].Status = corev1.ConditionFalse
	pod.Status.Conditions[1].LastTransitionTime.Time = poolNoon
	if v := judge(pod, poolNoon.Add(poolStartTimeout-time.Second), policy); v.action != keep {
		t.Errorf("unready within the start timeout: %+v", v)
	}
}

func TestClaimable(t *testing.T) {
	template, old := poolTemplate("jupyter", "1"), poolTemplate("jupyter", "1")
	old.Annotations[instance.PortAnnotation] = "9999"
	now := poolNoon
	pod := func(n int, age time.Duration, changes ...func(*corev1.Pod)) *corev1.Pod {
		return poolPod(t, template, n, now.Add(-age), changes...)
	}
	unschedulable := func(pod *corev1.Pod) {
		poolStarting(pod)
		pod.Status.Conditions[0].Status = corev1.ConditionFalse
	}
	pulling := func(reason string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { poolStarting(pod); poolWaiting(reason)(pod) }
	}
	warm := []*corev1.Pod{
		pod(1, time.Second, poolStarting),
		pod(2, time.Minute, poolStarting),
		pod(3, time.Hour),
		pod(4, 1000*time.Hour),
		pod(5, time.Hour, poolDeleting),
		pod(6, time.Hour, poolPhase(corev1.PodFailed)),
		pod(7, time.Minute, poolPhase(corev1.PodSucceeded)),
		pod(8, poolStartTimeout/2+time.Second, poolStarting),
		pod(9, time.Minute, unschedulable),
		pod(10, time.Minute, pulling("ErrImagePull")),
		pod(11, time.Minute, pulling("CrashLoopBackOff")),
		pod(12, time.Minute, poolStarting, poolRestarted(1)),
		poolPod(t, old, 13, now.Add(-time.Hour)),
	}
	firsts := map[string]bool{}
	for range 200 {
		got := launch.Claimable(warm, podtemplate.Hash(template), now, poolStartTimeout)
		if len(got) != 4 {
			t.Fatalf("got %d pods, want the 4 first", len(got))
		}
		for i, pod := range got {
			if serving := pod == warm[2] || pod == warm[3]; serving != (i < 2) {
				t.Fatalf("place %d is %s: those that serve must come first", i, pod.Name)
			}
		}
		firsts[got[0].Name] = true
	}
	if len(firsts) != 2 {
		t.Errorf("the first is always %v: replicas would collide", firsts)
	}
}

func TestClaimFallsBack(t *testing.T) {
	template := poolTemplate("jupyter", "2")
	conflict := apierrors.NewConflict(poolPods.GroupResource(), "x", errors.New("changed"))
	gone := apierrors.NewNotFound(poolPods.GroupResource(), "x")
	for _, test := range []struct {
		name              string
		refusals          []error // of the first patches
		template          *corev1.PodTemplate
		pods              int
		wantWarm, wantErr bool
		warm, lost, empty float64
	}{
		{name: "empty pool", template: template, empty: 1},
		{name: "lost to another", template: template, refusals: []error{conflict}, pods: 2, wantWarm: true, warm: 1, lost: 1},
		{name: "pod gone", template: template, refusals: []error{gone}, pods: 2, wantWarm: true, warm: 1, lost: 1},
		{name: "all lost", template: template, refusals: []error{conflict, gone}, pods: 2, lost: 2, empty: 1},
		{name: "API server away", template: template, refusals: []error{errors.New("away"), errors.New("away")}, pods: 2, wantErr: true},
		{name: "no pool", template: poolTemplate("jupyter", "0"), pods: 2},
		{name: "invalid size", template: poolTemplate("jupyter", "two"), pods: 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := newPoolServer(func() time.Time { return poolNoon }, test.template)
			for n := range test.pods {
				if err := server.client.Tracker().Add(poolPod(t, test.template, n, poolNoon.Add(-time.Hour))); err != nil {
					t.Fatal(err)
				}
			}
			launcher := poolReplica(t, server)
			tried := map[string]bool{}
			server.refusing(func(verb, name string) error {
				if verb != "patch" {
					return nil
				}
				if tried[name] {
					t.Errorf("%s is tried again", name)
				}
				tried[name] = true
				if len(tried) <= len(test.refusals) {
					return test.refusals[len(tried)-1]
				}
				return nil
			})
			id, err := launcher.Launch(t.Context(), launch.Request{Template: "jupyter"})
			if (err != nil) != test.wantErr {
				t.Fatalf("got %q and error %v", id, err)
			}
			created := len(server.written("create"))
			if warm := err == nil && created == 0; warm != test.wantWarm || created > 1 {
				t.Errorf("created %d pods; warm: %t, want %t", created, warm, test.wantWarm)
			}
			wantClaims(t, launcher, test.warm, test.lost, test.empty)
			if _, known := launcher.Instances.Instance(id); err == nil && !known {
				t.Errorf("instance %s is not known", id)
			}
		})
	}
}

// TestClaimsAtOnce: 40 launches by two replicas for 25 warm pods.
func TestClaimsAtOnce(t *testing.T) {
	const pods, launches = 25, 40
	template := poolTemplate("jupyter", "25")
	server := newPoolServer(func() time.Time { return poolNoon }, template)
	for n := range pods {
		if err := server.client.Tracker().Add(poolPod(t, template, n, poolNoon.Add(-time.Hour))); err != nil {
			t.Fatal(err)
		}
	}
	replicas := []*launch.Launcher{poolReplica(t, server), poolReplica(t, server)}
	ids := make([]string, launches)
	var running sync.WaitGroup
	for i := range launches {
		running.Go(func() {
			var err error
			if ids[i], err = replicas[i%2].Launch(t.Context(), launch.Request{Template: "jupyter"}); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	seen := map[string]bool{}
	for _, id := range ids {
		if seen[id] {
			t.Errorf("%s was given twice", id)
		}
		seen[id] = true
	}
	if claimed, created := len(server.written("patch")), len(server.written("create")); claimed > pods || claimed+created != launches {
		t.Errorf("%d claimed and %d created, for %d launches", claimed, created, launches)
	}
}

func TestReservations(t *testing.T) {
	var r launch.Reservations
	if !r.Reserve("a") || r.Reserve("a") || !r.Reserve("b") {
		t.Error("a name is reserved twice, or not at all")
	}
	r.Release([]string{"a"})
	if !r.Reserve("a") || r.Reserve("b") {
		t.Error("released is not what was to be")
	}
}

// A claim that the API server refuses is no reason to launch nothing: a pod that
// is created may pass.
func TestClaimRefusedFallsBack(t *testing.T) {
	template := poolTemplate("jupyter", "1")
	server := newPoolServer(func() time.Time { return poolNoon }, template, poolPod(t, template, 7, poolNoon.Add(-time.Hour)))
	launcher := poolReplica(t, server)
	server.refusing(func(verb, name string) error {
		if verb == "patch" {
			return apierrors.NewForbidden(poolPods.GroupResource(), name, errors.New("an admission webhook denied it"))
		}
		return nil
	})
	id, err := launcher.Launch(t.Context(), launch.Request{Template: "jupyter"})
	if err != nil || id == fmt.Sprintf("%032x", 7) {
		t.Errorf("got %q, %v; want a new pod's id", id, err)
	}
	wantClaims(t, launcher, 0, 0, 1)
}

// What another replica claimed a moment earlier is not measured as a launch of
// this one, though its claim reaches the watch before the refusal of ours.
func TestClaimOfAnotherIsNotMeasured(t *testing.T) {
	template := poolTemplate("jupyter", "1")
	server := newPoolServer(func() time.Time { return poolNoon }, template, poolPod(t, template, 7, poolNoon.Add(-time.Hour)))
	launcher := poolReplica(t, server)
	theirs := fmt.Sprintf("%032x", 7)
	server.refusing(func(verb, name string) error {
		if verb != "patch" {
			return nil
		}
		pod, err := server.get(name)
		if err != nil {
			return err
		}
		delete(pod.Labels, instance.PoolLabel)
		pod.Annotations[instance.LastActivityAnnotation] = instance.FormatTime(poolNoon)
		if err := server.update(pod); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		launcher.Instances.Await(ctx, theirs, func(_ instance.Instance, known bool) bool { return known })
		return nil
	})
	id, err := launcher.Launch(t.Context(), launch.Request{Template: "jupyter"})
	if err != nil || id == theirs {
		t.Fatalf("got %q, %v; want a new pod's id", id, err)
	}
	wantClaims(t, launcher, 0, 1, 1)
	if inst, known := launcher.Instances.Instance(theirs); !known || inst.Status != instance.StatusDeployed {
		t.Errorf("theirs is %+v, %t", inst, known)
	}
	if got := poolMetric(t, launcher.Metrics, "binder_launch_duration_seconds", ""); got != 0 {
		t.Errorf("%v launches are measured, and the only one has not come to anything", got)
	}
}
