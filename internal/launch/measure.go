package launch

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// measured is a launch whose time is measured.
type measured struct {
	began    time.Time
	warm     bool      // it claimed a warm pod
	deployed time.Time // zero until then; its phases are not known yet
}

// measure measures a launch of this replica, from the request until the instance is
// deployed, and until its pod says how long each part of that took. A launch that fails
// before is counted.
//
// An entry of a pod that was created and deleted while the watch was broken is never
// removed. That is rare, and an entry is small.
func (l *Launcher) measure(id string, launch measured) {
	l.launching.Store(id, launch)
	l.followLaunch(id) // the watch may have delivered the deployed instance already
}

// forget is told of every pod of an instance that is gone.
func (l *Launcher) forget(pod *corev1.Pod) {
	if launch, found := l.launching.LoadAndDelete(pod.Labels[instance.IDLabel]); found {
		l.endUndeployed(instance.TemplateOf(pod), launch.(measured))
	}
}

// followLaunch notes how far a measured launch is. It is told of every version of an
// instance's pod.
func (l *Launcher) followLaunch(id string) {
	found, ok := l.launching.Load(id)
	if !ok {
		return
	}
	inst, known := l.deps.Cache.Instance(id)
	if !known || !inst.Status.Settled() {
		return
	}
	launch := found.(measured)
	switch {
	case inst.Status == instance.StatusDeployed && !launch.warm:
		l.followCold(inst, launch)
	case !l.launching.CompareAndDelete(id, launch): // another goroutine was faster
	case inst.Status == instance.StatusDeployed:
		l.observe(inst, launch, l.deps.Now())
	case inst.Status == instance.StatusFailed && launch.deployed.IsZero():
		l.deps.Metrics.LaunchFailed(inst.Template, instance.FailureLabel(inst.Reason))
		l.deps.Log.Warn("launch failed", "pod", instance.PodName(id), "template", inst.Template, "reason", inst.Reason, "fault", inst.Fault, "message", inst.Message, "detail", inst.Detail)
	default:
		l.endUndeployed(inst.Template, launch)
	}
}

// followCold observes a cold launch whose instance is deployed, and its phases once the pod
// says that its containers run: a replica that dials the pod can know before.
func (l *Launcher) followCold(inst instance.Instance, launch measured) {
	before := launch
	if launch.deployed.IsZero() {
		launch.deployed = l.deps.Now()
	}
	pod, ok := l.deps.Cache.Pod(inst.ID)
	if !ok {
		return // it is being forgotten
	}
	phases, all := instance.Phases(pod, launch.began, launch.deployed)
	mine := false
	if all {
		mine = l.launching.CompareAndDelete(inst.ID, before)
	} else {
		mine = l.launching.CompareAndSwap(inst.ID, before, launch)
	}
	if !mine {
		return // another goroutine was faster
	}
	if before.deployed.IsZero() {
		l.observe(inst, launch, launch.deployed)
	}
	if all {
		for _, phase := range phases {
			l.deps.Metrics.LaunchPhaseTook(inst.Template, string(phase.Phase), phase.Took)
		}
	}
}

// endUndeployed counts a launch that ended without a word: nothing tells that the start timeout
// has passed, so the instance may have failed by that. One that was stopped before is not
// counted.
func (l *Launcher) endUndeployed(template string, launch measured) {
	if launch.deployed.IsZero() && l.deps.Now().Sub(launch.began) >= l.deps.StartTimeout {
		l.deps.Metrics.LaunchFailed(template, instance.ReasonStartTimeout)
	}
}

// observe counts a launch whose instance is deployed.
func (l *Launcher) observe(inst instance.Instance, launch measured, deployed time.Time) {
	took := deployed.Sub(launch.began)
	l.deps.Metrics.LaunchTook(inst.Template, launch.warm, took)
	l.deps.Log.Info("deployed", "pod", instance.PodName(inst.ID), "template", inst.Template, "duration", took.Round(time.Millisecond).String())
	if pod, ok := l.deps.Cache.Pod(inst.ID); ok && l.deps.Announce != nil {
		l.deps.Announce(pod, launch.warm, took)
	}
}
