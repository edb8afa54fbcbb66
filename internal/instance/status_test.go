package instance_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	. "github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func TestStatus(t *testing.T) {
	starting, notReady, all := kubetest.StartingWith, kubetest.NotReadySince, kubetest.All
	reachedAt := func(after time.Duration) func(*corev1.Pod) { // its node
		return all(notReady(kubetest.Noon.Add(after)), func(p *corev1.Pod) { p.Status.StartTime = new(metav1.NewTime(kubetest.Noon.Add(after))) })
	}
	unreported := func(p *corev1.Pod) { p.Status = corev1.PodStatus{Phase: corev1.PodPending} }
	noIP := func(p *corev1.Pod) { p.Status.PodIP = "" }
	sandboxReady := func(p *corev1.Pod) { // the pod has a network
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionTrue})
	}
	for _, test := range []struct {
		name   string
		change func(*corev1.Pod)
		after  time.Duration // since the pod's creation
		want   Status
		reason string
		says   string // part of the message
	}{
		{"just created", func(p *corev1.Pod) { p.Spec.NodeName, p.Status = "", corev1.PodStatus{} }, 0, StatusPending, "", "Waiting for a node."},
		{"no node yet", kubetest.Unscheduled, 5*time.Minute + 14*time.Second, StatusPending, "", "Waiting for a node that can take the instance."},
		{"on a node", kubetest.Starting, 4 * time.Minute, StatusDeploying, "", "Preparing the pod"},
		{"pulling", all(kubetest.Starting, sandboxReady), time.Minute, StatusDeploying, "", "Fetching the image jupyter:1, unless the node has it."},
		{"running but not Ready", notReady(kubetest.Noon), 4 * time.Minute, StatusDeploying, "", "Starting the application."},
		{"Ready without an IP", noIP, 4 * time.Minute, StatusDeploying, "", ""},
		{"first pull failed", starting("ErrImagePull", "timeout"), time.Minute, StatusDeploying, "", "The image jupyter:1 cannot be downloaded. The node tries again."},
		{"container restarts", starting("CrashLoopBackOff", "back-off 10s"), time.Minute, StatusDeploying, "", "The container notebook ends again and again."},
		{"not Ready again after days", notReady(kubetest.Noon.Add(72 * time.Hour)), 72*time.Hour + 4*time.Minute, StatusDeploying, "", ""},
		{"reached a node late", notReady(kubetest.Noon.Add(time.Minute)), 5 * time.Minute, StatusDeploying, "", ""},
		{"its node has not said anything yet", unreported, 5*time.Minute + 14*time.Second, StatusDeploying, "", "Preparing the pod"},
		{"its node has not said anything in time", unreported, 5*time.Minute + 15*time.Second, StatusFailed, "StartTimeout", ""},
		{"reached a node in the last moment", reachedAt(5 * time.Minute), 5*time.Minute + 14*time.Second, StatusDeploying, "", ""},
		{"reached a node only after it had failed", reachedAt(5 * time.Minute), 6 * time.Minute, StatusFailed, "StartTimeout", ""},
		{"reached a node just in time", reachedAt(5*time.Minute - time.Second), 6 * time.Minute, StatusDeploying, "", ""},
		{"reached a node whose clock is ahead", reachedAt(time.Hour), 4 * time.Minute, StatusDeploying, "", ""},

		{"deployed", all(), 0, StatusDeployed, "", ""},
		{"deployed for days", all(), 72 * time.Hour, StatusDeployed, "", ""},

		{"no image", starting("ImagePullBackOff", "manifest unknown"), 0, StatusFailed, "ErrImagePull", "The image jupyter:1 does not exist"},
		{"invalid image name", starting("InvalidImageName", ""), 0, StatusFailed, "InvalidImageName", "jupyter:1"},
		{"image must not be pulled", starting("ErrImageNeverPull", ""), 0, StatusFailed, "ErrImageNeverPull", "jupyter:1"},
		{"image cannot be inspected", starting("ImageInspectError", ""), 0, StatusDeploying, "", "cannot read the image jupyter:1 at the moment"},
		{"no image for an init container", all(kubetest.Starting, func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Image: "init:1", State: kubetest.Waiting("ImagePullBackOff", "pull access denied")}}
		}), 0, StatusFailed, "ErrImagePull", "This cluster may not download the image init:1."},
		{"exited", kubetest.Broken, 0, StatusFailed, "Error", "container notebook exited with code 1"},
		{"no node in time", kubetest.Unscheduled, 5*time.Minute + 15*time.Second, StatusFailed, "StartTimeout", "not ready within 5m0s. Waiting for a node that can take the instance. Try again later, or tell the operator of this service."},
		{"did not start in time", starting("CrashLoopBackOff", "back-off 5m"), 5 * time.Minute, StatusFailed, "StartTimeout",
			"not ready within 5m0s. The container notebook ends again and again."},
		{"did not listen in time", notReady(kubetest.Noon), 5 * time.Minute, StatusFailed, "StartTimeout", "not ready within 5m0s. Its last step was: Starting the application. Launch a new one."},
		{"still pulling", all(kubetest.Starting, sandboxReady), 5 * time.Minute, StatusFailed, "StartTimeout", "not ready within 5m0s. Its last step was: Fetching the image jupyter:1, unless the node has it. Launch a new one."},
		{"condition older than the pod", notReady(kubetest.Noon.Add(-time.Minute)), 5*time.Minute - 1, StatusDeploying, "", ""},
		{"no IP in time", noIP, 5 * time.Minute, StatusFailed, "StartTimeout", ""},
		{"lost its node", notReady(kubetest.Noon.Add(time.Hour)), 65 * time.Minute, StatusFailed, "StartTimeout", ""},

		{"completed", kubetest.Completed, 0, StatusDeleted, "Completed", "ended by itself"},
		{"being deleted", kubetest.Deleting, 0, StatusDeleted, "Deleting", ""},
		{"failed and being deleted", all(kubetest.Broken, kubetest.Deleting), 0, StatusDeleted, "Deleting", ""},
		{"not started and being deleted", all(kubetest.Unscheduled, kubetest.Deleting), time.Hour, StatusDeleted, "Deleting", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			inst := FromPod(kubetest.Pod(anID, kubetest.Noon, test.change), nil, kubetest.Noon.Add(test.after), kubetest.StartTimeout)
			if inst.Status != test.want || inst.Reason != test.reason {
				t.Errorf("got %s (%s), want %s (%s)", inst.Status, inst.Reason, test.want, test.reason)
			}
			if !strings.Contains(inst.Message, test.says) {
				t.Errorf("the message is %q, want %q in it", inst.Message, test.says)
			}
			if (inst.Message == "") != (inst.Status == StatusDeployed) {
				t.Errorf("%s with message %q: all but deployed have one", inst.Status, inst.Message)
			}
		})
	}
}

