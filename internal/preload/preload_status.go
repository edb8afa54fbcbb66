package preload

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// PreloadStatus is how far a preload is. The protocol has the first two; failed
// is this server's addition, so that nobody waits for what will not come.
type PreloadStatus string

const (
	PreloadLoading   PreloadStatus = "loading"
	PreloadCompleted PreloadStatus = "completed"
	// PreloadFailed may yet become the others: the kubelet goes on trying.
	PreloadFailed PreloadStatus = "failed"
)

// Reasons of a preload, beside those of the kubelet and the scheduler.
const (
	ReasonTemplateChanged = "TemplateChanged"
	reasonNoNodes         = "NoNodes"
	reasonNoPod           = "NoPod"
)

// Preload is what there is to know about the pulling of a template's images. It
// is computed from its DaemonSet and that one's pods; nothing is kept.
type Preload struct {
	Template string
	Started  time.Time
	Status   PreloadStatus
	Done     int // nodes that have the images
	ToDo     int // nodes that do not
	// Reason and Message say why it is not completed, where there is more to say
	// than that images are being pulled.
	Reason  string
	Message string
}

// ComputeStatus says how far a DaemonSet is. hash is that of the template as it
// is now, "" when that cannot be told.
func ComputeStatus(set *appsv1.DaemonSet, pods []*corev1.Pod, hash string) Preload {
	nodes, ready := int(set.Status.DesiredNumberScheduled), int(set.Status.NumberReady)
	p := Preload{
		Template: instance.TemplateOf(set),
		Started:  set.CreationTimestamp.Time,
		Status:   PreloadLoading,
		Done:     ready,
		ToDo:     max(nodes-ready, 0),
	}
	switch {
	case hash != "" && set.Labels[instance.TemplateHashLabel] != hash:
		p.Done, p.ToDo = 0, nodes
		p.Reason, p.Message = ReasonTemplateChanged, "the template has changed and is not pulled anew yet; if it stays so, the server's log says why"
	case set.Status.ObservedGeneration < set.Generation:
		// Nothing has been counted yet, and 0 of 0 is not all of them.
	case nodes == 0:
		p.Reason, p.Message = reasonNoNodes, "there is no node that instances of the template may run on"
	case ready >= nodes:
		p.Status = PreloadCompleted
	default:
		p.Status, p.Reason, p.Message = preloadTrouble(pods)
		if without := nodes - int(set.Status.CurrentNumberScheduled); p.Reason == "" && without > 0 {
			p.Reason = reasonNoPod
			p.Message = fmt.Sprintf("%d of %d nodes have no pod yet; if it stays so, the events of DaemonSet %s say why", without, nodes, set.Name)
		}
	}
	return p
}

// preloadTrouble says what holds up the pods that are not ready: what has
// failed before what may only be slow, and of several nodes the first by name.
func preloadTrouble(pods []*corev1.Pod) (status PreloadStatus, reason, message string) {
	pods = slices.SortedFunc(slices.Values(pods), func(a, b *corev1.Pod) int {
		return cmp.Or(strings.Compare(a.Spec.NodeName, b.Spec.NodeName), strings.Compare(a.Name, b.Name))
	})
	status = PreloadLoading
	for _, pod := range pods {
		if pod.DeletionTimestamp != nil || instance.IsReady(pod) {
			continue
		}
		why, text, failed := podTrouble(pod)
		if failed {
			return PreloadFailed, why, text
		}
		if reason == "" {
			reason, message = why, text
		}
	}
	return status, reason, message
}

// podTrouble says what one pod is held up by; nothing while it makes progress.
func podTrouble(pod *corev1.Pod) (reason, message string, failed bool) {
	if scheduled := instance.Condition(pod, corev1.PodScheduled); scheduled != nil && scheduled.Status == corev1.ConditionFalse {
		return scheduled.Reason, instance.Clip(scheduled.Message), false // a node may yet have room
	}
	if pod.Status.Phase == corev1.PodFailed { // evicted, say; the DaemonSet replaces it
		reason, message = instance.Failure(pod)
		return reason, onNode(pod, message), false
	}
	for _, status := range instance.ContainerStatuses(pod) {
		waiting := status.State.Waiting
		if waiting == nil {
			continue
		}
		switch waiting.Reason {
		case "", "ContainerCreating", "PodInitializing":
		case "ErrImagePull": // may be a hiccup; from the second time on it is ImagePullBackOff
			return waiting.Reason, onNode(pod, waiting.Message), false
		default:
			return waiting.Reason, onNode(pod, waiting.Message), true
		}
	}
	return "", "", false
}

func onNode(pod *corev1.Pod, message string) string {
	return fmt.Sprintf("node %s: %s", pod.Spec.NodeName, instance.Clip(message))
}
