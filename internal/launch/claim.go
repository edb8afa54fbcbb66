package launch

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"

	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// ClaimResult is what came of asking a pool for a pod; a label of a metric.
type ClaimResult string

const (
	ClaimWarm     ClaimResult = "warm"      // a pod was claimed
	ClaimLostRace ClaimResult = "lost_race" // a pod had changed, or was another's; the next was tried
	ClaimEmpty    ClaimResult = "empty"     // there was none, and a new one was created
)

// claim makes a warm pod of the template an instance, and returns its id; ""
// when there is none to be had. It waits for none. Two claims never get one pod:
// each is a patch of the very version that was read.
func (l *Launcher) claim(ctx context.Context, template *corev1.PodTemplate, timeout time.Duration) (id string, err error) {
	size, err := podtemplate.PoolSize(template)
	if size == 0 || err != nil {
		return "", nil // a bad size is the pool's to complain about
	}
	var reserved []string
	defer func() { l.Claiming.Release(reserved) }() // by then the watch has brought what became of them
	for _, pod := range Claimable(l.Instances.WarmPods(template.Name), podtemplate.Hash(template), l.now(), l.startTimeout) {
		if !l.Claiming.Reserve(pod.Name) {
			continue
		}
		reserved = append(reserved, pod.Name)
		switch err := l.claimPod(ctx, pod, timeout); {
		case err == nil:
			id := pod.Labels[instance.IDLabel]
			l.Metrics.Claimed(string(ClaimWarm))
			l.log.InfoContext(ctx, "launched", "id", id, "template", template.Name, "warm", true)
			l.awaitKnown(ctx, id, kube.OwnWriteWait)
			return id, nil
		case apierrors.IsConflict(err), apierrors.IsNotFound(err):
			l.Metrics.Claimed(string(ClaimLostRace))
		case apierrors.IsForbidden(err), apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
			// The next would be refused as well; a new pod may not be.
			l.log.WarnContext(ctx, "warm pod not claimed, a new one is created", "id", pod.Labels[instance.IDLabel], "template", template.Name, "error", err)
			l.Metrics.Claimed(string(ClaimEmpty))
			return "", nil
		default:
			return "", err
		}
	}
	l.Metrics.Claimed(string(ClaimEmpty))
	return "", nil
}

// claimPod writes once: the pod is in the pool no longer, and is in use as of now.
func (l *Launcher) claimPod(ctx context.Context, pod *corev1.Pod, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, kube.CreateTimeout)
	defer cancel()

	began := l.now()
	annotations := instance.LaunchAnnotations(began, timeout)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"resourceVersion": pod.ResourceVersion,
		"labels":          map[string]any{instance.PoolLabel: nil},
		"annotations":     annotations,
	}})
	if err != nil {
		return fmt.Errorf("encode the claim of pod %s: %w", pod.Name, err)
	}
	_, err = l.Pods.Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: instance.ManagerName})
	if err != nil {
		return fmt.Errorf("claim pod %s: %w", pod.Name, err)
	}
	// Only now is the launch this replica's: the watch may have brought another's
	// claim of the pod, which is not to be measured here. It may have brought this
	// one, too.
	l.begin(pod, began)
	if claimed, ok := l.Instances.Pod(pod.Labels[instance.IDLabel]); ok {
		l.observe(claimed)
	}
	return nil
}

// Claimable returns the warm pods that may be claimed, best first: those that
// serve, then those that are starting, which still are ahead of a new one.
// Otherwise they are in no order, so that replicas seldom try the same one.
func Claimable(warm []*corev1.Pod, hash string, now time.Time, startTimeout time.Duration) []*corev1.Pod {
	var serving, starting []*corev1.Pod
	for _, pod := range warm {
		switch {
		case pod.Labels[instance.TemplateHashLabel] != hash:
		case instance.IsServing(pod):
			serving = append(serving, pod)
		case isPromising(pod, now, startTimeout):
			starting = append(starting, pod)
		}
	}
	for _, pods := range [][]*corev1.Pod{serving, starting} {
		rand.Shuffle(len(pods), func(i, j int) { pods[i], pods[j] = pods[j], pods[i] })
	}
	return append(serving, starting...)
}

// Reservations keep the launches of one replica from racing each other for a
// pod. The zero value is ready to use.
type Reservations struct {
	mu    sync.Mutex
	Names map[string]bool
}

// Reserve reports whether the name was free; from now on it is not.
func (r *Reservations) Reserve(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Names[name] {
		return false
	}
	if r.Names == nil {
		r.Names = map[string]bool{}
	}
	r.Names[name] = true
	return true
}

func (r *Reservations) Release(names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range names {
		delete(r.Names, name)
	}
}

// isPromising reports whether a pod that does not serve yet is at least as good
// as a new one: on its way for not too long, and nothing has gone wrong so far.
// It may have used up half of its start timeout, so that enough is left of it.
func isPromising(pod *corev1.Pod, now time.Time, startTimeout time.Duration) bool {
	if pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
		return false
	}
	if now.Sub(pod.CreationTimestamp.Time) > startTimeout/2 || instance.Restarts(pod) > 0 {
		return false
	}
	if scheduled := instance.Condition(pod, corev1.PodScheduled); scheduled != nil && scheduled.Status != corev1.ConditionTrue {
		return false
	}
	for _, status := range instance.ContainerStatuses(pod) {
		if waiting := status.State.Waiting; waiting != nil {
			switch waiting.Reason {
			case "", "ContainerCreating", "PodInitializing":
			default:
				return false
			}
		}
	}
	return true
}
