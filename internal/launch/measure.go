package launch

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// Reporter is told what becomes of the launches of this replica, besides Metrics: of each
// instance. Its methods must not block. They are not told of a launch that another request
// with the same key has made.
type Reporter interface {
	Launched(pod *corev1.Pod, warm bool)
	Ready(pod *corev1.Pod, took time.Duration) // since the request
	Failed(pod *corev1.Pod, inst instance.Instance)
}

// queueDelay is how long the leader's word may take for a launch that finds a place. That counts
// as a part of the launch.
const queueDelay = time.Second

// measured is a launch whose time is measured.
type measured struct {
	began time.Time // of the request; or when the instance got its place, if it has waited for one
	warm  bool      // it claimed a warm pod

	mu       sync.Mutex
	reported bool
	deployed time.Time // zero until then
	done     bool
}

// measure measures a launch of this replica, from the request until the instance is
// deployed, and until its pod says how long each part of that took. A launch that fails
// before is counted. The launch is reported as soon as the read model knows the pod, which is
// nearly always at once.
//
// An entry of a pod that was created and deleted while the watch was broken is never
// removed. That is rare, and an entry is small.
func (l *Launcher) measure(id string, launch *measured) {
	l.launching.Store(id, launch)
	l.followLaunch(id) // the watch may have delivered the deployed instance already
}

// forget is told of every pod of an instance that is gone.
func (l *Launcher) forget(pod *corev1.Pod) {
	found, ok := l.launching.LoadAndDelete(pod.Labels[instance.IDLabel])
	if !ok {
		return
	}
	launch := found.(*measured)
	launch.mu.Lock()
	defer launch.mu.Unlock()
	l.report(launch, pod)
	l.endUndeployed(instance.TemplateOf(pod), pod, launch)
}

// followLaunch notes how far a measured launch is. It is told of every version of an
// instance's pod.
func (l *Launcher) followLaunch(id string) {
	found, ok := l.launching.Load(id)
	if !ok {
		return
	}
	launch := found.(*measured)
	launch.mu.Lock()
	defer launch.mu.Unlock()
	pod, exists := l.deps.Cache.Pod(id)
	if exists && !launch.done {
		l.report(launch, pod)
	}
	inst, known := l.deps.Cache.Instance(id)
	if exists && instance.WasQueued(pod) && instance.BegunAt(pod).Sub(launch.began) > queueDelay {
		launch.began = instance.BegunAt(pod)
	}
	if launch.done || !known || !inst.Status.Settled() {
		return
	}
	switch {
	case inst.Status == instance.StatusDeployed && exists:
		if launch.deployed.IsZero() {
			l.observe(inst, pod, launch)
		}
		if !launch.warm && !l.observePhases(inst, pod, launch) {
			return
		}
	case inst.Status == instance.StatusFailed && exists && launch.deployed.IsZero():
		l.failed(inst, pod)
	default:
		l.endUndeployed(inst.Template, pod, launch)
	}
	launch.done = true
	l.launching.Delete(id)
}

// report tells the Reporter of the launch, once.
func (l *Launcher) report(launch *measured, pod *corev1.Pod) {
	if !launch.reported && l.deps.Reporter != nil {
		l.deps.Reporter.Launched(pod, launch.warm)
	}
	launch.reported = true
}

// observe tells of a launch whose instance is deployed.
func (l *Launcher) observe(inst instance.Instance, pod *corev1.Pod, launch *measured) {
	launch.deployed = l.deps.Now()
	took := launch.deployed.Sub(launch.began)
	l.deps.Metrics.LaunchTook(inst.Template, launch.warm, took)
	l.deps.Log.Info("deployed", "pod", pod.Name, "template", inst.Template, "duration", took.Round(time.Millisecond).String())
	if l.deps.Announce != nil {
		l.deps.Announce(pod, launch.warm, took)
	}
	if l.deps.Reporter != nil {
		l.deps.Reporter.Ready(pod, took)
	}
}

// observePhases observes the phases of a cold launch once the pod says that its containers run:
// a replica that dials the pod knows before that it is deployed. It reports whether it has.
func (l *Launcher) observePhases(inst instance.Instance, pod *corev1.Pod, launch *measured) bool {
	phases, ok := instance.Phases(pod, launch.began, launch.deployed)
	for _, phase := range phases {
		l.deps.Metrics.LaunchPhaseTook(inst.Template, string(phase.Phase), phase.Took)
	}
	return ok
}

// failed tells of a launch whose instance failed before it was deployed.
func (l *Launcher) failed(inst instance.Instance, pod *corev1.Pod) {
	l.deps.Metrics.LaunchFailed(inst.Template, instance.FailureLabel(inst.Reason))
	if l.deps.Reporter != nil {
		l.deps.Reporter.Failed(pod, inst)
	}
	l.deps.Log.Warn("launch failed", "pod", pod.Name, "template", inst.Template, "reason", inst.Reason, "fault", inst.Fault, "message", inst.Message, "detail", inst.Detail)
}

// endUndeployed counts a launch whose pod is gone, if the start timeout had passed: no event
// reports that the timeout passes. A launch that was stopped earlier is not counted, nor one that
// was queued to its end. pod can be nil.
func (l *Launcher) endUndeployed(template string, pod *corev1.Pod, launch *measured) {
	if pod != nil && instance.IsQueued(pod) {
		return
	}
	if launch.deployed.IsZero() && l.deps.Now().Sub(launch.began) >= l.deps.StartTimeout {
		l.deps.Metrics.LaunchFailed(template, instance.ReasonStartTimeout)
	}
}
