package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// changes makes one change of several.
func changes(all ...func(*corev1.Pod)) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		for _, change := range all {
			change(pod)
		}
	}
}

// waits is a starting pod whose container waits for a reason.
func waits(reason, message string) func(*corev1.Pod) {
	return changes(kubetest.Starting, func(pod *corev1.Pod) {
		pod.Status.ContainerStatuses[0].State = kubetest.Waiting(reason, message)
	})
}

// unready is a pod that was Ready until a time.
func unready(until time.Time) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Status.Conditions[1].Status = corev1.ConditionFalse
		pod.Status.Conditions[1].LastTransitionTime = metav1.NewTime(until)
	}
}

// sandboxReady: the pod has its network, and what it waits for is an image.
func sandboxReady(pod *corev1.Pod) {
	pod.Status.Conditions = append(pod.Status.Conditions,
		corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionTrue})
}

func TestDeriveStatus(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*corev1.Pod)
		after  time.Duration // since the pod's creation
		want   instance.Status
		reason string
		says   string // is in the message
	}{
		// On the way.
		{"just created", func(p *corev1.Pod) { p.Spec.NodeName, p.Status = "", corev1.PodStatus{} }, 0, instance.StatusPending, "", "waiting for a node"},
		{"no node yet", kubetest.Unscheduled, 4 * time.Minute, instance.StatusPending, "", "waiting for a node: 0/1 nodes are available"},
		{"on a node", kubetest.Starting, 4 * time.Minute, instance.StatusDeploying, "", "preparing the pod"},
		{"pulling", changes(waits("ContainerCreating", ""), sandboxReady), time.Minute, instance.StatusDeploying, "", "pulling image jupyter:1"},
		{"running but not ready", unready(kubetest.Noon), 4 * time.Minute, instance.StatusDeploying, "", "starting the application"},
		{"ready without an IP", func(p *corev1.Pod) { p.Status.PodIP = "" }, 4 * time.Minute, instance.StatusDeploying, "", ""},
		{"first pull failed", waits("ErrImagePull", "timeout"), time.Minute, instance.StatusDeploying, "", "pulling image jupyter:1 again: timeout"},
		{"container restarts", waits("CrashLoopBackOff", "back-off 10s"), time.Minute, instance.StatusDeploying, "", "starting the application again"},
		{"not ready again after days", unready(kubetest.Noon.Add(72 * time.Hour)), 72*time.Hour + 4*time.Minute, instance.StatusDeploying, "", ""},

		{"deployed", func(*corev1.Pod) {}, 0, instance.StatusDeployed, "", ""},
		{"deployed for days", func(*corev1.Pod) {}, 72 * time.Hour, instance.StatusDeployed, "", ""},

		// Failed.
		{"no image", waits("ImagePullBackOff", "manifest unknown"), 0, instance.StatusFailed, "ImagePullBackOff", "image jupyter:1: manifest unknown"},
		{"image name is none", waits("InvalidImageName", ""), 0, instance.StatusFailed, "InvalidImageName", "jupyter:1"},
		{"image may not be pulled", waits("ErrImageNeverPull", ""), 0, instance.StatusFailed, "ErrImageNeverPull", "jupyter:1"},
		{"image cannot be looked at", waits("ImageInspectError", ""), 0, instance.StatusFailed, "ImageInspectError", "jupyter:1"},
		{"no image for an init container", changes(kubetest.Starting, func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Image: "init:1", State: kubetest.Waiting("ImagePullBackOff", "denied")}}
		}), 0, instance.StatusFailed, "ImagePullBackOff", "image init:1: denied"},
		{"exited", kubetest.Broken, 0, instance.StatusFailed, "Error", "container notebook exited with code 1"},
		{"evicted", changes(kubetest.Broken, func(p *corev1.Pod) {
			p.Status.Reason, p.Status.Message = "Evicted", "the node was low on memory"
		}), 0, instance.StatusFailed, "Evicted", "the node was low on memory"},
		{"never got a node", kubetest.Unscheduled, 5 * time.Minute, instance.StatusFailed, "StartTimeout", "not ready within 5m0s: 0/1 nodes are available"},
		{"never started", waits("CrashLoopBackOff", "back-off 5m"), 5 * time.Minute, instance.StatusFailed, "StartTimeout",
			"not ready within 5m0s: container notebook: CrashLoopBackOff: back-off 5m"},
		{"never listened", unready(kubetest.Noon), 5 * time.Minute, instance.StatusFailed, "StartTimeout", "not ready within 5m0s"},
		{"never got an IP", func(p *corev1.Pod) { p.Status.PodIP = "" }, 5 * time.Minute, instance.StatusFailed, "StartTimeout", ""},
		{"lost its node for good", unready(kubetest.Noon.Add(time.Hour)), 65 * time.Minute, instance.StatusFailed, "StartTimeout", ""},

		// Over.
		{"completed", kubetest.Completed, 0, instance.StatusDeleted, "Completed", "ended by itself"},
		{"being deleted", kubetest.Deleting, 0, instance.StatusDeleted, "Deleting", ""},
		{"failed and being deleted", changes(kubetest.Broken, kubetest.Deleting), 0, instance.StatusDeleted, "Deleting", ""},
		{"not started and being deleted", changes(kubetest.Unscheduled, kubetest.Deleting), time.Hour, instance.StatusDeleted, "Deleting", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			pod := kubetest.Pod(kubetest.ID(1), kubetest.Noon, test.change)
			status, reason, message := instance.DeriveStatus(pod, kubetest.Noon.Add(test.after), kubetest.StartTimeout)
			if status != test.want || reason != test.reason {
				t.Errorf("got %s (%s), want %s (%s)", status, reason, test.want, test.reason)
			}
			if !strings.Contains(message, test.says) {
				t.Errorf("the message is %q, want %q in it", message, test.says)
			}
			if (message == "") != (status == instance.StatusDeployed) {
				t.Errorf("%s with message %q: all but deployed have one", status, message)
			}
			if (reason == "") != (status == instance.StatusDeployed || status == instance.StatusPending || status == instance.StatusDeploying) {
				t.Errorf("%s for reason %q: what is over has one", status, reason)
			}
		})
	}
}

