package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
)

// The state contract: every fact about an instance is one of these labels and
// annotations on its pod, or on the tombstone Event that outlives the pod.
// Labels are what is selected by; annotations hold values that no label could.
const (
	// managedByLabel is the recommended Kubernetes label; with managerName it
	// selects everything this service owns, and so is the selector of every watch.
	managedByLabel = "app.kubernetes.io/managed-by"
	managerName    = "binder-deploy-kubernetes"

	idLabel           = "binder-project.org/id"
	templateLabel     = "binder-project.org/template"
	templateHashLabel = "binder-project.org/template-hash"
	// poolLabel is poolWarm on a pod that is nobody's yet; claiming removes it.
	poolLabel = "binder-project.org/pool"
	// preloadLabel is set on a pod that only pulls an image.
	preloadLabel = "binder-project.org/preload"
	// preloadNameLabel on such a pod is the name of its DaemonSet.
	preloadNameLabel = "binder-project.org/preload-name"

	templateNameAnnotation = "binder-project.org/template-name"
	lastActivityAnnotation = "binder-project.org/last-activity"
	// activitySourceAnnotation says what the last activity was, a Source.
	activitySourceAnnotation = "binder-project.org/last-activity-source"
	cullTimeoutAnnotation    = "binder-project.org/cull-timeout"
	// launchedAnnotation is when the pod became somebody's: for a warm one, when
	// it was claimed.
	launchedAnnotation = "binder-project.org/launched"
	maxAgeAnnotation   = "binder-project.org/max-age"
	portAnnotation     = "binder-project.org/port"
	// stripPrefixAnnotation set to "true" takes /user/<id> off the path before
	// the application sees it, for one that cannot be given a base URL.
	stripPrefixAnnotation = "binder-project.org/strip-prefix"
	// idlePathsAnnotation is a regular expression of paths below the base URL: who
	// only gets these does not use the instance.
	idlePathsAnnotation = "binder-project.org/idle-paths"
	// activityProbeAnnotation is a path below the base URL at which the
	// application says whether it is at work.
	activityProbeAnnotation = "binder-project.org/activity-probe"
	// readyWhenAnnotation says what makes the pod Ready, where it is no more than
	// that its port answers: a probe of the template's own may ask for more.
	readyWhenAnnotation = "binder-project.org/ready-when"
	readyWhenListening  = "listening"
	// maxInstancesAnnotation on a PodTemplate bounds how many instances of it live at once.
	maxInstancesAnnotation = "binder-project.org/max-instances"
)

const (
	podNamePrefix       = "binder-"
	tombstoneNameSuffix = ".deleted"

	// activityFormat is RFC 3339 in UTC. Milliseconds, because timeouts are
	// given in milliseconds.
	activityFormat = "2006-01-02T15:04:05.000Z07:00"
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

var idPattern = regexp.MustCompile(`^[0-9a-f]{32}$`)

// validID reports whether s could be an instance's id: 16 bytes in hex.
func validID(s string) bool { return idPattern.MatchString(s) }

func podName(id string) string       { return podNamePrefix + id }
func tombstoneName(id string) string { return podName(id) + tombstoneNameSuffix }
func baseURL(id string) string       { return "/user/" + id + "/" }

// isInstance reports whether a managed pod is somebody's instance, and not a
// warm one or one that only pulls an image.
func isInstance(meta metav1.Object) bool {
	l := meta.GetLabels()
	return validID(l[idLabel]) && l[poolLabel] == "" && l[preloadLabel] == ""
}

// templateOf returns the full name of the template an object was made from.
func templateOf(meta metav1.Object) string {
	return cmp.Or(meta.GetAnnotations()[templateNameAnnotation], meta.GetLabels()[templateLabel])
}

// templateLabelValue makes a valid label value of any template name. A name
// that is none itself (too long, or from a registry with other rules) is
// shortened and told apart by a hash; the full name is in the annotation.
func templateLabelValue(name string) string {
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

// selector selects everything this service manages.
func selector() labels.Selector {
	return labels.SelectorFromSet(labels.Set{managedByLabel: managerName})
}

// lastActivity reads when an instance was last used. An annotation that is
// missing or unreadable is an error, and its meaning is the caller's to
// choose: it is never taken for "long ago".
func lastActivity(pod *corev1.Pod) (time.Time, error) {
	value, ok := pod.Annotations[lastActivityAnnotation]
	if !ok {
		return time.Time{}, fmt.Errorf("annotation %s is missing", lastActivityAnnotation)
	}
	t, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return time.Time{}, fmt.Errorf("annotation %s: %q is not an RFC 3339 time", lastActivityAnnotation, value)
	}
	return t, nil
}

func formatActivity(t time.Time) string { return t.UTC().Format(activityFormat) }

// cullTimeout reads how long an instance may be idle; absent, unreadable or
// not positive means the server's default.
func cullTimeout(pod *corev1.Pod, byDefault time.Duration) time.Duration {
	d, err := time.ParseDuration(pod.Annotations[cullTimeoutAnnotation])
	if err != nil || d <= 0 {
		return byDefault
	}
	return d
}

// instanceFromPod is the read side of the state contract. now and startTimeout
// decide whether a launch has taken too long.
func instanceFromPod(pod *corev1.Pod, now time.Time, startTimeout time.Duration) Instance {
	inst := Instance{
		ID:          pod.Labels[idLabel],
		Template:    templateOf(pod),
		Created:     pod.CreationTimestamp.Time,
		StripPrefix: pod.Annotations[stripPrefixAnnotation] == "true",
		IdlePaths:   pod.Annotations[idlePathsAnnotation],
	}
	inst.Status, inst.Reason, inst.Message = deriveStatus(pod, now, startTimeout)
	if inst.Status == StatusDeployed {
		inst.Address = podAddress(pod)
	}
	return inst
}

// podAddress is where the application of a pod with an IP listens, or will.
func podAddress(pod *corev1.Pod) string {
	port := cmp.Or(pod.Annotations[portAnnotation], strconv.Itoa(defaultPort))
	return net.JoinHostPort(pod.Status.PodIP, port)
}

// instanceFromTombstone reads back what newTombstone wrote.
func instanceFromTombstone(event *corev1.Event) Instance {
	return Instance{
		ID:       event.Labels[idLabel],
		Template: templateOf(event),
		Created:  event.FirstTimestamp.Time,
		Status:   StatusDeleted,
		Reason:   event.Reason,
		Message:  event.Message,
		Ended:    event.LastTimestamp.Time,
	}
}
