package instance_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	. "github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// secret is text of the cluster, which visitors must not see.
const secret = "node-7.internal"

// terminated has a message of the cluster, or what the container said last.
func terminated(code int32, reason string) corev1.ContainerState {
	message := secret
	if reason == "Error" || reason == "OOMKilled" {
		message = "no such module"
	}
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: code, Reason: reason, Message: message, FinishedAt: metav1.NewTime(kubetest.Noon.Add(time.Minute)),
	}}
}

// state gives the first container of the pod a state, and makes the pod not Ready.
func state(s corev1.ContainerState) func(*corev1.Pod) {
	return kubetest.All(kubetest.NotReadySince(kubetest.Noon), func(p *corev1.Pod) { p.Status.ContainerStatuses[0].State = s })
}

// restarted gives the first container restarts after an end.
func restarted(times int32, last corev1.ContainerState) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.ContainerStatuses[0].RestartCount, p.Status.ContainerStatuses[0].LastTerminationState = times, last
	}
}

func restartPolicy(policy corev1.RestartPolicy) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.RestartPolicy = policy }
}

// withContainer adds another container in a state.
func withContainer(name string, s corev1.ContainerState) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: name})
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: name, Image: name + ":1", State: s})
	}
}

// neverReady makes the kubelet's times say that the pod was never Ready.
func neverReady(p *corev1.Pod) { p.Status.StartTime = &metav1.Time{Time: kubetest.Noon} }

func phase(phase corev1.PodPhase, reason, message string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.Phase, p.Status.Reason, p.Status.Message = phase, reason, message }
}

func disrupted(reason string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason, Message: secret})
	}
}

// said returns a Warning Event about a container of the pod.
func said(reason, message, container string) *corev1.Event {
	pod := kubetest.Pod(anID, kubetest.Noon)
	return &corev1.Event{
		InvolvedObject: corev1.ObjectReference{UID: pod.UID, Name: pod.Name, FieldPath: "spec.containers{" + container + "}"},
		Type:           corev1.EventTypeWarning, Reason: reason, Message: message,
		FirstTimestamp: metav1.NewTime(kubetest.Noon.Add(time.Minute)), LastTimestamp: metav1.NewTime(kubetest.Noon.Add(time.Minute)),
	}
}

// twice makes an Event one that was seen twice.
func twice(event *corev1.Event) *corev1.Event {
	event.LastTimestamp = metav1.NewTime(event.FirstTimestamp.Add(20 * time.Second))
	return event
}

