package main

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/workqueue"

	"github.com/binder-project/binder-deploy-kubernetes/internal/activity"
	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
	"github.com/binder-project/binder-deploy-kubernetes/internal/lifetime"
	"github.com/binder-project/binder-deploy-kubernetes/internal/podstore"
	"github.com/binder-project/binder-deploy-kubernetes/internal/tombstone"
)

const (
	// maxUnremembered bounds the deletions by others that wait to be remembered.
	maxUnremembered = 1024
	// rememberPeriod is how often the leader looks for pods whose deletion others have asked for.
	rememberPeriod = 2 * time.Second
)

// CullerMetrics counts what a Culler does.
type CullerMetrics interface {
	Ended(template, reason string, lived time.Duration)
	Failed(template, reason string)
	CullFailed()
	Swept(at time.Time)
	Probed(result string)
	WrongTimeFixed()
}

// CullerDeps are what a Culler needs.
type CullerDeps struct {
	Pods     kube.PodPatcher
	Cache    *Cache
	Remover  *tombstone.Remover
	Rules    lifetime.Rules
	Hold     *lifetime.Hold
	Brake    lifetime.Brake
	Interval time.Duration // between two sweeps
	// ReplicaClocks is Replicas.Clocks of package replicas. By the slowest of them, instances are
	// idle: a use after that may not be written yet.
	ReplicaClocks func(own time.Time) (slowest, fastest time.Time)
	Metrics       CullerMetrics
	Log           *slog.Logger
	Now           func() time.Time
}

// Culler ends instances: those that are idle, too old, failed, completed, or never
// started. It runs on the elected leader. What is to be done with an instance is
// decided by lifetime.Rules; the Culler carries it out.
type Culler struct {
	deps    CullerDeps
	leading atomic.Bool
	gone    chan *corev1.Pod // deleted by others, noticed while leading
	prober  *activity.Prober
	braked  atomic.Int64 // failed instances that the last sweep kept, see lifetime.Brake
}

// NewCuller returns a Culler that looks at every instance once an interval.
func NewCuller(deps CullerDeps) (*Culler, error) {
	c := &Culler{deps: deps, gone: make(chan *corev1.Pod, maxUnremembered)}
	c.prober = activity.NewProber(activity.ProberDeps{
		Pods: deps.Pods, Wrote: deps.Cache.Wrote, Rules: deps.Rules, Probed: deps.Metrics.Probed, Log: deps.Log, Now: deps.Now,
	})
	return c, deps.Cache.OnInstance(func(string) {}, c.noticeGone)
}

// Run culls until ctx is done: for one term of leading.
func (c *Culler) Run(ctx context.Context) {
	c.deps.Hold.StartTerm(c.clocks())
	var remembering sync.WaitGroup
	defer remembering.Wait()
	for range kube.Writers { // apart from the sweeps, which can take long
		remembering.Go(func() { c.rememberGone(ctx) })
	}
	remembering.Go(func() { c.rememberDeleting(ctx) })
	defer c.prober.Wait()
	c.leading.Store(true)
	defer c.leading.Store(false)
	defer c.braked.Store(0)
	ticker := time.NewTicker(c.deps.Interval)
	defer ticker.Stop()
	held := c.checkHold(ctx, "")
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			held = c.checkHold(ctx, held)
			c.sweep(ctx, c.deps.Now())
			c.deps.Metrics.Swept(c.deps.Now())
		}
	}
}

// clocks reads both clocks.
func (c *Culler) clocks() lifetime.Clocks {
	return lifetime.Clocks{Wall: c.deps.Now(), Monotonic: time.Now()}
}

// checkHold compares the clocks, and logs when a hold of deletes begins or ends. held
// is the cause of the hold at the last check.
func (c *Culler) checkHold(ctx context.Context, held lifetime.Cause) lifetime.Cause {
	c.deps.Hold.Look(c.clocks())
	_, cause := c.deps.Hold.State(time.Now())
	switch {
	case cause == held:
	case cause == "":
		c.deps.Log.InfoContext(ctx, "deletes are no longer held back")
	default:
		level := slog.LevelWarn
		if cause == lifetime.CauseTermStarted { // as at every start
			level = slog.LevelInfo
		}
		c.deps.Log.Log(ctx, level, "deletes are held back until all replicas can have written their activity", "cause", cause)
	}
	return cause
}

// Holding returns why this replica holds deletes back, or "" if it does not, or does not lead.
func (c *Culler) Holding() lifetime.Cause {
	_, cause := c.deps.Hold.State(time.Now())
	if !c.leading.Load() {
		return ""
	}
	return cause
}

