package podstore

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
)

func testRules() lifetime.Rules {
	return lifetime.Rules{CullTimeout: time.Hour, StartTimeout: kubetest.StartTimeout, MaxAge: 5 * time.Hour, MinCullTimeout: time.Minute}
}

// podsOfTests returns pods in every state that the tests know, by a name.
func podsOfTests(t testing.TB) map[string]*corev1.Pod {
	t.Helper()
	pods := map[string]*corev1.Pod{}
	noon := kubetest.Noon
	for name, change := range map[string]func(*corev1.Pod){
		"deployed":             func(*corev1.Pod) {},
		"unscheduled":          kubetest.Unscheduled,
		"starting":             kubetest.Starting,
		"no image":             kubetest.StartingWith("ImagePullBackOff", "manifest unknown"),
		"not ready":            kubetest.NotReadySince(noon),
		"stopped being ready":  kubetest.NotReadySince(noon.Add(time.Hour)),
		"on a silent node":     kubetest.OnSilentNode(noon.Add(time.Minute)),
		"broken":               kubetest.Broken,
		"completed":            kubetest.Completed,
		"deleting":             kubetest.Deleting,
		"deleting and broken":  kubetest.All(kubetest.Broken, kubetest.Deleting),
		"restarted":            func(p *corev1.Pod) { p.Status.ContainerStatuses[0].RestartCount = 2 },
		"restarted when warm":  kubetest.All(func(p *corev1.Pod) { p.Status.ContainerStatuses[0].RestartCount = 2 }, kubetest.WithAnnotation(instance.RestartsBeforeAnnotation, "2")),
		"claimed for another":  kubetest.WithAnnotation(instance.ClaimedForAnnotation, "0123456789abcdef0123456789abcdef"),
		"warm":                 kubetest.WithLabel(instance.PoolLabel, instance.PoolWarm),
		"stray":                kubetest.WithLabel(instance.IDLabel, "lost"),
		"of a client":          kubetest.WithLabel(instance.ClientLabel, "abcdef"),
		"strips prefix":        kubetest.WithAnnotation(instance.StripPrefixAnnotation, "true"),
		"own timeout":          kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "5m"),
		"invalid timeout":      kubetest.WithAnnotation(instance.CullTimeoutAnnotation, "-5m"),
		"own max age":          kubetest.WithAnnotation(instance.MaxAgeAnnotation, "90m"),
		"own token header":     kubetest.WithAnnotation(instance.TokenHeaderAnnotation, "Authorization: token $(BINDER_TOKEN)"),
		"idle paths":           kubetest.WithAnnotation(instance.IdlePathsAnnotation, "api/status"),
		"unreadable use":       kubetest.WithAnnotation(instance.LastActivityAnnotation, "mangled"),
		"no use":               kubetest.WithoutAnnotation(instance.LastActivityAnnotation),
		"use in the future":    kubetest.LastUsed(noon.Add(30 * time.Minute)),
		"use soon":             kubetest.LastUsed(noon.Add(50 * time.Second)),
		"use in another zone":  kubetest.WithAnnotation(instance.LastActivityAnnotation, "2026-01-02T14:00:00.000+02:00"),
		"use in the year 9999": kubetest.WithAnnotation(instance.LastActivityAnnotation, "9999-12-31T23:59:59Z"),
		"use in the year 1":    kubetest.WithAnnotation(instance.LastActivityAnnotation, "0001-01-01T00:00:00Z"),
		"launched":             kubetest.LaunchedAt(noon.Add(time.Second)),
		"launched later":       kubetest.LaunchedAt(noon.Add(time.Hour)),
		"unreadable launch":    kubetest.WithAnnotation(instance.LaunchedAnnotation, "mangled"),
		"IPv6":                 func(p *corev1.Pod) { p.Status.PodIP = "fd00::7" },
		"the node's network":   func(p *corev1.Pod) { p.Status.HostIP = p.Status.PodIP },
		"controlled": func(p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{{Kind: "DaemonSet", Name: "x", Controller: new(true)}}
		},
		"never created": func(p *corev1.Pod) { p.CreationTimestamp = metav1.Time{} },
	} {
		pods[name] = kubetest.Pod(kubetest.ID(1), noon, change)
	}
	files, err := filepath.Glob("../instance/testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no recorded pods: %v", err)
	}
	for _, file := range files {
		var moments []struct {
			After string
			Pod   *corev1.Pod
		}
		raw, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(raw, &moments)
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, moment := range moments {
			name := filepath.Base(file) + " after " + moment.After
			pods[name] = moment.Pod
			used := moment.Pod.DeepCopy()
			kubetest.LastUsed(kubetest.Noon)(used)
			pods[name+", used"] = used
		}
	}
	return pods
}

