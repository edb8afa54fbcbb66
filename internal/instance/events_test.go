package instance_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	. "github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// seen sets when an Event was first and last seen, after noon.
func seen(event *corev1.Event, first, last time.Duration) *corev1.Event {
	event.FirstTimestamp, event.LastTimestamp = metav1.NewTime(kubetest.Noon.Add(first)), metav1.NewTime(kubetest.Noon.Add(last))
	return event
}

// aboutPod makes an Event one about the whole pod.
func aboutPod(event *corev1.Event) *corev1.Event {
	event.InvolvedObject.FieldPath = ""
	return event
}

// stopped makes the pod one that stopped being Ready after a time.
func stopped(after time.Duration) func(*corev1.Pod) {
	return kubetest.All(neverReady, kubetest.NotReadySince(kubetest.Noon.Add(after)))
}

func containerReady(p *corev1.Pod) { p.Status.ContainerStatuses[0].Ready = true }

// Events are read as what is the matter now: not those of a start that has long gone
// well, of another container, or of a step that was passed.
func TestEventsOfTheMoment(t *testing.T) {
	all, waiting, running := kubetest.All, kubetest.StartingWith, corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(kubetest.Noon)}}
	const refused, elsewhere = "Readiness probe failed: dial tcp 10.0.0.7:8888: connect: connection refused", "Readiness probe failed: dial tcp 10.0.0.7:9000: connect: connection refused"
	const notFound, denied, overloaded = `Failed to pull image "jupyter:1": jupyter:1: not found`, `Failed to pull image "jupyter:1": 403 Forbidden`, `Failed to pull image "jupyter:1": 503 Service Unavailable`
	const slow = "context deadline exceeded"
	about := func(reason, message, container string, first, last time.Duration) *corev1.Event {
		return seen(said(reason, message, container), first, last)
	}
	failed := func(message string, at time.Duration) *corev1.Event {
		return about("Failed", message, "notebook", at, at)
	}
	unhealthy := func(message string, at time.Duration) *corev1.Event {
		return about("Unhealthy", message, "notebook", at, at)
	}
	nodeDown := func(at time.Duration) *corev1.Event {
		return aboutPod(about("NodeNotReady", "Node is not ready", "", at, at))
	}
	events := func(all ...*corev1.Event) []*corev1.Event { return all }
	silent := all(neverReady, containerReady, kubetest.OnSilentNode(kubetest.Noon.Add(20*time.Minute)))
	never := restartPolicy(corev1.RestartPolicyNever)
	readyIs := func(status corev1.ConditionStatus, reason string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			Condition(p, corev1.PodReady).Status, Condition(p, corev1.PodReady).Reason = status, reason
		}
	}
	helper := withContainer("helper", running)
	long := strings.Repeat("n", 200)
	for _, test := range []struct {
		name     string
		change   func(*corev1.Pod)
		warnings []*corev1.Event
		at       time.Duration
		want     Status
		fault    Fault
		says     string
	}{
		{"its node is silent, long after a probe at the start", silent, events(unhealthy(refused, 5*time.Second), nodeDown(20*time.Minute)),
			21 * time.Minute, StatusDeployed, "", "The node of the instance does not work at the moment."},
		{"for longer than the start timeout", silent, events(unhealthy(refused, 5*time.Second), nodeDown(20*time.Minute)),
			25 * time.Minute, StatusDeployed, "", "The node of the instance does not work at the moment."},
		{"no Event tells of it", silent, nil, 6 * time.Hour, StatusDeployed, "", "The node of the instance does not work at the moment."},
		{"it was restarted before", all(silent, restarted(1, terminated(3, "Error"))), nil, time.Hour, StatusDeployed, "", "The application was started again: it exited with code 3."},
		{"some controller says Unknown", all(silent, readyIs(corev1.ConditionUnknown, "")), nil, time.Hour, StatusDeployed, "", "does not work"},
		{"and gives a reason of its own", all(silent, readyIs(corev1.ConditionFalse, "NodeNotReady")), nil, time.Hour, StatusDeployed, "", "does not work"},
		{"its node is silent, and the pod is being deleted", all(silent, kubetest.Deleting, disrupted("DeletionByTaintManager")), nil, 26 * time.Minute, StatusDeleted, FaultChance, "takes no instances any more"},
		{"its node fell silent while it started", all(neverReady, kubetest.NotReadySince(kubetest.Noon), kubetest.ContainersReady(corev1.ConditionFalse, kubetest.Noon)), events(nodeDown(time.Minute)), 2 * time.Minute, StatusDeploying, "", "Starting the application."},
		{"the node is back, and its containers are not ready", all(stopped(20*time.Minute), kubetest.ContainersReady(corev1.ConditionFalse, kubetest.Noon.Add(40*time.Minute))), events(nodeDown(20 * time.Minute)),
			44 * time.Minute, StatusDeploying, "", "Starting the application."},
		{"for the whole start timeout", all(stopped(20*time.Minute), kubetest.ContainersReady(corev1.ConditionFalse, kubetest.Noon.Add(40*time.Minute))), nil, 45 * time.Minute, StatusFailed, FaultChance, "not ready within 5m0s"},
		{"the node is back after a reboot, the container ended", all(never, stopped(20*time.Minute), kubetest.ContainersReady(corev1.ConditionFalse, kubetest.Noon.Add(40*time.Minute)), state(terminated(137, "ContainerStatusUnknown"))), nil,
			41 * time.Minute, StatusFailed, FaultCluster, "The node lost the container"},
		{"nothing says why", all(stopped(20*time.Minute), containerReady), events(unhealthy(refused, 5*time.Second)), 21 * time.Minute, StatusDeploying, "", "Waiting for the rest of the instance."},
		{"a probe fails that was fine since the start", stopped(20 * time.Minute), events(unhealthy(refused, 5*time.Second)), 21 * time.Minute, StatusDeploying, "", "Starting the application."},
		{"a probe fails again", stopped(20 * time.Minute), events(about("Unhealthy", refused, "notebook", 5*time.Second, 20*time.Minute)), 21 * time.Minute, StatusDeploying, FaultTemplate, "nothing listens on port 8888"},
		{"its node was lost, and is back", stopped(20 * time.Minute), events(nodeDown(10*time.Minute), unhealthy(refused, 20*time.Minute)), 21 * time.Minute, StatusDeploying, FaultTemplate, "nothing listens on port 8888"},
		{"a readiness gate was missed again", all(silent, readyIs(corev1.ConditionFalse, "ReadinessGatesNotReady")), nil, 21 * time.Minute, StatusDeploying, "", "Waiting for the rest of the instance."},
		{"a readiness gate is missing", all(neverReady, kubetest.NotReadySince(kubetest.Noon), containerReady), events(unhealthy(refused, 5*time.Second)), time.Minute, StatusDeploying, "", "Waiting for the rest of the instance."},

		{"a helper's probe", all(kubetest.NotReadySince(kubetest.Noon), containerReady, helper), events(about("Unhealthy", elsewhere, "helper", time.Minute, time.Minute)),
			2 * time.Minute, StatusDeploying, FaultTemplate, "The container helper runs, but its probe says that it is not ready."},
		{"a helper's probe times out", all(kubetest.NotReadySince(kubetest.Noon), containerReady, helper), events(about("Unhealthy", "Readiness probe failed: command timed out", "helper", time.Minute, time.Minute)),
			2 * time.Minute, StatusDeploying, FaultTemplate, "The container helper runs, but does not answer."},
		{"the probe of another port", kubetest.NotReadySince(kubetest.Noon), events(unhealthy(elsewhere, time.Minute)), 2 * time.Minute, StatusDeploying, FaultTemplate, "The container notebook runs, but its probe says"},
		{"both: the application first", all(kubetest.NotReadySince(kubetest.Noon), helper), events(about("Unhealthy", elsewhere, "helper", 70*time.Second, 70*time.Second), unhealthy(refused, time.Minute)),
			2 * time.Minute, StatusDeploying, FaultTemplate, "nothing listens on port 8888"},

		{"a pull failed once, then the node is slow", waiting("CreateContainerError", slow), events(failed(overloaded, time.Second), failed("Error: ErrImagePull", time.Second), failed("Error: ImagePullBackOff", time.Second)),
			time.Minute, StatusDeploying, FaultCluster, "at the moment"},
		{"the image was missing, then the node is slow", waiting("RunContainerError", slow), events(failed(notFound, time.Second)), time.Minute, StatusDeploying, FaultCluster, "at the moment"},
		{"a Secret was missing and made, then the node is slow", waiting("CreateContainerError", slow), events(about("Failed", `Error: secret "x" not found`, "notebook", time.Second, 30*time.Second)),
			time.Minute, StatusDeploying, FaultCluster, "at the moment"},
		{"a Secret was missing before the pod was Ready", all(waiting("CreateContainerConfigError", "failed to sync secret cache"), stopped(20*time.Minute)), events(failed(`Error: secret "x" not found`, time.Second)),
			21 * time.Minute, StatusDeploying, FaultCluster, "has not yet received"},

		{"does not exist, then is denied", waiting("ErrImagePull", "403 Forbidden"), events(failed(notFound, 10*time.Second), failed(denied, 30*time.Second)), time.Minute, StatusFailed, FaultTemplate, "does not exist"},
		{"is denied, then does not exist", waiting("ErrImagePull", "jupyter:1: not found"), events(failed(notFound, 30*time.Second), failed(denied, 10*time.Second)), time.Minute, StatusFailed, FaultTemplate, "may not download"},
		{"both, and then the network", waiting("ErrImagePull", "i/o timeout"), events(failed(notFound, 10*time.Second), failed(denied, 10*time.Second)), time.Minute, StatusFailed, FaultTemplate, "may not download"},
		{"unknown, and does not exist", waiting("ErrImagePull", "odd"), events(failed(notFound, 10*time.Second), failed("Error: ImagePullBackOff", 10*time.Second)), time.Minute, StatusFailed, FaultTemplate, "does not exist"},
		{"an unknown error of a node once", waiting("CreateContainerError", "odd"), events(failed("Error: odd", time.Second)), time.Minute, StatusDeploying, FaultTemplate, "cannot be created. The node tries again."},
		{"an unknown error of a node twice", waiting("CreateContainerError", "odd"), events(about("Failed", "Error: odd", "notebook", time.Second, 15*time.Second)), time.Minute, StatusFailed, FaultTemplate, "cannot be created. Launching"},
		{"a long one twice", waiting("RunContainerError", long+long+long), events(about("Failed", "Error: "+long+long+long, "notebook", time.Second, 15*time.Second)), time.Minute, StatusFailed, FaultTemplate, "cannot be started. Launching"},
		{"another one twice", waiting("RunContainerError", "odd"), events(about("Failed", "Error: peculiar", "notebook", time.Second, 15*time.Second)), time.Minute, StatusDeploying, FaultTemplate, "cannot be started. The node tries again."},
		{"the text is too long to be kept whole", waiting("ErrImagePull", "i/o timeout"), events(failed(`Failed to pull image "`+long+`": failed to pull and unpack image "`+long+`": failed to resolve reference "`+long+`": `+long+`: not found`, time.Second)),
			time.Minute, StatusFailed, FaultTemplate, "does not exist"},

		{"two volumes, in the same second", kubetest.Starting, events(
			aboutPod(about("FailedMount", `MountVolume.SetUp failed for volume "a" : configmap "x" not found`, "", time.Second, 40*time.Second)),
			aboutPod(about("FailedMount", `MountVolume.SetUp failed for volume "b" : rpc error`, "", 2*time.Second, 40*time.Second)),
		), time.Minute, StatusDeploying, FaultTemplate, "does not exist"},
		{"a device is not claimed, and the scheduler waits", kubetest.Unscheduled, events(
			aboutPod(about("FailedResourceClaimCreation", "no class", "", 0, 10*time.Second)), aboutPod(about("FailedScheduling", "0/1 nodes", "", 0, 20*time.Second)),
		), time.Minute, StatusPending, FaultTemplate, "A device that the template asks for cannot be claimed."},
		{"a device was not claimed at first", all(kubetest.Unscheduled, func(p *corev1.Pod) {
			p.Status.Conditions[0].LastTransitionTime = metav1.NewTime(kubetest.Noon.Add(20 * time.Second))
		}), events(aboutPod(about("FailedResourceClaimCreation", "no class", "", 0, 10*time.Second))), time.Minute, StatusPending, FaultCluster, "Waiting for a node that can take the instance."},
	} {
		t.Run(test.name, func(t *testing.T) {
			pod := kubetest.Pod(anID, kubetest.Noon, test.change)
			var warnings []*corev1.Event
			for _, event := range test.warnings {
				warnings = append(warnings, SlimWarning(event))
			}
			inst := FromPod(pod, warnings, kubetest.Noon.Add(test.at), kubetest.StartTimeout)
			if inst.Status != test.want || inst.Fault != test.fault || !strings.Contains(inst.Message, test.says) {
				t.Errorf("got %s, %q: %q; want %s, %q: %q", inst.Status, inst.Fault, inst.Message, test.want, test.fault, test.says)
			}
			// The read model has Events in any order.
			random := rand.New(rand.NewPCG(1, 2))
			for range 20 {
				random.Shuffle(len(warnings), func(i, j int) { warnings[i], warnings[j] = warnings[j], warnings[i] })
				before := slices.Clone(warnings)
				if other := FromPod(pod, warnings, kubetest.Noon.Add(test.at), kubetest.StartTimeout); other != inst {
					t.Fatalf("with Events in another order: got\n%+v, want\n%+v", other, inst)
				}
				if !slices.Equal(warnings, before) {
					t.Fatal("FromPod has changed the order of Events that it does not own")
				}
			}
		})
	}
}

