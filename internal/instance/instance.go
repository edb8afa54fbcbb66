package instance

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (

	// timeFormat is RFC 3339 in UTC. Milliseconds, because timeouts are
	// given in milliseconds.
	timeFormat = "2006-01-02T15:04:05.000Z07:00"
)

// Status is an instance's state in the words of the Binder deploy protocol.
type Status string

const (
	StatusPending   Status = "pending"   // not yet on a node
	StatusDeploying Status = "deploying" // on a node, not yet listening
	StatusDeployed  Status = "deployed"  // listening; only now it has a location
	StatusFailed    Status = "failed"    // will not come up, or broke down
	StatusDeleted   Status = "deleted"   // over: culled, stopped or ended by itself
)

// Statuses lists every Status in the order an instance goes through them.
func Statuses() []Status {
	return []Status{StatusPending, StatusDeploying, StatusDeployed, StatusFailed, StatusDeleted}
}

// Instance is what there is to know about one launched container. It is
// computed from a pod, or from a tombstone once the pod is gone, each time it
// is asked for; nothing is kept.
type Instance struct {
	ID       string
	Template string
	Status   Status
	// Reason says why an instance failed or ended, a CamelCase word in the
	// vocabulary of Kubernetes conditions; Message says so in a sentence, or what
	// an instance that is not deployed yet is waiting for.
	Reason  string
	Message string
	Created time.Time
	// Ended is when it was deleted; zero while there is a pod.
	Ended time.Time
	// Address is where the application listens, host:port; empty unless deployed.
	Address string
	// LastActivity is when it was last used, as far as its pod says, by Source;
	// CullAt is when it will be ended at the earliest if it is used no more. Zero
	// when it is over, or when the pod says nothing readable.
	LastActivity time.Time
	Source       Source
	CullAt       time.Time
	// StripPrefix: the application does not want /user/<id> in its paths.
	StripPrefix bool
	// IdlePaths is an expression of paths whose GETs are no use of it.
	IdlePaths string
}

// Alive reports whether the instance is, or may still come to be, of use.
func (i Instance) Alive() bool {
	return i.Status != StatusFailed && i.Status != StatusDeleted
}

// IsInstance reports whether a managed pod is somebody's instance, and not a
// warm one or one that only pulls an image.
func IsInstance(meta metav1.Object) bool {
	l := meta.GetLabels()
	return ValidID(l[IDLabel]) && l[PoolLabel] == "" && l[PreloadLabel] == ""
}

// TemplateOf returns the full name of the template an object was made from.
func TemplateOf(meta metav1.Object) string {
	return cmp.Or(meta.GetAnnotations()[TemplateNameAnnotation], meta.GetLabels()[TemplateLabel])
}

// TemplateLabelValue makes a valid label value of any template name. A name
// that is none itself (too long, or from a registry with other rules) is
// shortened and told apart by a hash; the full name is in the annotation.
func TemplateLabelValue(name string) string {
	if len(validation.IsValidLabelValue(name)) == 0 {
		return name
	}
	const keep = validation.LabelValueMaxLength - 1 - 8
	readable := strings.Map(func(r rune) rune {
		if r < 0x80 && (r == '-' || r == '.' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z') {
			return r
		}
		return '-'
	}, name)
	readable = strings.Trim(readable[:min(len(readable), keep)], "-._")
	sum := sha256.Sum256([]byte(name))
	return strings.TrimLeft(readable+"-"+hex.EncodeToString(sum[:4]), "-")
}

// Selector selects everything this service manages.
func Selector() labels.Selector {
	return labels.SelectorFromSet(labels.Set{ManagedByLabel: ManagerName})
}

// LastActivity reads when an instance was last used. An annotation that is
// missing or unreadable is an error, and its meaning is the caller's to
// choose: it is never taken for "long ago".
func LastActivity(pod *corev1.Pod) (time.Time, error) {
	value, ok := pod.Annotations[LastActivityAnnotation]
	if !ok {
		return time.Time{}, fmt.Errorf("annotation %s is missing", LastActivityAnnotation)
	}
	t, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return time.Time{}, fmt.Errorf("annotation %s: %q is not an RFC 3339 time", LastActivityAnnotation, value)
	}
	return t, nil
}

func FormatTime(t time.Time) string { return t.UTC().Format(timeFormat) }

// CullTimeout reads how long an instance may be idle; absent, unreadable or
// not positive means the server's default.
func CullTimeout(pod *corev1.Pod, byDefault time.Duration) time.Duration {
	d, err := time.ParseDuration(pod.Annotations[CullTimeoutAnnotation])
	if err != nil || d <= 0 {
		return byDefault
	}
	return d
}

// FromPod is the read side of the state contract. now and startTimeout
// decide whether a launch has taken too long.
func FromPod(pod *corev1.Pod, now time.Time, startTimeout time.Duration) Instance {
	inst := Instance{
		ID:          pod.Labels[IDLabel],
		Template:    TemplateOf(pod),
		Created:     pod.CreationTimestamp.Time,
		StripPrefix: pod.Annotations[StripPrefixAnnotation] == "true",
		IdlePaths:   pod.Annotations[IdlePathsAnnotation],
	}
	inst.Status, inst.Reason, inst.Message = DeriveStatus(pod, now, startTimeout)
	if inst.Status == StatusDeployed {
		inst.Address = PodAddress(pod)
	}
	return inst
}

// PodAddress is where the application of a pod with an IP listens, or will.
func PodAddress(pod *corev1.Pod) string {
	port := cmp.Or(pod.Annotations[PortAnnotation], strconv.Itoa(DefaultPort))
	return net.JoinHostPort(pod.Status.PodIP, port)
}

// FromTombstone reads back what newTombstone wrote.
func FromTombstone(event *corev1.Event) Instance {
	return Instance{
		ID:       event.Labels[IDLabel],
		Template: TemplateOf(event),
		Created:  event.FirstTimestamp.Time,
		Status:   StatusDeleted,
		Reason:   event.Reason,
		Message:  event.Message,
		Ended:    event.LastTimestamp.Time,
	}
}

// LaunchAnnotations are written to a pod when it becomes somebody's instance: when
// it is created for a launch, or claimed from a warm pool. cullTimeout is what the
// launch asked for; 0 leaves what the template says.
func LaunchAnnotations(now time.Time, cullTimeout time.Duration) map[string]string {
	annotations := map[string]string{
		LaunchedAnnotation:       FormatTime(now),
		LastActivityAnnotation:   FormatTime(now),
		ActivitySourceAnnotation: string(SourceLaunch),
	}
	if cullTimeout != 0 {
		annotations[CullTimeoutAnnotation] = cullTimeout.String()
	}
	return annotations
}

const UserPrefix = "/user/"

// DefaultPort is where a Binder image's notebook listens, by the protocol.
const DefaultPort = 8888

// IsWarm reports whether a managed pod waits to become somebody's instance.
func IsWarm(meta metav1.Object) bool {
	l := meta.GetLabels()
	return ValidID(l[IDLabel]) && l[PoolLabel] == PoolWarm && l[PreloadLabel] == ""
}