// held reports whether the delete of a pod is held back.
func (c *Culler) held(pod *corev1.Pod) bool {
	return c.deps.Hold.Covers(c.deps.Rules.LagOf(pod), time.Now())
}

// judge judges an instance by this replica's clock. Whether it is idle, it judges by the slowest
// of the replicas' clocks as well: a use after that may not be written yet.
func (c *Culler) judge(pod *corev1.Pod, now time.Time) lifetime.Verdict {
	warnings, held := c.deps.Cache.Warnings(pod), c.held(pod)
	v := c.deps.Rules.Judge(pod, warnings, now, held)
	if slowest, _ := c.deps.ReplicaClocks(now); (v.Reason == instance.EndCulled || v.Reason == instance.EndAbandoned) && slowest.Before(now) {
		return c.deps.Rules.Judge(pod, warnings, slowest, held)
	}
	return v
}

// judged is a pod and what is to be done with it.
type judged struct {
	pod     *corev1.Pod
	verdict lifetime.Verdict
}

// sweep looks at every instance once and does what its verdict says. It does not wait for
// applications that it has to ask first: these are ended once they have answered.
func (c *Culler) sweep(ctx context.Context, now time.Time) {
	work := c.judgeAll(ctx, now)
	workqueue.ParallelizeUntil(ctx, kube.Writers, len(work), func(i int) {
		pod, verdict := work[i].pod, work[i].verdict
		switch {
		case verdict.Action == lifetime.Fix:
			c.fixWrongTimes(ctx, pod)
		case verdict.Reason == instance.EndCulled && activity.HasProbe(pod):
			c.prober.Go(ctx, pod, func() {
				if c.shouldEnd(ctx, pod) && !c.prober.AtWork(ctx, pod) {
					c.end(ctx, pod, verdict)
				}
			})
		default:
			c.end(ctx, pod, verdict)
		}
	})
}

// judgeAll returns the pods that something is to be done with. Of those that have failed, it
// leaves out as many as the brake says.
func (c *Culler) judgeAll(ctx context.Context, now time.Time) (work []judged) {
	var failed []judged
	living := 0
	for _, record := range c.deps.Cache.recordsOfTemplate("") {
		if !record.IsInstance && !record.IsStray {
			continue
		}
		if !record.IsDeleting {
			living++
		}
		if record.StaysAt(now) && !c.deps.Cache.saysMore(record) {
			continue // as nearly all: this is cheap
		}
		pod := record.Pod()
		switch v := c.judge(pod, now); {
		case v.Action == lifetime.Keep:
		case v.Reason == instance.EndFailed:
			failed = append(failed, judged{pod, v})
		default:
			work = append(work, judged{pod, v})
		}
	}
	slices.SortFunc(failed, func(a, b judged) int { return lifetime.CompareFailed(a.verdict, b.verdict) })
	verdicts := make([]lifetime.Verdict, 0, len(failed))
	for _, j := range failed {
		verdicts = append(verdicts, j.verdict)
	}
	end := c.deps.Brake.Allow(verdicts, living)
	c.tellBraked(ctx, len(failed)-end, living)
	return append(work, failed[:end]...)
}

// tellBraked logs when the brake begins to keep failed instances, and when it lets go.
func (c *Culler) tellBraked(ctx context.Context, braked, living int) {
	switch before := c.braked.Swap(int64(braked)); {
	case braked > 0 && before == 0:
		c.deps.Log.WarnContext(ctx, "many instances failed at the same time, deletes of some are held back",
			"instances", braked, "of", living)
	case braked == 0 && before > 0:
		c.deps.Log.InfoContext(ctx, "deletes of failed instances are no longer held back")
	}
}

// Braked returns how many failed instances the last sweep kept, because many failed at the
// same time.
func (c *Culler) Braked() int64 { return c.braked.Load() }

// shouldEnd judges an instance once more: since the last time, the term may have ended, or
// a hold of deletes may have begun.
func (c *Culler) shouldEnd(ctx context.Context, pod *corev1.Pod) bool {
	return ctx.Err() == nil && c.judge(pod, c.deps.Now()).Action == lifetime.End
}