// What passes, and who can mend it, by the words of the kubelet, the runtime and the
// scheduler.
func TestTextsOfTheCluster(t *testing.T) {
	waiting := kubetest.StartingWith
	for reason, tests := range map[string]map[string]Fault{
		"CreateContainerConfigError": {
			"services have not yet been read at least once, cannot construct envvars":       FaultCluster,
			`cannot find volume "work" to mount into container "notebook"`:                  FaultCluster,
			"failed to sync configmap cache: timed out waiting for the condition":           FaultCluster,
			"could not write checkpoint: write /var/lib/kubelet/x: no space left on device": FaultCluster,
			`failed to fetch secret: Get "https://10.0.0.1": dial tcp: connection refused`:  FaultCluster,
			"something that nobody knows, for the first time":                               FaultTemplate,
		},
		"CreateContainerError": {
			`rpc error: dial unix /run/containerd/containerd.sock: connect: connection refused`: FaultCluster,
			"error reading from server: EOF":                                 FaultCluster,
			"transport is closing":                                           FaultCluster,
			`failed to reserve container name: name "a" is reserved for "b"`: FaultCluster,
			"context deadline exceeded":                                      FaultCluster,
		},
		"RunContainerError": {
			"failed to create shim task: mkdir /run/x: no space left on device":             FaultCluster,
			"fork/exec /usr/bin/runc: resource temporarily unavailable":                     FaultCluster,
			"fork/exec /usr/bin/runc: cannot allocate memory":                               FaultCluster,
			"failed to mount /var/lib/x: device or resource busy":                           FaultCluster,
			"dial unix /run/containerd/containerd.sock: connect: no such file or directory": FaultCluster,
		},
		"ImageInspectError": {"rpc error: connection error": FaultCluster},
		"ErrImagePull": {
			"dial unix /run/containerd/containerd.sock: connect: connection refused":                                   FaultCluster,
			"net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)": FaultCluster,
			"http2: server sent GOAWAY and closed the connection":                                                      FaultCluster,
			"dial tcp 192.0.2.1:443: connect: connection timed out":                                                    FaultCluster,
			"dial tcp: lookup nowhere.example: no such host":                                                           FaultTemplate,
		},
	} {
		for text, fault := range tests {
			for after := time.Minute; after < 5*time.Minute; after += time.Minute {
				inst := FromPod(kubetest.Pod(anID, kubetest.Noon, waiting(reason, text)), nil, kubetest.Noon.Add(after), kubetest.StartTimeout)
				if inst.Status != StatusDeploying || inst.Fault != fault || strings.Contains(inst.Message, "registry does not answer") != (reason == "ErrImagePull" && fault == FaultCluster && !strings.Contains(text, "unix")) {
					t.Errorf("%s: %q: got %s, %q: %q; want deploying, %q", reason, text, inst.Status, inst.Fault, inst.Message, fault)
				}
			}
		}
	}
	for text, fault := range map[string]Fault{
		`MountVolume.SetUp failed for volume "x" : configmap "missing" not found`:                                                    FaultTemplate,
		`MountVolume.SetUp failed for volume "x" : secret "missing" not found`:                                                       FaultTemplate,
		`MountVolume.SetUp failed for volume "x" : configmap references non-existent config key: k`:                                  FaultTemplate,
		`MountVolume.SetUp failed for volume "x" : references non-existent secret key: k`:                                            FaultTemplate,
		`Unable to attach or mount volumes: failed to fetch PVC from API server: persistentvolumeclaims "x" not found`:               FaultTemplate,
		`failed to fetch PVC from API server: persistentvolumeclaims "x" is forbidden: no relationship found between node "n"`:       FaultCluster,
		`kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: driver name x not found in the list of registered CSI drivers`: FaultCluster,
		`MountVolume.SetUp failed for volume "x" : failed to sync configmap cache: timed out waiting for the condition`:              FaultCluster,
		`MountVolume.SetUp failed for volume "x" : object "ns"/"cm" not registered`:                                                  FaultCluster,
	} {
		inst := FromPod(kubetest.Pod(anID, kubetest.Noon, kubetest.Starting), []*corev1.Event{aboutPod(said("FailedMount", text, ""))}, kubetest.Noon.Add(2*time.Minute), kubetest.StartTimeout)
		if inst.Fault != fault {
			t.Errorf("FailedMount: %q: got %q: %q; want %q", text, inst.Fault, inst.Message, fault)
		}
	}
	for text, says := range map[string]string{
		"0/3 nodes are available: 3 node(s) had untolerated taint {node.kubernetes.io/not-ready: }.":      "some do not work",
		"0/3 nodes are available: 3 node(s) had untolerated taint {node.kubernetes.io/disk-pressure: }.":  "some do not work",
		"0/3 nodes are available: 1 node(s) had untolerated taint {gpu: }, 2 node(s) were unschedulable.": "some do not work",
		"0/3 nodes are available: 3 node(s) had untolerated taint(s).":                                    "that can take the instance",
		"0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.":                   "of the kind that the template asks for",
		"0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.":                      "the cluster is full",
	} {
		pod := kubetest.Pod(anID, kubetest.Noon, kubetest.Unscheduled, func(p *corev1.Pod) { p.Status.Conditions[0].Message = text })
		if inst := FromPod(pod, nil, kubetest.Noon, kubetest.StartTimeout); !strings.Contains(inst.Message, says) || inst.Fault != FaultCluster {
			t.Errorf("%q: got %q: %q; want %q", text, inst.Fault, inst.Message, says)
		}
	}
	for reason, says := range map[string]string{"SchedulerError": "could not choose a node", "SchedulingGated": "holds the instance back"} {
		pod := kubetest.Pod(anID, kubetest.Noon, kubetest.Unscheduled, func(p *corev1.Pod) { p.Status.Conditions[0].Reason = reason })
		if inst := FromPod(pod, nil, kubetest.Noon, kubetest.StartTimeout); inst.Status != StatusPending || !strings.Contains(inst.Message, says) || inst.Fault != FaultCluster {
			t.Errorf("%s: got %+v", reason, inst)
		}
	}
	for reason, says := range map[string]string{
		"FailedAttachVolume": "cannot be attached or mounted", "FailedCreatePodSandBox": "cannot set up the network", "FailedPodSandBoxStatus": "cannot set up the network", "NetworkNotReady": "cannot set up the network",
	} {
		inst := FromPod(kubetest.Pod(anID, kubetest.Noon, kubetest.Starting), []*corev1.Event{aboutPod(said(reason, secret, ""))}, kubetest.Noon.Add(2*time.Minute), kubetest.StartTimeout)
		if inst.Status != StatusDeploying || inst.Fault != FaultCluster || !strings.Contains(inst.Message, says) || strings.Contains(inst.Message, secret) {
			t.Errorf("%s: got %+v", reason, inst)
		}
	}
	for reason, fault := range map[string]Fault{"PreemptionByScheduler": FaultCluster, "TerminationByKubelet": FaultCluster, "DeletionByTaintManager": FaultChance} {
		for _, change := range []func(*corev1.Pod){kubetest.Deleting, phase(corev1.PodFailed, "", "")} {
			inst := FromPod(kubetest.Pod(anID, kubetest.Noon, change, disrupted(reason)), nil, kubetest.Noon, kubetest.StartTimeout)
			if inst.Alive() || inst.Fault != fault || strings.Contains(inst.Message, secret) {
				t.Errorf("%s: got %+v", reason, inst)
			}
		}
	}
}

