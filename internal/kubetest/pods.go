package kubetest

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// Namespace is where the objects of all tests are.
const Namespace = "binder-instances"

// StartTimeout is the start timeout of all tests.
const StartTimeout = 5 * time.Minute

// TemplateName is the template of Pod, unless OfTemplate changes it.
const TemplateName = "jupyter"

// Noon is a time for tests that do not depend on a particular one.
var Noon = time.Date(2026, time.January, 2, 12, 0, 0, 0, time.UTC)

// ClockAt returns a clock that always shows t.
func ClockAt(t time.Time) func() time.Time { return func() time.Time { return t } }

// ID returns the id of the nth instance of a test.
func ID(n int) string { return fmt.Sprintf("%032x", n) }

// Token is the token of every instance of the tests.
const Token = "0123456789abcdef0123456789abcdef"

// address returns an IP address, another for each ID; that of ID(1) is 10.0.0.7, and so is
// that of ids that are no ID.
func address(id string) string {
	n, err := strconv.ParseUint(id, 16, 16)
	if err != nil {
		n = 1
	}
	n += 6
	return fmt.Sprintf("10.0.%d.%d", n>>8, n&0xff)
}

// Pod returns the pod of an instance that was created, became Ready and was last used at
// a time, with changes.
func Pod(id string, at time.Time, changes ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:              instance.PodName(id),
			Namespace:         Namespace,
			UID:               types.UID("uid-of-" + id),
			ResourceVersion:   "7",
			CreationTimestamp: metav1.NewTime(at),
			Labels: map[string]string{
				instance.ManagedByLabel: instance.ManagerName, instance.IDLabel: id, instance.TemplateLabel: TemplateName, instance.TemplateHashLabel: "0123456789",
			},
			Annotations: map[string]string{
				instance.TemplateNameAnnotation: TemplateName, instance.LastActivityAnnotation: instance.FormatTime(at), instance.PortAnnotation: "8888",
			},
		},
		Spec: corev1.PodSpec{NodeName: "node-1", Containers: []corev1.Container{{Name: "notebook", Image: "jupyter:1"}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning,
			PodIP: address(id),
			Conditions: []corev1.PodCondition{
				{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(at)},
				{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(at)},
			},
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: "notebook", Image: "jupyter:1",
				State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(at)}},
			}},
		},
	}
	for _, change := range changes {
		change(pod)
	}
	return pod
}

// All makes several changes in order.
func All(changes ...func(*corev1.Pod)) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		for _, change := range changes {
			change(pod)
		}
	}
}

func ready(pod *corev1.Pod) *corev1.PodCondition { return instance.Condition(pod, corev1.PodReady) }

// Unscheduled makes the pod wait for a node.
func Unscheduled(pod *corev1.Pod) {
	pod.Spec.NodeName = ""
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodPending,
		Conditions: []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable",
			Message: "0/1 nodes are available", LastTransitionTime: pod.CreationTimestamp,
		}},
	}
}

// Starting puts the pod on a node, with a container that does not run yet.
func Starting(pod *corev1.Pod) {
	pod.Status.Phase = corev1.PodPending
	pod.Status.PodIP = ""
	ready(pod).Status = corev1.ConditionFalse
	pod.Status.ContainerStatuses[0].State = Waiting("ContainerCreating", "")
}

// StartingWith is Starting with the kubelet's reason why the container waits.
func StartingWith(reason, message string) func(*corev1.Pod) {
	return All(Starting, func(pod *corev1.Pod) {
		pod.Status.ContainerStatuses[0].State = Waiting(reason, message)
	})
}

// ReadySince makes the pod Ready since a time.
func ReadySince(at time.Time) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { ready(pod).LastTransitionTime = metav1.NewTime(at) }
}

// NotReadySince makes the pod run without being Ready, since a time.
func NotReadySince(at time.Time) func(*corev1.Pod) {
	return All(ReadySince(at), func(pod *corev1.Pod) { ready(pod).Status = corev1.ConditionFalse })
}

// OnSilentNode makes the pod one that was Ready, and whose kubelet has been silent since a
// time: the node lifecycle controller changes the condition Ready alone.
func OnSilentNode(at time.Time) func(*corev1.Pod) {
	return All(NotReadySince(at), ContainersReady(corev1.ConditionTrue, at.Add(-time.Minute)))
}

// ContainersReady sets the kubelet's condition of the containers, since a time.
func ContainersReady(status corev1.ConditionStatus, at time.Time) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{
			Type: corev1.ContainersReady, Status: status, LastTransitionTime: metav1.NewTime(at),
		})
	}
}

// Broken makes the pod's container exit with code 1 at its creation.
func Broken(pod *corev1.Pod) {
	pod.Status.Phase = corev1.PodFailed
	ready(pod).Status = corev1.ConditionFalse
	pod.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: 1, Reason: "Error", FinishedAt: pod.CreationTimestamp,
	}}
}

