package launch

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kube"
)

const (
	// reasonDeployed is the reason of the Events that an Announcer writes.
	reasonDeployed = "Deployed"
	// announceRate and announceBurst bound the Events, in a second and at once. They are a
	// help for people, so a flood of launches is not to cost the API server twice as much.
	announceRate, announceBurst = 5, 20
)

// Announcer writes an Event on the pod of a launched instance when it is deployed, so that
// kubectl describe tells how it was launched and how long that took. It never delays a
// launch: Events that are too many are left out.
type Announcer struct {
	events   kube.EventWriter
	limit    flowcontrol.PassiveRateLimiter
	recorder atomic.Pointer[record.EventRecorder] // nil while Run does not run
}

// NewAnnouncer returns an Announcer that writes nothing until Run.
func NewAnnouncer(events kube.EventWriter) *Announcer {
	return &Announcer{events: events, limit: flowcontrol.NewTokenBucketPassiveRateLimiter(announceRate, announceBurst)}
}

// Run writes Events until ctx is done.
func (a *Announcer) Run(ctx context.Context) {
	broadcaster := record.NewBroadcaster()
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(kube.EventSink(ctx, a.events))
	var recorder record.EventRecorder = broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: instance.ManagerName})
	a.recorder.Store(&recorder)
	defer a.recorder.Store(nil)
	<-ctx.Done()
}

// Deployed announces the instance of a pod. It does not block.
func (a *Announcer) Deployed(pod *corev1.Pod, warm bool, took time.Duration) {
	recorder := a.recorder.Load()
	if recorder == nil || !a.limit.TryAccept() {
		return
	}
	how := "Launched as a new pod"
	if warm {
		how = "Launched from the warm pool"
	}
	(*recorder).Event(pod, corev1.EventTypeNormal, reasonDeployed, fmt.Sprintf("%s, and deployed after %s.", how, took.Round(time.Millisecond)))
}
