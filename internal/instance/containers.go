package instance

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// DefaultContainerAnnotation names the container of a pod that people mean: kubectl's
// annotation. It is the one that serves the application.
const DefaultContainerAnnotation = "kubectl.kubernetes.io/default-container"

// mostExits is how often a container may end before its pod was ever Ready. After that
// the launch has failed. The kubelet's pauses (10 s, 20 s, 40 s) make that a good minute.
const mostExits = 5

// servingStatus returns the status of the container that serves the application, or nil
// before the kubelet has written it.
func servingStatus(pod *corev1.Pod) *corev1.ContainerStatus {
	statuses := pod.Status.ContainerStatuses
	if len(statuses) == 0 {
		return nil
	}
	name := pod.Annotations[DefaultContainerAnnotation]
	i := slices.IndexFunc(statuses, func(s corev1.ContainerStatus) bool { return s.Name == name })
	return &statuses[max(i, firstOfSpec(pod), 0)]
}

// firstOfSpec returns the index of the status of the first container of the spec, or -1.
// The kubelet sorts statuses by name.
func firstOfSpec(pod *corev1.Pod) int {
	if pod.Annotations[DefaultContainerAnnotation] != "" || len(pod.Spec.Containers) == 0 {
		return -1
	}
	return slices.IndexFunc(pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool { return s.Name == pod.Spec.Containers[0].Name })
}

// speakers returns the statuses of a pod's containers in the order in which they speak
// for it: the one that serves, init containers, other containers, and last the sidecars
// (init containers that run as long as the pod).
func speakers(pod *corev1.Pod) (all []*corev1.ContainerStatus, sidecars int) {
	serving := servingStatus(pod)
	if serving != nil {
		all = append(all, serving)
	}
	var last []*corev1.ContainerStatus
	for i := range pod.Status.InitContainerStatuses {
		status := &pod.Status.InitContainerStatuses[i]
		if isSidecar(pod, status.Name) {
			last = append(last, status)
		} else {
			all = append(all, status)
		}
	}
	for i := range pod.Status.ContainerStatuses {
		if status := &pod.Status.ContainerStatuses[i]; status != serving {
			all = append(all, status)
		}
	}
	return append(all, last...), len(last)
}

// isInit reports whether a container of a pod is an init container that ends.
func isInit(pod *corev1.Pod, name string) bool {
	return !isSidecar(pod, name) && slices.ContainsFunc(pod.Status.InitContainerStatuses, func(s corev1.ContainerStatus) bool { return s.Name == name })
}

func isSidecar(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool {
		return c.Name == name && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
	})
}

// SlimSpec returns what is read of a pod's spec: the node, the restart policies, and the
// names of the containers that have one of their own. If the pod does not say which
// container serves, the name of the first is left too.
func SlimSpec(pod *corev1.Pod) corev1.PodSpec {
	slim := corev1.PodSpec{
		NodeName: pod.Spec.NodeName, RestartPolicy: pod.Spec.RestartPolicy,
		ActiveDeadlineSeconds: pod.Spec.ActiveDeadlineSeconds, // a claim can only shorten it
		SchedulingGates:       pod.Spec.SchedulingGates,
	}
	own := func(c *corev1.Container) bool { return c.RestartPolicy != nil || len(c.RestartPolicyRules) > 0 }
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; own(c) {
			slim.InitContainers = append(slim.InitContainers, corev1.Container{Name: c.Name, RestartPolicy: c.RestartPolicy, RestartPolicyRules: c.RestartPolicyRules})
		}
	}
	unnamed := pod.Annotations[DefaultContainerAnnotation] == "" && len(pod.Spec.Containers) > 1
	for i := range pod.Spec.Containers {
		if c := &pod.Spec.Containers[i]; own(c) || i == 0 && unnamed {
			slim.Containers = append(slim.Containers, corev1.Container{Name: c.Name, RestartPolicy: c.RestartPolicy, RestartPolicyRules: c.RestartPolicyRules})
		}
	}
	return slim
}

// isOver reports whether a container has ended and the kubelet will not start it again.
// With rules for single exit codes nobody but the kubelet knows: then the pod's phase
// tells.
func isOver(pod *corev1.Pod, status *corev1.ContainerStatus) bool {
	ended := status.State.Terminated
	if ended == nil || mayRestartAll(pod) {
		return false
	}
	policy := string(pod.Spec.RestartPolicy)
	for i := range pod.Spec.Containers {
		if c := &pod.Spec.Containers[i]; c.Name == status.Name {
			if len(c.RestartPolicyRules) > 0 {
				return false
			}
			if c.RestartPolicy != nil {
				policy = string(*c.RestartPolicy)
			}
		}
	}
	return policy == string(corev1.RestartPolicyNever) || policy == string(corev1.RestartPolicyOnFailure) && ended.ExitCode == 0
}

// mayRestartAll reports whether the end of one container can start all others again, by a
// rule of its own: then the kubelet ends and removes the others first.
// (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-all-containers)
func mayRestartAll(pod *corev1.Pod) bool {
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if slices.ContainsFunc(containers[i].RestartPolicyRules, func(rule corev1.ContainerRestartRule) bool {
				return rule.Action == corev1.ContainerRestartRuleActionRestartAllContainers
			}) {
				return true
			}
		}
	}
	return false
}