// Completed makes the pod's container exit with code 0 at its creation.
func Completed(pod *corev1.Pod) {
	Broken(pod)
	pod.Status.Phase = corev1.PodSucceeded
	pod.Status.ContainerStatuses[0].State.Terminated.ExitCode = 0
	pod.Status.ContainerStatuses[0].State.Terminated.Reason = "Completed"
}

// Deleting marks the pod as deleted; its containers still run.
func Deleting(pod *corev1.Pod) {
	pod.DeletionTimestamp = &pod.CreationTimestamp
}

// WithLabel sets a label.
func WithLabel(key, value string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Labels[key] = value }
}

// WithAnnotation sets an annotation.
func WithAnnotation(key, value string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Annotations[key] = value }
}

// WithoutAnnotation removes an annotation.
func WithoutAnnotation(key string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { delete(pod.Annotations, key) }
}

// LastUsed sets when the instance was last used.
func LastUsed(at time.Time) func(*corev1.Pod) {
	return WithAnnotation(instance.LastActivityAnnotation, instance.FormatTime(at))
}

// LaunchedAt sets when the instance was launched.
func LaunchedAt(at time.Time) func(*corev1.Pod) {
	return WithAnnotation(instance.LaunchedAnnotation, instance.FormatTime(at))
}

// OfTemplate gives the pod another template.
func OfTemplate(name string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Labels[instance.TemplateLabel], pod.Annotations[instance.TemplateNameAnnotation] = instance.TemplateLabelValue(name), name
	}
}

// ServedPod returns the pod of the nth instance as an API server gives it: with labels and
// annotations of others, all that the kubelet writes, and managedFields.
func ServedPod(n int) *corev1.Pod {
	id := ID(n)
	pod := Pod(id, Noon, LaunchedAt(Noon), WithLabel(instance.ClientLabel, fmt.Sprintf("%016x", n/2)))
	pod.UID, pod.ResourceVersion = types.UID(fmt.Sprintf("%08x-1111-2222-3333-444455556666", n)), fmt.Sprint(100000+n)
	pod.Status.PodIP, pod.Status.HostIP = fmt.Sprintf("10.%d.%d.%d", n>>16&0xff, n>>8&0xff, n&0xff), "192.168.10.20"
	for i := range 3 {
		pod.Labels[fmt.Sprintf("example.org/label-%d", i)] = "a value"
		pod.Annotations[fmt.Sprintf("example.org/annotation-%d", i)] = "a value of an annotation"
	}
	pod.Annotations[instance.TokenAnnotation] = id
	pod.Annotations[instance.DefaultContainerAnnotation] = "notebook"
	pod.Annotations[instance.ReadyWhenAnnotation] = instance.ReadyWhenListening
	pod.Annotations[instance.ActivitySourceAnnotation] = string(instance.SourceLaunch)
	at := metav1.NewTime(Noon)
	pod.Status.StartTime = &at
	pod.Status.Conditions = nil
	for _, kind := range []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled} {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: at, ObservedGeneration: 1})
	}
	pod.Status.QOSClass = corev1.PodQOSBurstable
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "notebook", Ready: true, Started: new(true), Image: "quay.io/jupyter/minimal-notebook:2026-01-01",
		ImageID:     "quay.io/jupyter/minimal-notebook@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		ContainerID: "containerd://0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		State:       corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at}},
	}}
	for range 3 {
		pod.ManagedFields = append(pod.ManagedFields, metav1.ManagedFieldsEntry{Manager: "kubelet", FieldsV1: metav1.NewFieldsV1(strings.Repeat(" ", 1024))})
	}
	return pod
}

// Waiting returns the state of a container that waits.
func Waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

// Template returns a template of one container that listens on port 8888, with changes.
func Template(name string, changes ...func(*corev1.PodTemplate)) *corev1.PodTemplate {
	template := &corev1.PodTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: Namespace, Annotations: map[string]string{}},
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "notebook", Image: "jupyter:1", Ports: []corev1.ContainerPort{{ContainerPort: 8888}},
		}}}},
	}
	for _, change := range changes {
		change(template)
	}
	return template
}

// WithTemplateAnnotation sets an annotation of a template.
func WithTemplateAnnotation(key, value string) func(*corev1.PodTemplate) {
	return func(template *corev1.PodTemplate) { template.Annotations[key] = value }
}

// Tombstone returns the Event that remembers a pod's instance. The instance ended an
// hour after the pod was created.
func Tombstone(pod *corev1.Pod, reason instance.EndReason, message string) *corev1.Event {
	annotations := map[string]string{instance.TemplateNameAnnotation: instance.TemplateOf(pod)}
	if launched := pod.Annotations[instance.LaunchedAnnotation]; launched != "" {
		annotations[instance.LaunchedAnnotation] = launched
	}
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Name: instance.TombstoneName(pod.Labels[instance.IDLabel]), Namespace: pod.Namespace,
			Labels: instance.TombstoneLabels(pod), Annotations: annotations,
		},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Reason:         string(reason),
		Message:        message,
		FirstTimestamp: pod.CreationTimestamp,
		LastTimestamp:  metav1.NewTime(pod.CreationTimestamp.Add(time.Hour)),
	}
}