// end deletes an instance, unless a hold of deletes began, or the instance was used, since
// it was judged.
func (c *Culler) end(ctx context.Context, pod *corev1.Pod, v lifetime.Verdict) {
	if !c.shouldEnd(ctx, pod) {
		return
	}
	log := c.deps.Log.With("pod", pod.Name, "template", instance.TemplateOf(pod), "reason", v.Reason)
	switch err := c.deps.Remover.RemoveIfUnchanged(ctx, pod, instance.End{Reason: v.Reason, Message: v.Message, Detail: v.Detail, Fault: v.Fault}); {
	case err == nil:
		c.deps.Cache.Wrote(instance.Deleted(pod, c.deps.Now()))
		c.countEnd(pod, v.Reason)
		if v.Failure != "" {
			c.deps.Metrics.Failed(instance.TemplateOf(pod), instance.FailureLabel(v.Failure))
		}
		log.InfoContext(ctx, "culled", "message", v.Message, "detail", v.Detail, "fault", v.Fault)
	case apierrors.IsConflict(err):
		log.DebugContext(ctx, "not culled: the pod has changed since it was judged")
	case apierrors.IsNotFound(err):
		log.DebugContext(ctx, "not culled: the pod was gone already")
	default:
		c.deps.Metrics.CullFailed()
		log.ErrorContext(ctx, "not culled, will be tried again", "error", err)
	}
}

func (c *Culler) countEnd(pod *corev1.Pod, reason instance.EndReason) {
	c.deps.Metrics.Ended(instance.TemplateOf(pod), string(reason), instance.Lived(pod, c.deps.Now()))
}

// fixWrongTimes replaces the wrong times on a pod by now. A time that is not in the future by
// the clock of one of the replicas is not wrong: that replica may have written it.
func (c *Culler) fixWrongTimes(ctx context.Context, pod *corev1.Pod) {
	_, fastest := c.deps.ReplicaClocks(c.deps.Now())
	annotations, problem := c.deps.Rules.FixWrongTimes(pod, fastest, c.held(pod))
	if problem == nil {
		return
	}
	log := c.deps.Log.With("pod", pod.Name, "template", instance.TemplateOf(pod), "problem", problem)
	switch written, err := kube.Annotate(ctx, c.deps.Pods, pod, annotations); {
	case err == nil:
		c.deps.Cache.Wrote(written)
		c.deps.Metrics.WrongTimeFixed()
		log.WarnContext(ctx, "a time on the pod was wrong and has been replaced by now")
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
	default:
		log.ErrorContext(ctx, "a time on the pod is wrong and could not be replaced, will be tried again", "error", err)
	}
}

// noticeGone takes note of a pod whose deletion nobody has remembered: by kubectl,
// an eviction, a node that went away. Only the leader does, and it never blocks.
func (c *Culler) noticeGone(pod *corev1.Pod) {
	if _, remembered := c.deps.Cache.Tombstone(pod.Labels[instance.IDLabel]); remembered || !c.leading.Load() {
		return
	}
	select {
	case c.gone <- pod:
	default:
		c.deps.Log.Warn("too many instances were deleted at once, one is not remembered",
			"pod", pod.Name, "template", instance.TemplateOf(pod))
	}
}

// rememberGone writes tombstones for pods that others have deleted and that are gone, until ctx is
// done. Several do so at the same time: with a node, hundreds go at once.
func (c *Culler) rememberGone(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case pod := <-c.gone:
			c.remember(ctx, pod)
		}
	}
}

// rememberDeleting writes tombstones for pods whose deletion others have asked for, until ctx is
// done, and keeps them: a pod whose node is dead can stay for days.
func (c *Culler) rememberDeleting(ctx context.Context) {
	ticker := time.NewTicker(rememberPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		records := slices.DeleteFunc(c.deps.Cache.recordsOfTemplate(""), func(r *podstore.Record) bool { return !r.IsInstance || !r.IsDeleting })
		workqueue.ParallelizeUntil(ctx, kube.Writers, len(records), func(i int) {
			if tombstone, remembered := c.deps.Cache.Tombstone(records[i].ID); !remembered {
				c.remember(ctx, records[i].Pod())
			} else if err := c.deps.Remover.Renew(ctx, tombstone); err != nil {
				c.deps.Log.WarnContext(ctx, "the tombstone of a pod that is still there was not renewed, will be tried again", "pod", records[i].GetName(), "error", err)
			}
		})
	}
}

func (c *Culler) remember(ctx context.Context, pod *corev1.Pod) {
	if news, _ := c.deps.Remover.Remember(ctx, pod, instance.Disrupted(pod)); news { // it logs errors itself
		c.countEnd(pod, instance.EndGone)
	}
}