// A pod that was scheduled late gets the start timeout from then on.
func TestUnreadySince(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*corev1.Pod)
		want   time.Time
	}{
		{"no condition yet", kubetest.Unscheduled, kubetest.Noon},
		{"reached a node later", unready(kubetest.Noon.Add(time.Minute)), kubetest.Noon.Add(time.Minute)},
		{"a condition from before the pod", unready(kubetest.Noon.Add(-time.Minute)), kubetest.Noon},
	} {
		if got := instance.ReadyChangedAt(kubetest.Pod(kubetest.ID(1), kubetest.Noon, test.change)); !got.Equal(test.want) {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}

func TestFailure(t *testing.T) {
	ended := func(name string, code int32, reason, message string) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, Message: message},
		}}
	}
	for _, test := range []struct {
		name            string
		status          corev1.PodStatus
		reason, message string
	}{
		{"nothing is known", corev1.PodStatus{}, "Failed", "the pod failed"},
		{"the pod's own reason first",
			corev1.PodStatus{Reason: "DeadlineExceeded", Message: "too long", ContainerStatuses: []corev1.ContainerStatus{ended("a", 1, "Error", "")}},
			"DeadlineExceeded", "too long"},
		{"the container that broke, not the one that ended well",
			corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{ended("a", 0, "Completed", ""), ended("b", 137, "OOMKilled", "")}},
			"OOMKilled", "container b exited with code 137"},
		{"an init container goes first",
			corev1.PodStatus{
				InitContainerStatuses: []corev1.ContainerStatus{ended("init", 2, "Error", "no such file")},
				ContainerStatuses:     []corev1.ContainerStatus{ended("a", 1, "Error", "")},
			},
			"Error", "container init exited with code 2: no such file"},
		{"one that still runs is none that broke",
			corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "a"}}}, "Failed", "the pod failed"},
	} {
		reason, message := instance.Failure(&corev1.Pod{Status: test.status})
		if reason != test.reason || message != test.message {
			t.Errorf("%s: got %q, %q; want %q, %q", test.name, reason, message, test.reason, test.message)
		}
	}
}

func TestEndedAt(t *testing.T) {
	ended := func(at time.Time) corev1.ContainerStatus {
		return corev1.ContainerStatus{State: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{FinishedAt: metav1.NewTime(at)},
		}}
	}
	var never time.Time
	for _, test := range []struct {
		name       string
		containers []corev1.ContainerStatus
		want       time.Time
	}{
		{"none", nil, never},
		{"the last of them", []corev1.ContainerStatus{ended(kubetest.Noon.Add(time.Hour)), ended(kubetest.Noon)}, kubetest.Noon.Add(time.Hour)},
		{"not while one runs", []corev1.ContainerStatus{ended(kubetest.Noon), {}}, never},
		{"the kubelet did not say when", []corev1.ContainerStatus{ended(never)}, never},
	} {
		pod := &corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: test.containers}}
		if got := instance.EndedAt(pod); !got.Equal(test.want) {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}

// What a container says of its end may be long, and no text at all.
func TestClip(t *testing.T) {
	long := strings.Repeat("é", 512)
	for message, want := range map[string]string{
		"":                  "",
		" spaced \n":        "spaced",
		"one\xfftwo":        "one\uFFFDtwo",
		long:                long,
		long + "é":          long + "…",
		long[:1023] + "abc": long[:1022] + "\uFFFD…",
	} {
		got := instance.Clip(message)
		if got != want {
			t.Errorf("clip(%.20q, of %d bytes) is %.20q of %d bytes, want %d bytes", message, len(message), got, len(got), len(want))
		}
		if !utf8.ValidString(got) {
			t.Errorf("clip(%.20q) is no valid text", message)
		}
	}
}