// How a container ended is told by its status first. Probes tell only why the kubelet has
// killed it, and the words stay as a later failure of the probe moves the Event's time.
func TestHowItEnded(t *testing.T) {
	liveness := func(first, last time.Duration) *corev1.Event {
		return seen(said("Unhealthy", "Liveness probe failed: timeout", "notebook"), first, last)
	}
	const probe = "was ended, because its liveness probe failed"
	for _, test := range []struct {
		name  string
		end   corev1.ContainerState // a minute after noon
		event *corev1.Event
		want  string
	}{
		{"killed after its probe failed", terminated(137, "Error"), liveness(40*time.Second, 50*time.Second), probe},
		{"asked to end after its probe failed", terminated(143, "Error"), liveness(40*time.Second, 50*time.Second), probe},
		{"the probe failed again since", terminated(137, "Error"), liveness(40*time.Second, time.Hour), probe},
		{"a probe failed long before", terminated(137, "Error"), liveness(-time.Hour, -time.Minute), "exited with code 137"},
		{"a probe failed only since", terminated(137, "Error"), liveness(70*time.Second, time.Hour), "exited with code 137"},
		{"out of memory, while probes failed", terminated(137, "OOMKilled"), liveness(40*time.Second, 50*time.Second), "ran out of memory"},
		{"by itself, after one tolerated failure", terminated(3, "Error"), liveness(40*time.Second, 50*time.Second), "exited with code 3"},
		{"lost, while probes failed", terminated(137, "ContainerStatusUnknown"), liveness(40*time.Second, 50*time.Second), "was lost by its node"},
		{"with all others", terminated(137, "RestartingAllContainers"), liveness(40*time.Second, 50*time.Second), "was ended, so that all containers start again"},
		{"its startup probe", terminated(137, "Error"), seen(said("Unhealthy", "Startup probe failed: x", "notebook"), 50*time.Second, 50*time.Second), "was ended, because its startup probe failed"},
		{"a helper's probe", terminated(137, "Error"), seen(said("Unhealthy", "Liveness probe failed: x", "helper"), 50*time.Second, 50*time.Second), "exited with code 137"},
	} {
		warnings := []*corev1.Event{test.event}
		again := FromPod(kubetest.Pod(anID, kubetest.Noon, restarted(1, test.end)), warnings, kubetest.Noon.Add(2*time.Hour), kubetest.StartTimeout)
		if again.RestartReason != test.want {
			t.Errorf("%s: started again: got %q, want %q", test.name, again.RestartReason, test.want)
		}
		if test.end.Terminated.Reason != "Error" {
			continue
		}
		over := FromPod(kubetest.Pod(anID, kubetest.Noon, restartPolicy(corev1.RestartPolicyNever), state(test.end)), warnings, kubetest.Noon.Add(2*time.Hour), kubetest.StartTimeout)
		if over.Status != StatusFailed || !strings.Contains(over.Message, "container notebook "+test.want+".") {
			t.Errorf("%s: not started again: got %q, want %q", test.name, over.Message, test.want)
		}
	}
}

// A failure that takes two tries is as old as the first.
func TestFailedSinceTheFirstTry(t *testing.T) {
	for reason, event := range map[string]*corev1.Event{
		"ErrImagePull":      seen(said("Failed", `Failed to pull image "jupyter:1": odd`, "notebook"), 10*time.Second, 30*time.Second),
		"RunContainerError": seen(said("Failed", "Error: odd", "notebook"), 10*time.Second, 30*time.Second),
		"InvalidImageName":  seen(said("Failed", "Error: InvalidImageName", "notebook"), 10*time.Second, 30*time.Second),
	} {
		inst := FromPod(kubetest.Pod(anID, kubetest.Noon, kubetest.StartingWith(reason, "odd")), []*corev1.Event{event}, kubetest.Noon.Add(time.Minute), kubetest.StartTimeout)
		if inst.Reason != reason || !inst.FailedAt.Equal(kubetest.Noon.Add(10*time.Second)) {
			t.Errorf("%s: got %q at %s", reason, inst.Reason, inst.FailedAt)
		}
	}
}