// limitsOf returns the times at which anything that is said of a pod can change by the
// clock, and the moments before.
func limitsOf(pod *corev1.Pod, rules lifetime.Rules) (times []time.Time) {
	day := 24 * time.Hour
	limits := []time.Time{kubetest.Noon, kubetest.Noon.Add(-day), kubetest.Noon.Add(day), kubetest.Noon.Add(30 * day)}
	for _, annotation := range []string{instance.LastActivityAnnotation, instance.LaunchedAnnotation} {
		if at, err := time.Parse(time.RFC3339, pod.Annotations[annotation]); err == nil {
			limits = append(limits, at, at.Add(-time.Minute)) // no longer too far in the future
		}
	}
	for _, at := range slices.Clone(limits) {
		end, _ := rules.DueEnd(pod, at, at)
		limits = append(limits, end)
	}
	for _, changed := range []time.Time{pod.CreationTimestamp.Time, instance.ReadyChangedAt(pod)} {
		limits = append(limits, changed.Add(rules.StartTimeout), changed.Add(rules.StartTimeout+lifetime.FailedRetention))
	}
	limits = append(limits, instance.StartEnds(pod, rules.StartTimeout))
	for i := range pod.Status.ContainerStatuses {
		if running := pod.Status.ContainerStatuses[i].State.Running; running != nil {
			limits = append(limits, running.StartedAt.Add(30*time.Second))
		}
	}
	for _, at := range limits {
		times = append(times, at.Add(-time.Nanosecond), at)
	}
	return times
}

// same reports whether two instances are the same, but for how their times are stored.
func same(a, b instance.Instance) bool { return inUTC(a) == inUTC(b) }

func inUTC(inst instance.Instance) instance.Instance {
	for _, at := range []*time.Time{&inst.FailedAt, &inst.Created, &inst.Launched, &inst.Ended, &inst.LastActivity, &inst.CullAt} {
		*at = at.UTC()
	}
	return inst
}

// A record says of a pod exactly what packages instance and lifetime say of the full pod, at
// every time at which it says anything.
func TestRecordSaysTheSame(t *testing.T) {
	rules := testRules()
	asked, answered := 0, 0
	for name, pod := range podsOfTests(t) {
		times := limitsOf(pod, rules)
		made := []time.Time{kubetest.Noon, kubetest.Noon.Add(2 * kubetest.StartTimeout)}
		if !strings.Contains(name, ".json") { // of the recorded ones there are too many
			made = append(made, times...)
		}
		for _, made := range made {
			record := NewRecord(pod, rules, made)
			for _, now := range times {
				want := instance.FromPod(pod, nil, now, rules.StartTimeout)
				rules.Describe(&want, pod, now)
				asked++
				if got, ok := record.Instance(now); ok {
					answered++
					if !same(got, want) || record.Status() != want.Status {
						t.Fatalf("%s, made at %s: at %s it says\n%+v, want\n%+v", name, made, now, got, want)
					}
				}
				for _, held := range []bool{false, true} {
					if verdict := rules.Judge(pod, nil, now, held); record.StaysAt(now) && verdict != (lifetime.Verdict{}) {
						t.Fatalf("%s, made at %s: at %s it stays, want %+v", name, made, now, verdict)
					}
				}
			}
		}
	}
	if answered < asked/2 {
		t.Errorf("only %d of %d were answered", answered, asked)
	}
	record := NewRecord(kubetest.Pod(kubetest.ID(1), kubetest.Noon), rules, kubetest.Noon)
	for _, now := range []time.Time{kubetest.Noon, kubetest.Noon.Add(time.Hour)} {
		if _, ok := record.Instance(now); !ok || !record.StaysAt(now) {
			t.Errorf("a deployed instance is answered: %t, and stays: %t", ok, record.StaysAt(now))
		}
	}
}

