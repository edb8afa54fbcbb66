package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/metrics"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"

	"github.com/binder-project/binder-deploy-kubernetes/internal/tombstone"
)

const (
	// failedRetention keeps a failed instance for a while, so that a client
	// that polls learns that it failed, and an operator can read its log.
	failedRetention = time.Minute
	// clockSkew is how far ahead another replica's clock may be. An activity
	// further in the future is an error, and would keep an instance for ever.
	clockSkew = time.Minute
	// goneQueue bounds the deletions by others that wait to be remembered.
	goneQueue = 1024
)

// action is what is to be done with an instance.
type action int

const (
	keep   action = iota
	end           // delete it
	repair        // write a time anew: what is there cannot be right
)

// verdict is what judge decides: the action, and for an end its reason and a
// sentence for people.
type verdict struct {
	action  action
	reason  instance.EndReason
	message string
}

// cullPolicy is what judge goes by.
type cullPolicy struct {
	cullTimeout  time.Duration // of instances that have none of their own
	startTimeout time.Duration
	maxAge       time.Duration // of all instances; 0 is none
	// since is when this replica began to cull, or its clock was set; outage, when
	// it was last cut off from the API server; calm, how long ago that ended. Just
	// after any of them, what other replicas know of, or the kubelet does, may not
	// have been written: it lets everybody write once before it deletes anything
	// that may be of use.
	since  time.Time
	outage outage
	calm   time.Duration
}

// unsettled reports whether annotations may be further behind than by the lag, which
// is all that is allowed for otherwise.
func (p cullPolicy) unsettled(now time.Time, lag time.Duration) bool {
	return now.Sub(p.since) < lag || p.outage != outage{} && p.calm < p.outage.wait(lag)
}

// judge decides what becomes of an instance. It never takes what it cannot
// read for idleness, and finds an end for everything.
func judge(pod *corev1.Pod, now time.Time, policy cullPolicy) verdict {
	if pod.DeletionTimestamp != nil {
		return verdict{}
	}
	v := judgeSettled(pod, now, policy)
	over := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed // whatever is not yet written
	if v.action == end && !over && policy.unsettled(now, flushLag(instance.CullTimeout(pod, policy.cullTimeout))) {
		return verdict{}
	}
	return v
}

// judgeSettled judges by what the pod says, taken for all there is to know.
func judgeSettled(pod *corev1.Pod, now time.Time, policy cullPolicy) verdict {
	switch pod.Status.Phase {
	case corev1.PodSucceeded:
		return verdict{end, instance.EndGone, "the application ended by itself"}
	case corev1.PodFailed:
		return judgeFailed(pod, now, failedAt(pod), policy)
	}
	if failed := instance.ReadyChangedAt(pod).Add(policy.startTimeout); !instance.IsReady(pod) && !now.Before(failed) {
		return judgeFailed(pod, now, failed, policy)
	}
	return judgeUse(pod, now, policy)
}

// judgeUse ends what nobody has used for its cull timeout, and what is older
// than its max age. A time that cannot be right counts as now, and is to be
// written anew.
func judgeUse(pod *corev1.Pod, now time.Time, policy cullPolicy) verdict {
	last, err := lastUse(pod, now)
	if err != nil {
		last = now
	}
	at, reason := dueEnd(pod, last, now, policy)
	if now.Before(at) {
		if _, problem := mend(pod, now, policy); problem != nil {
			return verdict{repair, "", problem.Error()}
		}
		return verdict{}
	}
	if reason == instance.EndExpired {
		age := maxAge(pod, policy.maxAge)
		return verdict{end, reason, fmt.Sprintf("launched %s ago; its max age is %s", (now.Sub(at) + age).Round(time.Second), age)}
	}
	idle := now.Sub(idleSince(pod, last, policy)).Round(time.Second)
	return verdict{end, reason, fmt.Sprintf("not used for %s; its cull timeout is %s", idle, instance.CullTimeout(pod, policy.cullTimeout))}
}

// judgeFailed ends what has been failed for long enough to be noticed.
func judgeFailed(pod *corev1.Pod, now, failed time.Time, policy cullPolicy) verdict {
	if now.Sub(failed) < failedRetention {
		return verdict{}
	}
	// By now its status is failed, with the reason that clients were told.
	_, reason, message := instance.DeriveStatus(pod, now, policy.startTimeout)
	return verdict{end, instance.EndFailed, fmt.Sprintf("%s: %s", reason, message)}
}

// failedAt is when a pod came to be in phase Failed.
func failedAt(pod *corev1.Pod) time.Time {
	at := instance.ReadyChangedAt(pod)
	if ended := instance.EndedAt(pod); ended.After(at) {
		at = ended
	}
	return at
}

// usableSince is when somebody could first have used the instance: the time it
// takes to start is nobody's idleness, up to the start timeout. Beyond that it
// does not count, or a container that restarts for ever would never be idle.
func usableSince(pod *corev1.Pod, startTimeout time.Duration) time.Time {
	latest := pod.CreationTimestamp.Add(startTimeout)
	if instance.IsReady(pod) {
		if ready := instance.ReadyChangedAt(pod); ready.Before(latest) { // for a Ready pod: since when it is
			return ready
		}
	}
	return latest
}

// Culler ends instances that are over: idle, failed, completed, or never
// started. It runs on the elected leader.
type Culler struct {
	pods     typedcorev1.PodInterface
	cluster  *Cluster
	remover  *tombstone.Remover
	activity *Activity  // of this replica
	policy   cullPolicy // without what is Run's: since, outage, calm
	interval time.Duration
	metrics  *metrics.Metrics
	log      *slog.Logger
	now      func() time.Time

	contact contact // see contact.go: whoever stands for election notes it
	leading atomic.Bool
	gone    chan *corev1.Pod // deleted by others; noticed only while leading
}