// These are cases beyond those of recorded_test.go.
func TestDerivedStatus(t *testing.T) {
	all, running := kubetest.All, corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(kubetest.Noon)}}
	always, never, onFailure := restartPolicy(corev1.RestartPolicyAlways), restartPolicy(corev1.RestartPolicyNever), restartPolicy(corev1.RestartPolicyOnFailure)
	own := func(policy corev1.ContainerRestartPolicy, rules ...corev1.ContainerRestartRule) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].RestartPolicy, p.Spec.Containers[0].RestartPolicyRules = &policy, rules
		}
	}
	restartAll := []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestartAllContainers}}
	startsAll := func(container int) func(*corev1.Pod) { // its end with some code starts all containers again
		return func(p *corev1.Pod) { p.Spec.Containers[container].RestartPolicyRules = restartAll }
	}
	serves := func(name string) func(*corev1.Pod) { return kubetest.WithAnnotation(DefaultContainerAnnotation, name) }
	waiting := kubetest.StartingWith
	again := func(ready bool) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			helper := &p.Status.ContainerStatuses[1]
			helper.Ready, helper.RestartCount, helper.LastTerminationState = ready, 1, terminated(3, "Error")
		}
	}
	events := func(all ...*corev1.Event) []*corev1.Event { return all }
	for _, test := range []struct {
		name     string
		change   func(*corev1.Pod)
		warnings []*corev1.Event
		want     Status
		reason   string
		fault    Fault
		says     string // part of the message
	}{
		// Who speaks.
		{"the annotation names the container that serves", all(never, serves("app"), state(running), withContainer("app", terminated(3, "Error"))), nil,
			StatusFailed, "Error", FaultChance, "container app exited with code 3"},
		{"it names none of them: the first", all(never, serves("typo"), state(terminated(3, "Error")), withContainer("app", running)), nil,
			StatusFailed, "Error", FaultChance, "container notebook exited with code 3"},
		{"the first of the spec, not by name", all(never, state(terminated(3, "Error")), withContainer("a", running), func(p *corev1.Pod) {
			s := p.Status.ContainerStatuses
			s[0], s[1] = s[1], s[0]
		}), nil, StatusFailed, "Error", FaultChance, "container notebook exited with code 3"},
		{"a helper failed after the application ended well", all(never, state(terminated(0, "Completed")), withContainer("helper", terminated(143, "Error")), phase(corev1.PodFailed, "", "")), nil,
			StatusDeleted, "Completed", "", "ended by itself"},
		{"a helper that ended leaves the pod unready", all(never, state(running), withContainer("helper", terminated(0, "Completed"))), nil,
			StatusFailed, "HelperEnded", FaultChance, "Container helper exited with code 0"},

		// Restart policies.
		{"ended well, OnFailure", all(onFailure, state(terminated(0, "Completed"))), nil, StatusDeleted, "Completed", "", ""},
		{"ended with an error, OnFailure", all(onFailure, state(terminated(3, "Error"))), nil, StatusDeploying, "", FaultChance, "is started again: container notebook exited with code 3"},
		{"ended, Always", all(always, state(terminated(0, "Completed"))), nil, StatusDeploying, "", FaultChance, "exited with code 0"},
		{"its own policy is Never", all(always, own("Never"), state(terminated(3, "Error"))), nil, StatusFailed, "Error", FaultChance, ""},
		{"its own policy is Always", all(never, own("Always"), state(terminated(3, "Error"))), nil, StatusDeploying, "", FaultChance, ""},
		{"rules for exit codes: only the kubelet knows", all(never, own("Never", corev1.ContainerRestartRule{Action: "Restart"}), state(terminated(3, "Error"))), nil,
			StatusDeploying, "", FaultChance, ""},
		{"a helper's rule may start all again", all(never, state(terminated(137, "Error")), withContainer("helper", terminated(7, "Error")), startsAll(1)), nil,
			StatusDeploying, "", FaultChance, "is started again: container notebook exited with code 137"},
		{"a helper's rule starts all again", all(never, neverReady, state(terminated(137, "RestartingAllContainers")), withContainer("helper", running), startsAll(1)), nil,
			StatusDeploying, "", FaultTemplate, "was ended, so that all containers start again"},
		{"a helper ends by the application's rule", all(never, state(running), withContainer("helper", terminated(137, "Error")), startsAll(0)), nil,
			StatusDeploying, "", FaultChance, "container helper exited with code 137"},
		{"an init container's rule starts all again", all(never, state(terminated(137, "Error")), func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "before", RestartPolicyRules: restartAll}}
		}), nil, StatusDeploying, "", FaultChance, "container notebook exited with code 137"},
		{"such a rule, and the kubelet gave up", all(never, state(terminated(3, "Error")), startsAll(0), phase(corev1.PodFailed, "", "")), nil,
			StatusFailed, "Error", FaultChance, "exited with code 3"},

		// Who can mend an end.
		{"ended before it was ever Ready", all(never, neverReady, state(terminated(3, "Error"))), nil, StatusFailed, "Error", FaultTemplate, "exited with code 3. Launching again will not help"},
		{"ended after it was Ready", all(never, state(terminated(3, "Error"))), nil, StatusFailed, "Error", FaultChance, "exited with code 3. Launch a new one. If it ends again, tell the author of the template."},
		{"a helper ended before it was ever Ready", all(never, neverReady, state(running), withContainer("helper", terminated(1, "Error"))), nil, StatusFailed, "HelperEnded", FaultTemplate, "Launching again will not help"},
		{"out of memory before it was ever Ready", all(never, neverReady, state(terminated(137, "OOMKilled"))), nil, StatusFailed, "OOMKilled", FaultTemplate, "The application ran out of memory: container notebook."},
		{"out of memory after it was Ready", all(never, state(terminated(137, "OOMKilled"))), nil, StatusFailed, "OOMKilled", FaultVisitor, "The application ran out of memory: container notebook. Launch a new one."},
		{"out of memory, and it starts again", all(always, state(kubetest.Waiting("CrashLoopBackOff", secret)), restarted(2, terminated(137, "OOMKilled"))), nil, StatusDeploying, "", FaultVisitor, "ran out of memory, 3 times"},
		{"its node started again", all(always, state(kubetest.Waiting("CrashLoopBackOff", secret)), restarted(1, terminated(255, "Unknown"))), nil, StatusDeploying, "", FaultCluster, "was lost by its node"},
		{"its node has lost it", all(never, state(terminated(137, "ContainerStatusUnknown"))), nil, StatusFailed, "ContainerStatusUnknown", FaultCluster, "The node lost the container notebook."},
		{"it did what is forbidden", all(never, neverReady, state(terminated(159, "seccomp killed"))), nil, StatusFailed, "Failed", FaultTemplate, "did what the cluster forbids"},
		{"an unknown end", all(never, state(terminated(9, "SomethingNew"))), nil, StatusFailed, "SomethingNew", FaultChance, "container notebook exited with code 9"},

		// Ends again and again.
		{"five ends, never Ready", all(always, neverReady, state(kubetest.Waiting("CrashLoopBackOff", secret)), restarted(4, terminated(3, "Error"))), nil,
			StatusFailed, "CrashLoopBackOff", FaultTemplate, "container notebook exited with code 3, 5 times"},
		{"five ends, and it runs once more", all(always, neverReady, state(running), restarted(5, terminated(3, "Error"))), nil,
			StatusFailed, "CrashLoopBackOff", FaultTemplate, "5 times"},
		{"four ends", all(always, neverReady, state(kubetest.Waiting("CrashLoopBackOff", secret)), restarted(3, terminated(3, "Error"))), nil,
			StatusDeploying, "", FaultTemplate, "exited with code 3, 4 times"},
		{"it was Ready before", all(always, kubetest.NotReadySince(kubetest.Noon), func(p *corev1.Pod) {
			p.Status.StartTime = &metav1.Time{Time: kubetest.Noon.Add(-time.Hour)}
			p.Status.ContainerStatuses[0].State = kubetest.Waiting("CrashLoopBackOff", secret)
		}, restarted(9, terminated(3, "Error"))), nil, StatusDeploying, "", FaultChance, "10 times"},

		{"its postStart command fails, five times", all(always, neverReady, state(kubetest.Waiting("PostStartHookError", secret)), restarted(4, terminated(137, "Error"))), nil,
			StatusFailed, "CrashLoopBackOff", FaultTemplate, "5 times"},
		{"its postStart command fails for the first time", waiting("PostStartHookError", secret), nil,
			StatusDeploying, "", FaultTemplate, "(postStart) failed. The container is started again."},
		{"it runs again", all(always, neverReady, state(running), restarted(1, terminated(3, "Error"))), nil,
			StatusDeploying, "", FaultTemplate, "is started again: container notebook exited with code 3."},
		{"it runs again, and does not listen", all(always, neverReady, state(running), restarted(1, terminated(3, "Error"))),
			events(said("Unhealthy", "Readiness probe failed: dial tcp 10.0.0.7:8888: connect: connection refused", "notebook")), StatusDeploying, "", FaultTemplate, "nothing listens on port 8888"},
		{"a helper runs again, and is Ready", all(always, waiting("ContainerCreating", ""), withContainer("helper", running), again(true)), nil,
			StatusDeploying, "", "", ""},
		{"a helper runs again, and is not Ready", all(always, waiting("ContainerCreating", ""), withContainer("helper", running), again(false)), nil,
			StatusDeploying, "", FaultChance, "waits for another container that ended and is started again: container helper exited with code 3"},

		// Failed stays failed.
		{"no such image, then the network fails", waiting("ErrImagePull", "dial tcp: i/o timeout"), events(said("Failed", `Failed to pull image "jupyter:1": jupyter:1: not found`, "notebook")),
			StatusFailed, "ErrImagePull", FaultTemplate, "does not exist"},
		{"that was another container", waiting("ErrImagePull", "dial tcp: i/o timeout"), events(said("Failed", `Failed to pull image "jupyter:1": jupyter:1: not found`, "other")),
			StatusDeploying, "", FaultCluster, "does not answer"},
		{"an unknown error, and the pause after it", waiting("ErrImagePull", "odd"), events(said("Failed", `Failed to pull image "jupyter:1": odd`, "notebook"), said("Failed", "Error: ErrImagePull", "notebook"), said("Failed", "Error: ImagePullBackOff", "notebook")),
			StatusDeploying, "", FaultTemplate, "cannot be downloaded. The node tries again."},
		{"an unknown error again", waiting("ErrImagePull", "odd"), events(twice(said("Failed", `Failed to pull image "jupyter:1": odd`, "notebook"))),
			StatusFailed, "ErrImagePull", FaultTemplate, "cannot be downloaded"},
		{"two unknown errors", waiting("ErrImagePull", "odd"), events(said("Failed", `Failed to pull image "jupyter:1": odd`, "notebook"), said("Failed", `Failed to pull image "jupyter:1": dial: no such host`, "notebook")),
			StatusFailed, "ErrImagePull", FaultTemplate, "registry that cannot be found"},
		{"the network failed twice, then an unknown error", waiting("ErrImagePull", "odd"), events(twice(said("Failed", `Failed to pull image "jupyter:1": GOAWAY`, "notebook")), twice(said("Failed", "Error: ErrImagePull", "notebook")), said("Failed", `Failed to pull image "jupyter:1": odd`, "notebook")),
			StatusDeploying, "", FaultTemplate, "The node tries again."},
		{"an unknown error for the first time", waiting("ErrImagePull", "odd"), nil, StatusDeploying, "", FaultTemplate, "The node tries again."},
		{"an image's name that sounds like an error", waiting("ErrImagePull", "registry/403-denied-not-found: i/o timeout"), nil, StatusDeploying, "", FaultCluster, ""},
		{"a Secret was missing, then the node is slow", waiting("CreateContainerConfigError", "failed to sync secret cache"), events(said("Failed", `Error: secret "x" not found`, "notebook")),
			StatusFailed, "CreateContainerConfigError", FaultTemplate, "needs a Secret"},
		{"the pause after a command that cannot be run", all(always, state(kubetest.Waiting("CrashLoopBackOff", secret)), restarted(2, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ExitCode: 128, Reason: "StartError", Message: `exec: "/x": no such file or directory`}})), nil, StatusFailed, "RunContainerError", FaultTemplate, "its command does not exist"},
		{"another pod's Event", waiting("ErrImagePull", "dial tcp: i/o timeout"), func() []*corev1.Event {
			event := said("Failed", `Failed to pull image "jupyter:1": not found`, "notebook")
			event.InvolvedObject.UID = "of another pod with the name"
			return events(event)
		}(), StatusDeploying, "", FaultCluster, ""},

		// Reasons that the table does not have.
		{"an unknown reason of a container", waiting("SomethingNew", secret), nil, StatusDeploying, "", FaultCluster, "does not know"},
		{"an error's text as a reason", waiting("rpc error: "+secret, secret), nil, StatusDeploying, "", FaultCluster, "does not know"},
		{"an unknown reason of a pod", phase(corev1.PodFailed, "SomethingNew", secret), nil, StatusFailed, "SomethingNew", FaultCluster, "does not know"},
		{"no room for a device", phase(corev1.PodFailed, "OutOfexample.com/gpu", secret), nil, StatusFailed, "OutOfexample.com/gpu", FaultChance, "no room"},

		// The cluster ends instances.
		{"evicted for its own use of disk", phase(corev1.PodFailed, "Evicted", "Pod ephemeral local storage usage exceeds the total limit of containers 64Mi. "), nil,
			StatusFailed, "Evicted", FaultVisitor, "more disk than it may"},
		{"evicted for others", phase(corev1.PodFailed, "Evicted", "The node was low on resource: memory. "+secret), nil, StatusFailed, "Evicted", FaultCluster, "ran short"},
		{"drained", all(kubetest.Deleting, disrupted("EvictionByEvictionAPI")), nil, StatusDeleted, "Deleting", FaultCluster, "moved instances away"},
		{"its node is gone", all(phase(corev1.PodFailed, "", ""), disrupted("DeletionByPodGC")), nil, StatusFailed, "DeletionByPodGC", FaultChance, "node of the instance is gone"},
	} {
		t.Run(test.name, func(t *testing.T) {
			pod := kubetest.Pod(anID, kubetest.Noon, test.change)
			inst := FromPod(pod, test.warnings, kubetest.Noon.Add(2*time.Minute), kubetest.StartTimeout)
			if inst.Status != test.want || inst.Reason != test.reason || inst.Fault != test.fault || !strings.Contains(inst.Message, test.says) {
				t.Errorf("got %s, %q, %q: %q; want %s, %q, %q: %q", inst.Status, inst.Reason, inst.Fault, inst.Message, test.want, test.reason, test.fault, test.says)
			}
			if strings.Contains(inst.Message+inst.Reason, secret) {
				t.Errorf("visitors are told about the cluster: %s: %s", inst.Reason, inst.Message)
			}
			slim := pod.DeepCopy()
			slim.Spec = SlimSpec(pod)
			if got := FromPod(slim, test.warnings, kubetest.Noon.Add(2*time.Minute), kubetest.StartTimeout); got != inst {
				t.Errorf("of the pod as it is kept: got\n%+v, want\n%+v", got, inst)
			}
		})
	}
}