// If Warning Events change what is said of a pod, its record says that they can.
func TestByEvents(t *testing.T) {
	rules := testRules()
	for name, pod := range podsOfTests(t) {
		record := NewRecord(pod, rules, kubetest.Noon)
		for _, now := range []time.Time{kubetest.Noon, kubetest.Noon.Add(time.Minute), kubetest.Noon.Add(time.Hour)} {
			without := instance.FromPod(pod, nil, now, rules.StartTimeout)
			for _, reason := range []string{"Unhealthy", "FailedMount", "FailedPostStartHook", "NodeNotReady", "Failed"} {
				event := &corev1.Event{
					InvolvedObject: corev1.ObjectReference{UID: pod.UID, FieldPath: "spec.containers{notebook}"}, Reason: reason,
					Message: "Liveness probe failed: connection refused", FirstTimestamp: metav1.NewTime(now), LastTimestamp: metav1.NewTime(now),
				}
				with := instance.FromPod(pod, []*corev1.Event{event}, now, rules.StartTimeout)
				if with != without && !record.ByEvents {
					t.Errorf("%s: an Event %s makes of it\n%+v, want\n%+v", name, reason, with, without)
				}
			}
		}
	}
	if NewRecord(kubetest.Pod(kubetest.ID(1), kubetest.Noon), rules, kubetest.Noon).ByEvents {
		t.Error("Events are asked for of an instance that is deployed")
	}
}

// What a record keeps of a pod says the same as the pod: to all that reads pods, and with
// the same metadata.
func TestRecordKeepsThePod(t *testing.T) {
	rules := testRules()
	for name, pod := range podsOfTests(t) {
		full := pod.DeepCopy()
		full.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubelet"}}
		record := NewRecord(full, rules, kubetest.Noon)
		if full.ManagedFields == nil || !equality.Semantic.DeepEqual(full.Status, pod.Status) {
			t.Fatalf("%s: the pod was changed", name)
		}
		kept := record.Pod()
		if !equality.Semantic.DeepEqual(kept, Slim(pod)) {
			t.Errorf("%s: kept is\n%+v, want\n%+v", name, kept, Slim(pod))
		}
		for _, now := range limitsOf(pod, rules) {
			if got, want := instance.FromPod(kept, nil, now, rules.StartTimeout), instance.FromPod(pod, nil, now, rules.StartTimeout); !same(got, want) {
				t.Errorf("%s at %s: the instance is\n%+v, want\n%+v", name, now, got, want)
			}
			if got, want := rules.Judge(kept, nil, now, false), rules.Judge(pod, nil, now, false); got != want {
				t.Errorf("%s at %s: the verdict is\n%+v, want\n%+v", name, now, got, want)
			}
		}
		wantSame := func(what string, got, want any) {
			t.Helper()
			if got != want {
				t.Errorf("%s: %s is %v, want %v", name, what, got, want)
			}
		}
		for _, p := range []*corev1.Pod{kept, pod} {
			wantSame("name", record.GetName(), p.Name)
			wantSame("uid", record.GetUID(), p.UID)
			wantSame("version", record.GetResourceVersion(), p.ResourceVersion)
			wantSame("deleting", record.IsDeleting, p.DeletionTimestamp != nil)
			wantSame("id", record.ID, p.Labels[instance.IDLabel])
			wantSame("client", record.Client, p.Labels[instance.ClientLabel])
			wantSame("claimed for", record.ClaimedFor, p.Annotations[instance.ClaimedForAnnotation])
			wantSame("template", record.Template(), instance.TemplateOf(p))
			wantSame("address", record.address, instance.AddressKey(p))
			wantSame("instance", record.IsInstance, instance.IsInstance(p))
			wantSame("warm", record.IsWarm, instance.IsWarm(p))
			wantSame("stray", record.IsStray, instance.IsStray(p))
			wantSame("serving", record.IsServing, instance.IsServing(p))
			last, _ := instance.LastActivity(p)
			wantSame("last activity", record.LastActivity.Equal(last), true)
			wantSame("cull timeout", record.CullTimeout, rules.CullTimeoutOf(p))
		}
	}
}

// Of the labels and annotations of others, and of the spec, nothing is kept.
func TestSlim(t *testing.T) {
	pod := kubetest.ServedPod(1)
	slim := Slim(pod)
	for _, all := range []map[string]string{slim.Labels, slim.Annotations} {
		for key := range all {
			if !strings.HasPrefix(key, instance.KeyPrefix) && key != instance.ManagedByLabel && key != instance.DefaultContainerAnnotation {
				t.Errorf("%s is kept", key)
			}
		}
	}
	if slim.Spec.Containers != nil || slim.ManagedFields != nil || slim.Status.ContainerStatuses[0].ImageID != "" || slim.Status.QOSClass != "" {
		t.Errorf("kept is %v", slim)
	}
}