func TestAliveAndSettled(t *testing.T) {
	alive := map[Status]bool{StatusPending: true, StatusDeploying: true, StatusDeployed: true}
	settled := map[Status]bool{StatusDeployed: true, StatusFailed: true, StatusDeleted: true}
	for _, status := range Statuses() {
		if got := (Instance{Status: status}).Alive(); got != alive[status] {
			t.Errorf("%s: alive is %t, want %t", status, got, alive[status])
		}
		if got := status.Settled(); got != settled[status] {
			t.Errorf("%s: settled is %t, want %t", status, got, settled[status])
		}
	}
}

func TestFailure(t *testing.T) {
	ended := func(name string, code int32, reason, message string) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, Message: message},
		}}
	}
	type statuses = []corev1.ContainerStatus
	for _, test := range []struct {
		name            string
		status          corev1.PodStatus
		reason, message string
	}{
		{"nothing is known", corev1.PodStatus{}, "Failed", "The instance ended, and the cluster does not say why. Launch a new one."},
		{"the pod's own reason first",
			corev1.PodStatus{Reason: "DeadlineExceeded", Message: "too long", ContainerStatuses: statuses{ended("a", 1, "Error", "")}},
			"DeadlineExceeded", "too long"},
		{"the container with an error, not one that ended well",
			corev1.PodStatus{ContainerStatuses: statuses{ended("a", 0, "Completed", ""), ended("b", 137, "OOMKilled", "")}},
			"OOMKilled", "The application ran out of memory: container b. Launching again will not help: tell the author of the template."},
		{"the container that serves, not an init container",
			corev1.PodStatus{
				InitContainerStatuses: statuses{ended("init", 2, "Error", "no such file")},
				ContainerStatuses:     statuses{ended("a", 1, "Error", "")},
			},
			"Error", "The application ended: container a exited with code 1. Launching again will not help: tell the author of the template."},
		{"a container that still runs", corev1.PodStatus{ContainerStatuses: statuses{{Name: "a"}}}, "Failed", "The instance ended, and the cluster does not say why. Launch a new one."},
	} {
		test.status.Phase = corev1.PodFailed
		reason, message := Failure(&corev1.Pod{Status: test.status})
		if reason != test.reason || message != test.message {
			t.Errorf("%s: got %q, %q; want %q, %q", test.name, reason, message, test.reason, test.message)
		}
	}
}

func TestIsServing(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*corev1.Pod)
		want   bool
	}{
		{"serving", kubetest.All(), true},
		{"starting", kubetest.Starting, false},
		{"not Ready", kubetest.NotReadySince(kubetest.Noon), false},
		{"without an IP", func(p *corev1.Pod) { p.Status.PodIP = "" }, false},
		{"being deleted", kubetest.Deleting, false},
		{"on a lost node", func(p *corev1.Pod) { p.Status.Phase = corev1.PodUnknown }, false},
	} {
		if got := IsServing(kubetest.Pod(anID, kubetest.Noon, test.change)); got != test.want {
			t.Errorf("%s: got %t, want %t", test.name, got, test.want)
		}
	}
}

func TestRestarts(t *testing.T) {
	pod := kubetest.Pod(anID, kubetest.Noon, func(p *corev1.Pod) {
		p.Status.InitContainerStatuses = []corev1.ContainerStatus{{RestartCount: 3}, {RestartCount: 5}}
		p.Status.ContainerStatuses[0].RestartCount = 4
	})
	if got := Restarts(pod); got != 5 {
		t.Errorf("got %d, want 5", got)
	}
}

// What a container says of its end can be long, and no valid text.
func TestClip(t *testing.T) {
	long, head, tail := strings.Repeat("é", 512), strings.Repeat("é", 256), strings.Repeat("é", 255)
	for message, want := range map[string]string{
		"":                   "",
		" spaced \n":         "spaced",
		"one\xfftwo":         "one\uFFFDtwo",
		long:                 long,
		long + "é":           head + "…" + tail,
		long[:1023] + "abc":  head + "…" + tail[:len(tail)-8] + "\uFFFDabc",
		long + ": not found": head + "…" + tail[:len(tail)-22] + ": not found",
	} {
		if got := Clip(message); got != want || !utf8.ValidString(got) {
			t.Errorf("Clip(%.20q, of %d bytes) is %.20q of %d bytes, want %d bytes", message, len(message), got, len(got), len(want))
		}
	}
}