// What a visitor of a deployed instance is told of restarts.
func TestRestartsAreTold(t *testing.T) {
	before := func(count string) func(*corev1.Pod) {
		return kubetest.WithAnnotation(RestartsBeforeAnnotation, count)
	}
	limited := func(p *corev1.Pod) {
		p.Status.ContainerStatuses[0].Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}}
	}
	for _, test := range []struct {
		name    string
		change  func(*corev1.Pod)
		times   int32
		reason  string
		message string
	}{
		{"never", kubetest.All(), 0, "", ""},
		{"once", restarted(1, terminated(3, "Error")), 1, "exited with code 3",
			"The application was started again: it exited with code 3. Files outside volumes are gone."},
		{"out of memory, the third time", kubetest.All(restarted(3, terminated(137, "OOMKilled")), limited), 3, "ran out of memory (limit 64Mi)",
			"The application was started again 3 times: the last time, it ran out of memory (limit 64Mi). Files outside volumes are gone."},
		{"no limit", restarted(1, terminated(137, "OOMKilled")), 1, "ran out of memory",
			"The application was started again: it ran out of memory. Files outside volumes are gone."},
		{"nobody knows how it ended", restarted(1, corev1.ContainerState{}), 1, "ended",
			"The application was started again: it ended. Files outside volumes are gone."},
		{"in the pool, before anybody had it", kubetest.All(restarted(2, terminated(3, "Error")), before("2")), 0, "", ""},
		{"twice in the pool, once since", kubetest.All(restarted(3, terminated(3, "Error")), before("2")), 1, "exited with code 3",
			"The application was started again: it exited with code 3. Files outside volumes are gone."},
		{"the node has lost count", kubetest.All(restarted(1, terminated(3, "Error")), before("2")), 0, "", ""},
		{"a mangled count", kubetest.All(restarted(1, terminated(3, "Error")), before("-2147483649")), 1, "exited with code 3",
			"The application was started again: it exited with code 3. Files outside volumes are gone."},
		{"with all others", restarted(1, terminated(137, "RestartingAllContainers")), 1, "was ended, so that all containers start again",
			"The application was started again: it was ended, so that all containers start again. Files outside volumes are gone."},
		{"a helper was", func(p *corev1.Pod) {
			p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: "helper", RestartCount: 4, LastTerminationState: terminated(1, "Error")})
		}, 0, "", ""},
	} {
		inst := FromPod(kubetest.Pod(anID, kubetest.Noon, test.change), nil, kubetest.Noon.Add(time.Hour), kubetest.StartTimeout)
		if inst.Status != StatusDeployed || inst.Restarts != test.times || inst.RestartReason != test.reason || inst.Message != test.message {
			t.Errorf("%s: got %+v", test.name, inst)
		}
	}
}

// A tombstone has what the cluster said for kubectl describe, and visitors do not get it.
func TestTombstoneKeepsDetailApart(t *testing.T) {
	for _, detail := range []string{"", "Error: odd (text) in it"} {
		event := &corev1.Event{Reason: "Failed", Message: TombstoneText("It failed.", detail)}
		event.Annotations = map[string]string{FaultAnnotation: "template"}
		if detail != "" {
			event.Annotations[DetailAnnotation] = detail
		}
		if got := FromTombstone(event); got.Message != "It failed." || got.Detail != detail || got.Fault != FaultTemplate || !strings.HasSuffix(event.Message, detail+")") == (detail != "") {
			t.Errorf("of %q: got %+v", event.Message, got)
		}
	}
}
