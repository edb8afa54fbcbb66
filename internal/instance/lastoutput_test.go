package instance_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	. "github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// What a container put out before it ended is told as plain text, and only that.
func TestLastOutput(t *testing.T) {
	long, many := strings.Repeat("é", 400), strings.Repeat("line\n", 30)
	pod := kubetest.Pod(anID, kubetest.Noon, kubetest.WithAnnotation(TokenAnnotation, kubetest.Token))
	for said, want := range map[string]string{
		"at http://127.0.0.1:8888/user/" + anID + "/?token=" + kubetest.Token: "at http://127.0.0.1:8888/user/[id]/?token=[token]",
		anID + strings.Repeat("x", 500):                                       "[id]" + strings.Repeat("x", 500),
		"":                                                                    "", "\n\n": "", "no such module": "no such module",
		"Traceback:\n    File x\r\nImportError \n\n":                       "Traceback:\n    File x\nImportError",
		"\x1b[1;31mred\x1b[0m \x1b]0;title\x07\x1b(Bplain\x1b[":            "red plain",
		"10%\r50%\r100%\rdone\n":                                           "done",
		"a\x00b\a\u202ec\ufeff\u2028d\te":                                  "abcd\te",
		"bad \xff bytes":                                                   "bad \uFFFD bytes",
		"<script>alert(1)</script>":                                        "<script>alert(1)</script>", // the pages escape
		anID[10:] + "/tree, and at /user/" + anID[:20]:                     "[id]/tree, and at /user/[id]",
		"Error on reading termination log /var/lib/kubelet/pods/x: denied": "",
		anID[5:] + strings.Repeat("\n", 2048) + "the rest":                 "the rest",
		many:                               "…\n" + strings.TrimSpace(strings.Repeat("line\n", 12)),
		long:                               "…" + strings.Repeat("é", 256),
		"one\n" + strings.Repeat("x", 600): "…" + strings.Repeat("x", 512),
	} {
		if got := LastOutput(pod, &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error", Message: said}); got != want {
			t.Errorf("of %q: got %q, want %q", said, got, want)
		}
	}
	for _, ended := range []*corev1.ContainerStateTerminated{
		nil, {ExitCode: 0, Reason: "Completed", Message: "x"}, {ExitCode: 0, Reason: "Error", Message: "x"},
		{ExitCode: 128, Reason: "StartError", Message: "x"}, {ExitCode: 137, Reason: "ContainerStatusUnknown", Message: "x"}, {ExitCode: 1, Reason: "SomethingNew", Message: "x"},
	} {
		if got := LastOutput(pod, ended); got != "" {
			t.Errorf("of %+v: got %q", ended, got)
		}
	}
}

// The last output of a container ends the message of a failure, of a start that was not ready in
// time, and of one that is tried again; and its tombstone.
func TestLastOutputIsTold(t *testing.T) {
	always := restartPolicy(corev1.RestartPolicyAlways)
	crashing := func(times int32) func(*corev1.Pod) {
		return kubetest.All(always, neverReady, state(kubetest.Waiting("CrashLoopBackOff", secret)), restarted(times, terminated(1, "Error")))
	}
	for name, test := range map[string]struct {
		change func(*corev1.Pod)
		after  time.Duration
		want   Status
	}{
		"it ended":                 {kubetest.All(restartPolicy(corev1.RestartPolicyNever), state(terminated(1, "Error"))), time.Minute, StatusFailed},
		"it ran out of memory":     {kubetest.All(restartPolicy(corev1.RestartPolicyNever), state(terminated(137, "OOMKilled"))), time.Minute, StatusFailed},
		"a helper ended":           {kubetest.All(restartPolicy(corev1.RestartPolicyNever), kubetest.NotReadySince(kubetest.Noon), withContainer("helper", terminated(1, "Error"))), time.Minute, StatusFailed},
		"it is started again":      {crashing(1), 2 * time.Minute, StatusDeploying},
		"it ends again and again":  {crashing(4), 2 * time.Minute, StatusFailed},
		"it was not ready in time": {crashing(1), 5 * time.Minute, StatusFailed},
	} {
		inst := FromPod(kubetest.Pod(anID, kubetest.Noon, test.change), nil, kubetest.Noon.Add(test.after), kubetest.StartTimeout)
		if inst.Status != test.want || !strings.HasSuffix(inst.Message, ". The container's last output:\nno such module") || strings.Contains(inst.Detail, "module") {
			t.Errorf("%s: got %s: %q (%s)", name, inst.Status, inst.Message, inst.Detail)
		}
		event := &corev1.Event{Message: TombstoneText(inst.Message, inst.Detail)}
		event.Annotations = map[string]string{DetailAnnotation: inst.Detail}
		if got := FromTombstone(event); got.Message != inst.Message {
			t.Errorf("%s: the tombstone says %q", name, got.Message)
		}
	}
}

// Neither the id nor the token of a pod gets into what operators read.
func TestDetailHasNoSecrets(t *testing.T) {
	said := "at /user/" + anID + "/?token=" + kubetest.Token
	for _, ended := range []corev1.ContainerState{
		{Terminated: &corev1.ContainerStateTerminated{ExitCode: 159, Reason: "seccomp killed", Message: said}},
		{Terminated: &corev1.ContainerStateTerminated{ExitCode: 0, Reason: "Completed", Message: said}},
	} {
		pod := kubetest.Pod(anID, kubetest.Noon, kubetest.WithAnnotation(TokenAnnotation, kubetest.Token), restartPolicy(corev1.RestartPolicyNever), state(ended))
		inst := FromPod(pod, nil, kubetest.Noon.Add(time.Minute), kubetest.StartTimeout)
		if text := inst.Message + inst.Detail; !strings.Contains(text, "/user/[id]/?token=[token]") || strings.Contains(text, anID) || strings.Contains(text, kubetest.Token) {
			t.Errorf("%s: got %q (%s)", ended.Terminated.Reason, inst.Message, inst.Detail)
		}
	}
}
