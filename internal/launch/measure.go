package launch

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// measured is a launch whose time is measured.
type measured struct {
	began time.Time
	warm  bool // it claimed a warm pod
}

// measure measures a launch of this replica, from the request until the instance is
// deployed. A launch whose instance never is deployed is not measured.
//
// An entry of a pod that was created and deleted while the watch was broken is never
// removed. That is rare, and an entry is small.
func (l *Launcher) measure(id string, launch measured) {
	l.launching.Store(id, launch)
	l.endMeasurement(id) // the watch may have delivered the deployed instance already
}

// forget is told of every pod of an instance that is gone.
func (l *Launcher) forget(pod *corev1.Pod) { l.launching.Delete(pod.Labels[instance.IDLabel]) }

// endMeasurement ends the measurement of a launch once its instance is deployed or
// has ended. It is told of every version of an instance's pod.
func (l *Launcher) endMeasurement(id string) {
	if _, found := l.launching.Load(id); !found {
		return
	}
	inst, known := l.deps.Cache.Instance(id)
	if !known || !inst.Status.Settled() {
		return
	}
	launch, found := l.launching.LoadAndDelete(id)
	if !found {
		return // another goroutine was faster
	}
	switch inst.Status {
	case instance.StatusDeployed:
		took := l.observe(inst, launch.(measured))
		l.deps.Log.Info("deployed", "pod", instance.PodName(id), "template", inst.Template, "duration", took.Round(time.Millisecond).String())
	case instance.StatusFailed:
		l.deps.Metrics.LaunchFailed(inst.Template)
		l.deps.Log.Warn("launch failed", "pod", instance.PodName(id), "template", inst.Template, "reason", inst.Reason, "fault", inst.Fault, "message", inst.Message, "detail", inst.Detail)
	}
}

// observe counts a launch whose instance is deployed. It returns how long it took.
func (l *Launcher) observe(inst instance.Instance, launch measured) time.Duration {
	now := l.deps.Now()
	took := now.Sub(launch.began)
	l.deps.Metrics.LaunchTook(inst.Template, launch.warm, took)
	pod, ok := l.deps.Cache.Pod(inst.ID)
	if !ok {
		return took // it has been deleted since
	}
	if !launch.warm {
		for _, phase := range instance.Phases(pod, launch.began, now) {
			l.deps.Metrics.LaunchPhaseTook(inst.Template, string(phase.Phase), phase.Took)
		}
	}
	if l.deps.Announce != nil {
		l.deps.Announce(pod, launch.warm, took)
	}
	return took
}