// NewCuller makes a culler that looks at every instance once an interval.
func NewCuller(pods typedcorev1.PodInterface, cluster *Cluster, remover *tombstone.Remover, activity *Activity, policy cullPolicy, interval time.Duration,
	metrics *metrics.Metrics, log *slog.Logger, now func() time.Time) (*Culler, error) {
	c := &Culler{
		pods: pods, cluster: cluster, remover: remover, activity: activity, policy: policy, interval: interval,
		metrics: metrics, log: log, now: now, gone: make(chan *corev1.Pod, goneQueue),
	}
	return c, cluster.OnPod(func(*corev1.Pod) {}, c.noticeGone)
}

// Run culls until ctx is done: for one term of leading. When it begins, when the
// API server was away, and when its clock was set, it lets everybody write once
// before it deletes.
func (c *Culler) Run(ctx context.Context) {
	policy := c.policy
	looked := clocks{c.now(), time.Now()}
	policy.since = looked.wall
	c.contact.forget()
	var remembering sync.WaitGroup
	defer remembering.Wait()
	remembering.Go(func() { c.rememberGone(ctx) }) // not held up by a long sweep
	c.leading.Store(true)
	defer c.leading.Store(false)
	ticker := time.NewTicker(c.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			now := clocks{c.now(), time.Now()}
			if clockJumped(looked, now) {
				c.log.WarnContext(ctx, "the clock has jumped, nothing is culled until all activity can have been written",
					"from", looked.wall, "to", now.wall)
				policy.since = now.wall
			}
			last := c.contact.lastOutage(now.monotonic)
			if last.from != policy.outage.from {
				c.log.WarnContext(ctx, "the API server was away, nothing is culled until all activity can have been written")
			}
			policy.outage, policy.calm = last, now.monotonic.Sub(last.until)
			looked = now
			c.sweep(ctx, now.wall, policy)
		}
	}
}

// sweep looks at every instance once and does what judge says.
func (c *Culler) sweep(ctx context.Context, now time.Time, policy cullPolicy) {
	type sentence struct {
		pod *corev1.Pod
		verdict
	}
	var sentences []sentence
	for _, pod := range c.cluster.InstancePods() {
		if v := judge(pod, now, policy); v.action != keep {
			sentences = append(sentences, sentence{pod, v})
		}
	}
	forEach(sentences, kube.Writers, func(s sentence) {
		if c.outdated(ctx, policy) {
			return
		}
		if s.action == repair {
			c.repair(ctx, s.pod, policy)
			return
		}
		c.end(ctx, s.pod, s.verdict, policy)
	})
}

// outdated reports whether what was judged by a policy is no longer ours to do,
// or was judged before an outage.
func (c *Culler) outdated(ctx context.Context, policy cullPolicy) bool {
	return ctx.Err() != nil || c.contact.lastOutage(time.Now()) != policy.outage
}

// end deletes an instance if nobody has used it since it was judged.
func (c *Culler) end(ctx context.Context, pod *corev1.Pod, v verdict, policy cullPolicy) {
	if v.reason == instance.EndCulled && (c.usedHere(pod) || c.reprieve(ctx, pod) || c.outdated(ctx, policy)) {
		return
	}
	log := c.log.With("id", pod.Labels[instance.IDLabel], "template", instance.TemplateOf(pod), "reason", v.reason)
	switch err := c.remover.Remove(ctx, pod, v.reason, v.message, true); {
	case err == nil:
		c.metrics.Ended(string(v.reason))
		log.InfoContext(ctx, "culled", "message", v.message)
	case apierrors.IsConflict(err):
		log.DebugContext(ctx, "not culled: it has changed since it was looked at")
	case apierrors.IsNotFound(err):
		log.DebugContext(ctx, "not culled: it was gone already")
	default:
		c.metrics.CullFailed()
		log.ErrorContext(ctx, "not culled, will be tried again", "error", err)
	}
}

// usedHere reports whether an instance was used through this replica within its
// cull timeout, which may be about to be written. An older use is not: it is one of
// less than a period after what is written, and the lag has allowed for it.
func (c *Culler) usedHere(pod *corev1.Pod) bool {
	used := c.activity.heldBack(pod.Labels[instance.IDLabel])
	return c.now().Sub(used) < instance.CullTimeout(pod, c.policy.cullTimeout)
}

// noticeGone takes note of a pod whose deletion nobody has remembered: kubectl,
// an eviction, a node that went away. Only the leader does, and never blocks.
func (c *Culler) noticeGone(pod *corev1.Pod) {
	if _, remembered := c.cluster.Tombstone(pod.Labels[instance.IDLabel]); remembered || !c.leading.Load() {
		return
	}
	select {
	case c.gone <- pod:
	default:
		c.log.Warn("too many instances deleted at once, one will not be remembered", "id", pod.Labels[instance.IDLabel], "template", instance.TemplateOf(pod))
	}
}

// rememberGone writes the tombstones of what others have deleted, until ctx is done.
func (c *Culler) rememberGone(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case pod := <-c.gone:
			if err := c.remover.Remember(ctx, pod, "the pod was deleted from outside this service"); err != nil {
				c.log.ErrorContext(ctx, "deleted instance not remembered", "id", pod.Labels[instance.IDLabel], "template", instance.TemplateOf(pod), "error", err)
			}
		}
	}
}