// lastEnd returns how a container ended the last time, or nil.
func lastEnd(status *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	if status.State.Terminated != nil {
		return status.State.Terminated
	}
	return status.LastTerminationState.Terminated
}

// exits returns how often a container has ended.
func exits(status *corev1.ContainerStatus) int32 {
	if status.State.Running == nil && lastEnd(status) != nil {
		return status.RestartCount + 1
	}
	return status.RestartCount
}

// endWords says how a container ended, in plain words. Only Events tell that the kubelet
// has killed it, and why: around its end they were seen, for the first or last time or in
// between.
func endWords(pod *corev1.Pod, status *corev1.ContainerStatus, ended *corev1.ContainerStateTerminated, warnings []*corev1.Event) string {
	const before, after = time.Minute, 5 * time.Second // a grace period may lie between; clocks are cut to seconds
	const killed, asked = 128 + 9, 128 + 15            // the exit codes of SIGKILL and SIGTERM
	words, unclear := exitWords(status, ended)
	if !unclear || ended.ExitCode != killed && ended.ExitCode != asked {
		return words
	}
	for _, event := range warnings {
		if !isAbout(event, pod, status.Name) || lastSeen(event).Before(ended.FinishedAt.Add(-before)) || firstSeen(event).After(ended.FinishedAt.Add(after)) {
			continue
		}
		switch {
		case event.Reason == "FailedPostStartHook":
			return endedByPostStart
		case event.Reason == "Unhealthy" && strings.HasPrefix(event.Message, "Liveness probe failed"):
			return endedByLiveness
		case event.Reason == "Unhealthy" && strings.HasPrefix(event.Message, "Startup probe failed"):
			return endedByStartProbe
		}
	}
	return words
}

// exitWords says how a container ended by its status alone. It is unclear if there is
// nothing but an exit code.
func exitWords(status *corev1.ContainerStatus, ended *corev1.ContainerStateTerminated) (words string, unclear bool) {
	switch ended.Reason {
	case "OOMKilled":
		if limit, ok := memoryLimit(status); ok {
			return Fill(overMemoryLimit, "{limit}", limit), false
		}
		return outOfMemory, false
	case "StartError", "ContainerCannotRun":
		return couldNotStart, false
	case "ContainerStatusUnknown", "Unknown":
		return lostByNode, false
	case "RestartingAllContainers":
		return endedForAll, false
	}
	return Fill(exitedWithCode, "{code}", strconv.Itoa(int(ended.ExitCode))), true
}

func memoryLimit(status *corev1.ContainerStatus) (string, bool) {
	if status.Resources == nil {
		return "", false
	}
	limit, ok := status.Resources.Limits[corev1.ResourceMemory]
	return limit.String(), ok
}

// RestartsBefore returns how often the container that serves was restarted while its pod
// waited in the pool, as RestartsBeforeAnnotation holds it; "" if never.
func RestartsBefore(pod *corev1.Pod) string {
	if serving := servingStatus(pod); serving != nil && serving.RestartCount > 0 {
		return strconv.Itoa(int(serving.RestartCount))
	}
	return ""
}

// restartsOf returns how often and why the container that serves was restarted since the
// launch. The pod does not say whether it was Ready before its last end, so an end at the
// very start counts too.
func restartsOf(pod *corev1.Pod, warnings []*corev1.Event) (restarts int32, reason string) {
	serving := servingStatus(pod)
	if serving == nil {
		return 0, ""
	}
	before, err := strconv.ParseUint(pod.Annotations[RestartsBeforeAnnotation], 10, 31)
	if err != nil {
		before = 0
	}
	restarts = serving.RestartCount - int32(before)
	if restarts <= 0 {
		return 0, ""
	}
	if ended := lastEnd(serving); ended != nil {
		return restarts, endWords(pod, serving, ended, warnings)
	}
	return restarts, hasEnded
}

// restartMessage tells the visitor of a deployed instance of its restarts.
func restartMessage(restarts int32, reason string) string {
	switch restarts {
	case 0:
		return ""
	case 1:
		return Fill(restartedOnce, "{how}", reason)
	}
	return Fill(restartedOften, "{times}", strconv.Itoa(int(restarts)), "{how}", reason)
}

// WasReady reports whether a pod may have been Ready before. The kubelet writes the start
// time and the condition Ready at the same time, and the condition's time again when it
// changes.
func WasReady(pod *corev1.Pod) bool {
	const slack = 2 * time.Second // both times are cut to seconds
	ready := Condition(pod, corev1.PodReady)
	if ready == nil {
		return false
	}
	if ready.Status == corev1.ConditionTrue || pod.Status.StartTime == nil {
		return true
	}
	return ready.LastTransitionTime.Sub(pod.Status.StartTime.Time) > slack
}

var pullBackoff = regexp.MustCompile(`(?s)^Back-off pulling image ".*?": ([A-Za-z]+): (.*)$`)
