package instance

import (
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// FormatTime returns a time as it is written to annotations and sent to clients: RFC
// 3339 in UTC, with milliseconds: the unit of cull timeouts in requests.
func FormatTime(t time.Time) string {
	t = t.UTC()
	// Package time writes only times without milliseconds fast, and lists have thousands.
	text := t.AppendFormat(make([]byte, 0, len("2006-01-02T15:04:05.000Z")), time.RFC3339)
	millis := t.Nanosecond() / int(time.Millisecond)
	text = append(text[:len(text)-len("Z")], '.', byte('0'+millis/100), byte('0'+millis/10%10), byte('0'+millis%10), 'Z')
	return string(text)
}

// LaunchAnnotations returns the annotations that make a pod an instance: when it is
// created for a launch, or claimed from the pool. cullTimeout is what the launch asked
// for; 0 leaves the template's.
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

// LaunchLabels returns the labels that a launch adds to the pod. client is the hash of the
// client's address, or "" for a launch that no client's limits count.
func LaunchLabels(client string) map[string]string {
	if client == "" {
		return nil
	}
	return map[string]string{ClientLabel: client}
}

// TombstoneLabels returns the labels of the tombstone of a pod's instance: those by which
// pods and tombstones are selected and indexed alike.
func TombstoneLabels(pod *corev1.Pod) map[string]string {
	labels := map[string]string{ManagedByLabel: ManagerName}
	for _, key := range []string{IDLabel, TemplateLabel, TemplateHashLabel} {
		labels[key] = pod.Labels[key]
	}
	maps.Copy(labels, LaunchLabels(pod.Labels[ClientLabel]))
	return labels
}

// LaunchedAt returns when a pod became an instance. If the annotation is missing or
// unreadable, that is when the pod was created.
func LaunchedAt(pod *corev1.Pod) time.Time { return launchedAt(pod, pod.CreationTimestamp.Time) }

// launchedAt returns when a pod, or the pod of a tombstone, became an instance. If the
// annotation is missing or unreadable, that is when the pod was created.
func launchedAt(meta metav1.Object, created time.Time) time.Time {
	if at, err := time.Parse(time.RFC3339, meta.GetAnnotations()[LaunchedAnnotation]); err == nil {
		return at
	}
	return created
}

// LastActivity returns when an instance was last used. A missing or unreadable
// annotation is an error, and never means "long ago". The time can be in the future:
// package lifetime checks that.
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
