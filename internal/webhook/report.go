package webhook

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// endsPeriod is how often the leader looks for instances that have ended.
const endsPeriod = 2 * time.Second

// Launched tells that an instance was launched. It never blocks; nor do Ready and Failed.
func (s *Sender) Launched(pod *corev1.Pod, warm bool) { s.send(launched(pod, warm)) }

// Ready tells that an instance can be used. took is the time since the request.
func (s *Sender) Ready(pod *corev1.Pod, took time.Duration) { s.send(ready(pod, s.deps.Now(), took)) }

// Failed tells that an instance failed before it was ready. inst says why.
func (s *Sender) Failed(pod *corev1.Pod, inst instance.Instance) {
	s.send(failed(pod, s.deps.Now(), inst))
}

// ReportEnds tells of every instance that has ended, until ctx is done: for one term of
// leading.
//
// Tombstones are in the cluster, so no end is lost with a replica: each term tells again of
// those that are there at its start. An end that finds no room in the queue is told later,
// because its tombstone is still there.
func (s *Sender) ReportEnds(ctx context.Context) {
	if s == nil {
		return
	}
	ticker := time.NewTicker(endsPeriod)
	defer ticker.Stop()
	var told map[types.UID]bool
	for {
		told = s.reportNew(s.deps.Ended(), told)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// reportNew queues the ends that have not been told, by the UID of the pod. It returns those
// that have been, as far as there are tombstones.
func (s *Sender) reportNew(tombstones []*corev1.Event, told map[types.UID]bool) map[types.UID]bool {
	now := make(map[types.UID]bool, len(tombstones))
	for _, tombstone := range tombstones {
		pod := tombstone.InvolvedObject.UID
		if told[pod] || s.offer(ended(tombstone), maxQueued/2) {
			now[pod] = true
		}
	}
	return now
}
