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

// Status is the state of a preload. The Binder deploy protocol has loading and
// completed; failed is this service's addition, so that no client waits in vain.
type Status string

const (
	Loading   Status = "loading"
	Completed Status = "completed"
	// Failed is not final: the kubelet keeps trying.
	Failed Status = "failed"
)

// Reasons why a preload is not completed. Other reasons are those of the kubelet and
// the scheduler.
const (
	reasonTemplateChanged = "TemplateChanged"
	reasonNoNodes         = "NoNodes"
	reasonNoPod           = "NoPod"
)

// Progress is how far the preload of a template is. It is computed from its
// DaemonSet and that DaemonSet's pods; it is not stored anywhere.
type Progress struct {
	Template string
	Started  time.Time
	Status   Status
	Done     int // nodes that have the images
	ToDo     int // nodes that do not
	// Reason and Message say what delays the preload. They are empty while images are
	// simply being pulled.
	Reason  string
	Message string
}

// progressOf computes how far a DaemonSet is. hash is that of the template's current
// version, or "" if that is not known.
func progressOf(set *appsv1.DaemonSet, pods []*corev1.Pod, warnings func(*corev1.Pod) []*corev1.Event, hash string) Progress {
	nodes, ready := int(set.Status.DesiredNumberScheduled), int(set.Status.NumberReady)
	p := Progress{
		Template: instance.TemplateOf(set),
		Started:  set.CreationTimestamp.Time,
		Status:   Loading,
		Done:     ready,
		ToDo:     max(nodes-ready, 0),
	}
	switch {
	case hash != "" && set.Labels[instance.TemplateHashLabel] != hash:
		p.Done, p.ToDo = 0, nodes
		p.Reason, p.Message = reasonTemplateChanged, "the template has changed and its new images are not being pulled yet; if this lasts, the server's log says why"
	case set.Status.ObservedGeneration < set.Generation:
		// Kubernetes has not counted yet: 0 of 0 nodes does not mean completed.
	case nodes == 0:
		p.Reason, p.Message = reasonNoNodes, "there is no node that instances of the template may run on"
	case ready >= nodes:
		p.Status = Completed
	default:
		p.Status, p.Reason, p.Message = trouble(pods, warnings)
		if without := nodes - int(set.Status.CurrentNumberScheduled); p.Reason == "" && without > 0 {
			p.Reason = reasonNoPod
			p.Message = fmt.Sprintf("%d of %d nodes have no pod yet; if this lasts, the events of DaemonSet %s say why", without, nodes, set.Name)
		}
	}
	return p
}

// trouble says what delays the pods that are not ready. A failure comes before what
// may only be slow, and the first node by name before others.
func trouble(pods []*corev1.Pod, warnings func(*corev1.Pod) []*corev1.Event) (status Status, reason, message string) {
	pods = slices.SortedFunc(slices.Values(pods), func(a, b *corev1.Pod) int {
		return cmp.Or(strings.Compare(a.Spec.NodeName, b.Spec.NodeName), strings.Compare(a.Name, b.Name))
	})
	status = Loading
	for _, pod := range pods {
		if pod.DeletionTimestamp != nil || instance.IsReady(pod) {
			continue
		}
		why, text, failed := podTrouble(pod, warnings(pod))
		if failed {
			return Failed, why, text
		}
		if reason == "" {
			reason, message = why, text
		}
	}
	return status, reason, message
}

// podTrouble says what delays one pod. It returns empty texts while the pod makes
// progress.
func podTrouble(pod *corev1.Pod, warnings []*corev1.Event) (reason, message string, failed bool) {
	if scheduled := instance.Condition(pod, corev1.PodScheduled); scheduled != nil && scheduled.Status == corev1.ConditionFalse {
		return scheduled.Reason, instance.Clip(scheduled.Message), false // a node may have room later
	}
	if pod.Status.Phase == corev1.PodFailed { // for example evicted; the DaemonSet replaces it
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
		case "ErrImagePull", "ImagePullBackOff": // they alternate
			why, text, lasting := instance.PullFailure(pod, &status, warnings)
			return why, onNode(pod, text), lasting
		default:
			return waiting.Reason, onNode(pod, waiting.Message), true
		}
	}
	return "", "", false
}

func onNode(pod *corev1.Pod, message string) string {
	return fmt.Sprintf("node %s: %s", pod.Spec.NodeName, instance.Clip(message))
}
