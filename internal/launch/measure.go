package launch

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// measure measures a launch of this replica, from the request until the instance is
// deployed. A launch whose instance never is deployed is not measured.
//
// An entry of a pod that was created and deleted while the watch was broken is never
// removed. That is rare, and an entry is small.
func (l *Launcher) measure(id string, began time.Time) {
	l.launching.Store(id, began)
	l.endMeasurement(id) // the watch may have delivered the deployed instance already
}

// forget is told of every pod of an instance that is gone.
func (l *Launcher) forget(pod *corev1.Pod) { l.launching.Delete(pod.Labels[instance.IDLabel]) }

// endMeasurement ends the measurement of a launch once its instance is deployed or
// has ended. It is told of every version of an instance's pod.
func (l *Launcher) endMeasurement(id string) {
	if _, measured := l.launching.Load(id); !measured {
		return
	}
	inst, known := l.deps.Cache.Instance(id)
	if !known || !inst.Status.Settled() {
		return
	}
	began, measured := l.launching.LoadAndDelete(id)
	if !measured {
		return // another goroutine was faster
	}
	switch inst.Status {
	case instance.StatusDeployed:
		took := l.deps.Now().Sub(began.(time.Time))
		l.deps.Metrics.LaunchTook(took)
		l.deps.Log.Info("deployed", "pod", instance.PodName(id), "template", inst.Template, "duration", took.Round(time.Millisecond).String())
	case instance.StatusFailed:
		l.deps.Log.Warn("launch failed", "pod", instance.PodName(id), "template", inst.Template, "reason", inst.Reason, "fault", inst.Fault, "message", inst.Message, "detail", inst.Detail)
	}
}
