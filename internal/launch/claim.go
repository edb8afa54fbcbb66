package launch

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podtemplate"
)

// The results of a claim, as a label of a metric.
const (
	resultWarm     = "warm"      // a pod was claimed
	resultLostRace = "lost_race" // a pod had changed, or was claimed by another replica; the next one was tried
	resultEmpty    = "empty"     // no pod could be claimed, and a new one was created
)

// ClaimResults are the results of a claim, as a label of a metric.
func ClaimResults() []string { return []string{resultWarm, resultLostRace, resultEmpty} }

// claimOutcome says what came of a launch's attempt to claim a warm pod.
type claimOutcome int

const (
	claimFailed  claimOutcome = iota // with an error: the launch fails as well
	claimed                          // the launch has a pod
	noPool                           // the template keeps no warm pods
	poolEmpty                        // no pod is left that can be claimed
	claimRefused                     // the API server refuses the claim, and may allow a new pod
)

// tryClaim is claim for a launch that has a place: a warm pod is not to wait in vain.
func (l *Launcher) tryClaim(ctx context.Context, launch *admitted) (id string, outcome claimOutcome, err error) {
	if launch.place.Full {
		return "", noPool, nil
	}
	return l.claim(ctx, launch)
}

// claim makes a warm pod of the template an instance, and returns its id. It never
// waits for a pod.
//
// No pod is claimed twice. Launches of this replica reserve the pods that they try.
// Between replicas, the API server accepts a claim only of the version of the pod that
// was read.
func (l *Launcher) claim(ctx context.Context, launch *admitted) (id string, outcome claimOutcome, err error) {
	template := launch.template
	if size, err := podtemplate.PoolSize(template); size.Most == 0 || err != nil {
		return "", noPool, nil // an Event on the template reports an invalid size
	}
	warm := l.deps.Cache.WarmPods(template.Name)
	for _, pod := range claimable(warm, l.deps.Cache.Warnings, podtemplate.Hash(template), l.deps.Now(), l.deps.StartTimeout) {
		if launch.claimedFor != "" && l.deps.Now().After(launch.claimUntil) {
			break
		}
		if _, reserved := l.claiming.LoadOrStore(pod.Name, true); reserved {
			continue
		}
		defer l.claiming.Delete(pod.Name) // by then the read model has the claimed pod
		id := pod.Labels[instance.IDLabel]
		began := l.deps.Now()
		switch err := l.claimPod(ctx, pod, launch); {
		case err == nil:
			l.deps.Metrics.ClaimTook(l.deps.Now().Sub(began))
			l.deps.Metrics.Claimed(template.Name, resultWarm)
			return id, claimed, nil
		case apierrors.IsConflict(err), apierrors.IsNotFound(err):
			l.deps.Metrics.Claimed(template.Name, resultLostRace)
		case kube.IsRefused(err):
			// The claim of any other pod would be refused as well.
			l.deps.Metrics.Claimed(template.Name, resultEmpty)
			l.deps.Log.WarnContext(ctx, "claim of a warm pod refused, creating a new pod", "pod", pod.Name, "template", template.Name, "error", err)
			return "", claimRefused, nil
		default:
			return "", claimFailed, err
		}
	}
	l.deps.Metrics.Claimed(template.Name, resultEmpty)
	return "", poolEmpty, nil
}

// claimPod takes a pod out of its pool and makes it an instance, in one write.
func (l *Launcher) claimPod(ctx context.Context, pod *corev1.Pod, launch *admitted) error {
	ctx, cancel := context.WithTimeout(ctx, kube.CreateTimeout)
	defer cancel()
	now, spec := l.deps.Now(), map[string]any{}
	if deadline := instance.Deadline(pod, now.Sub(pod.CreationTimestamp.Time), l.deps.MaxAge(pod)); deadline != nil && !launch.place.Queued {
		spec["activeDeadlineSeconds"] = *deadline
	}
	annotations := instance.LaunchAnnotations(now, launch.CullTimeout)
	if before := instance.RestartsBefore(pod); before != "" {
		annotations[instance.RestartsBeforeAnnotation] = before
	}
	if launch.claimedFor != "" {
		annotations[instance.ClaimedForAnnotation] = launch.claimedFor
	}
	labels := map[string]any{instance.PoolLabel: nil}
	for key, value := range instance.LaunchLabels(launch.Client) {
		labels[key] = value
	}
	if launch.place.Queued {
		labels[instance.QueueLabel] = instance.QueueWaiting
		maps.Copy(annotations, instance.QueueAnnotations(launch.most))
	}
	launch.place.Expect(pod.Labels[instance.IDLabel])
	claimed, err := kube.PatchPod(ctx, l.deps.Pods, pod, map[string]any{"labels": labels, "annotations": annotations}, spec)
	if err != nil {
		return fmt.Errorf("claim pod %s: %w", pod.Name, err)
	}
	l.deps.Cache.Wrote(claimed)
	return nil
}

// claimable returns the warm pods that may be claimed, the best first: pods that
// serve, then pods that are starting, which are still ahead of a new one. Otherwise
// the order is random, so that replicas seldom try the same pod.
func claimable(warm []*corev1.Pod, warnings func(*corev1.Pod) []*corev1.Event, hash string, now time.Time, startTimeout time.Duration) []*corev1.Pod {
	var serving, starting []*corev1.Pod
	for _, pod := range warm {
		switch {
		case pod.Labels[instance.TemplateHashLabel] != hash: // of an earlier version of the template
		case instance.IsServing(pod):
			serving = append(serving, pod)
		case isPromising(pod, warnings(pod), now, startTimeout):
			starting = append(starting, pod)
		}
	}
	for _, pods := range [][]*corev1.Pod{serving, starting} {
		rand.Shuffle(len(pods), func(i, j int) { pods[i], pods[j] = pods[j], pods[i] })
	}
	return append(serving, starting...)
}

// isPromising reports whether a pod that does not serve yet is at least as good as a
// new one: nothing has gone wrong, the scheduler does not lack a node for it, and at
// least half of its start timeout is left.
func isPromising(pod *corev1.Pod, warnings []*corev1.Event, now time.Time, startTimeout time.Duration) bool {
	if now.Sub(pod.CreationTimestamp.Time) > startTimeout/2 || instance.Restarts(pod) > 0 {
		return false
	}
	inst := instance.FromPod(pod, warnings, now, startTimeout)
	return inst.Alive() && inst.Fault == ""
}
