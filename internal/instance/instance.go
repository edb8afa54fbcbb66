// Package instance is the state contract: how the state of an instance is written
// as labels and annotations on its pod, and how it is read back.
//
// Every fact about an instance is on its pod, or on the Event that remembers it
// once the pod is gone (its tombstone). So any replica can answer any request. Here
// are all the keys, ids and names, the status of a pod in the words of the Binder
// deploy protocol, and the syntax of the annotations that operators write.
//
// The package is pure: it never talks to the API server, reads a clock or logs. When
// an instance ends is decided by package lifetime.
package instance

import (
	"errors"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// What can be wrong with a request about an instance.
var (
	// ErrEnded is the error of what cannot be done with an instance that has ended, or ends.
	ErrEnded = errors.New("the instance has ended")
	// ErrTooSoon is the error of a change that follows too soon after another one.
	ErrTooSoon = errors.New("the instance was changed a moment ago; try again in 5 seconds")
)

// Instance is what is known about one launched container. It is computed from a pod
// or a tombstone each time that it is needed, and is not stored.
type Instance struct {
	ID       string
	Template string // full name of the template
	Status   Status
	// Reason says why an instance failed or ended: one CamelCase word, as in
	// Kubernetes conditions. It is empty for all others.
	Reason string
	// Message is for visitors: plain sentences about why an instance failed or ended and
	// what to do, or about what a starting one is waiting for. For a deployed instance,
	// it says that its container was restarted, or that its node is silent; else it is
	// empty.
	// It has no text of the cluster or a registry, apart from names of containers and images,
	// which templates choose. It is clipped by Clip. Of a container that ended with an error,
	// its LastOutput follows, on lines of its own.
	Message string
	// Detail is what the scheduler or the kubelet said, or a container that ended without an
	// error, clipped by Clip.
	// It can name nodes, addresses and Secrets, so only holders of the API key, logs and
	// tombstones get it. It is empty if they said nothing beyond Reason.
	Detail string
	// Fault says who can mend a failure, or what a starting instance waits for. It is
	// empty if there is nothing to mend.
	Fault Fault
	// Restarts is how often the kubelet has restarted the container that serves the
	// application, since the launch.
	Restarts int32
	// RestartReason says in plain words why it was restarted last, such as "exited with
	// code 3". It is empty if Restarts is 0.
	RestartReason string
	// FailedAt is when an instance finally failed. It is zero if the instance has not
	// failed, or if the pod does not say when.
	FailedAt time.Time
	Created  time.Time
	// Launched is when the pod became an instance: later than Created if it was warm. If
	// the pod does not say, or not readably, it is Created.
	Launched time.Time
	// Scheduled is when the pod of an instance that starts got its node, and Started when all of
	// its containers had started, to the second; zero before that, and once it is deployed.
	Scheduled, Started time.Time
	// Waited is how long an instance that starts has waited for a place before Launched; 0 if it
	// has not, and once it is deployed.
	Waited time.Duration

	Ended   time.Time // when the instance was deleted; zero while there is a pod
	Address string    // host:port at which the application listens; empty unless deployed
	// LastActivity is when the instance was last used according to its pod, and
	// Source is how. They and CullAt are set by package lifetime, and are zero for an
	// instance that has failed or ended, or whose pod has no valid time.
	LastActivity time.Time
	Source       Source
	// CullAt is when the instance is due to end, as idle or too old, if it is not
	// used again.
	CullAt time.Time
	// ExpiresAt is the end of its max age, which no use puts off; zero if it has none.
	ExpiresAt time.Time
	// Token is shown to the application by the proxy.
	Token Token
	// Unsure says that the address may belong to another instance by now: nobody may be sent
	// there. Of an instance that is not known it says that there may be one all the same. It
	// is false unless the read model sets it.
	Unsure bool
	// ShowsLog says that the log of an instance that starts can be shown; see LogsAnnotation.
	ShowsLog bool
	// Ports is the value of PortsAnnotation. It can be invalid.
	Ports string
	// StripPrefix says that the application expects paths without /user/<id>.
	StripPrefix bool
	// IdlePaths is a regular expression of paths whose GETs do not count as use; see
	// CompileIdlePaths. It can be invalid, and so can the next two.
	IdlePaths string
	// IdleRequests is a regular expression of requests that do not count as use; see
	// IdleRequestsAnnotation.
	IdleRequests string
	// HeartbeatFrames names WebSocket messages that do not count as use; see
	// ParseHeartbeatFrames.
	HeartbeatFrames string
}

// Alive reports whether the instance can be used, or may yet become usable.
func (i Instance) Alive() bool { return !i.Status.Over() }

// Expires reports whether CullAt is the end of its max age.
func (i Instance) Expires() bool { return !i.ExpiresAt.IsZero() && !i.CullAt.Before(i.ExpiresAt) }

// FromPod returns the instance of a pod. warnings are its Warning Events, as SlimWarning
// leaves them. An instance that has waited for startTimeout or longer at the time now,
// and is not deployed, has failed.
func FromPod(pod *corev1.Pod, warnings []*corev1.Event, now time.Time, startTimeout time.Duration) Instance {
	inst := Instance{
		ID:          pod.Labels[IDLabel],
		Template:    TemplateOf(pod),
		Created:     pod.CreationTimestamp.Time,
		Launched:    LaunchedAt(pod),
		Token:       TokenOf(pod),
		StripPrefix: pod.Annotations[StripPrefixAnnotation] == "true",
		IdlePaths:   pod.Annotations[IdlePathsAnnotation],
		Ports:       pod.Annotations[PortsAnnotation],

		IdleRequests:    pod.Annotations[IdleRequestsAnnotation],
		HeartbeatFrames: pod.Annotations[HeartbeatFramesAnnotation],
	}
	warnings = inOrder(pod, warnings)
	f := deriveStatus(pod, warnings, now, startTimeout)
	inst.Status, inst.Reason, inst.Message, inst.Detail, inst.Fault, inst.FailedAt = f.status, f.reason, withLastOutput(Clip(f.message), f.output), f.detail, f.fault, f.failedAt
	inst.Restarts, inst.RestartReason = restartsOf(pod, warnings)
	switch inst.Status {
	case StatusDeployed:
		inst.Address = PodAddress(pod)
	case StatusPending, StatusDeploying:
		inst.ShowsLog = ShowsLog(pod)
		inst.Scheduled, inst.Started = becameTrue(pod, corev1.PodScheduled).UTC(), firstStart(pod).UTC()
		inst.Waited = BegunAt(pod).Sub(inst.Created)
	}
	return inst
}

// FromTombstone returns the instance that a tombstone remembers.
func FromTombstone(event *corev1.Event) Instance {
	return Instance{
		ID:       event.Labels[IDLabel],
		Template: TemplateOf(event),
		Created:  event.FirstTimestamp.Time,
		Launched: launchedAt(event, event.FirstTimestamp.Time),
		Status:   StatusDeleted,
		Reason:   event.Reason,
		Message:  tombstoneMessage(event),
		Detail:   event.Annotations[DetailAnnotation],
		Fault:    Fault(event.Annotations[FaultAnnotation]),
		Ended:    event.LastTimestamp.Time,
	}
}

// TombstoneText returns the message of a tombstone's Event: what visitors are told, and
// then what the cluster said, for kubectl describe.
func TombstoneText(message, detail string) string {
	if detail == "" {
		return message
	}
	return message + " (" + detail + ")"
}

// tombstoneMessage returns what visitors are told of a tombstone's message.
func tombstoneMessage(event *corev1.Event) string {
	return strings.TrimSuffix(event.Message, TombstoneText("", event.Annotations[DetailAnnotation]))
}

// HasID reports whether a pod of this service has an id, and the name that belongs to it. One on
// which somebody has written the id of another instance is not that instance.
func HasID(pod *corev1.Pod) bool {
	id := pod.Labels[IDLabel]
	return ValidID(id) && pod.Name == PodName(id)
}

// IsInstance reports whether a pod of this service belongs to an instance. Warm
// pods, and pods that only pull an image, do not. A pod with an id is either an instance
// or warm, whatever else somebody has written to its labels: so the culler or the pool
// ends it.
func IsInstance(pod *corev1.Pod) bool { return HasID(pod) && !IsWarm(pod) }

// IsWarm reports whether a pod of this service waits in the pool to become an
// instance.
func IsWarm(pod *corev1.Pod) bool { return HasID(pod) && pod.Labels[PoolLabel] == PoolWarm }

// IsStray reports whether a pod of this service has no id of its own and belongs to nobody
// else. Nobody can use it, because it is found by its id, so it ends like an instance that
// is not used. The pods of a preload have no id, but a DaemonSet that controls them.
func IsStray(pod *corev1.Pod) bool { return !HasID(pod) && metav1.GetControllerOf(pod) == nil }

// IsTombstone reports whether an Event remembers the instance whose id it has.
func IsTombstone(event *corev1.Event) bool {
	id := event.Labels[IDLabel]
	return ValidID(id) && event.Name == TombstoneName(id)
}

// Selector selects everything that this service creates.
func Selector() labels.Selector {
	return labels.SelectorFromSet(labels.Set{ManagedByLabel: ManagerName})
}

// Deleted returns a copy of a pod whose deletion the API server has accepted, for the
// read model: the watch reports it only later.
func Deleted(pod *corev1.Pod, at time.Time) *corev1.Pod {
	deleted := pod.DeepCopy()
	deleted.DeletionTimestamp = new(metav1.NewTime(at))
	return deleted
}
