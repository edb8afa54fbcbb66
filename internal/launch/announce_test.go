package launch

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

// Each deployed instance gets an Event that kubectl describe shows on its pod. A flood gets no
// more than the first.
func TestAnnouncer(t *testing.T) {
	server := kubetest.NewServer(time.Now)
	events := server.Client.CoreV1().Events(kubetest.Namespace)
	a := NewAnnouncer(events)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { a.Run(ctx); close(ended) }()
	kubetest.Eventually(t, "it runs", func() bool { return a.recorder.Load() != nil })
	written := func() []corev1.Event {
		list, err := events.List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return list.Items
	}
	for n := range announceBurst + 5 {
		a.Deployed(kubetest.Pod(kubetest.ID(n), time.Now()), n == 0, 1234567*time.Microsecond)
	}
	kubetest.Eventually(t, "the Events are written", func() bool { return len(written()) >= announceBurst })
	stop()
	<-ended
	for _, event := range written() {
		pod := kubetest.Pod(kubetest.ID(0), time.Now())
		want := "Launched as a new pod, and deployed after 1.235s."
		if event.InvolvedObject.Name == pod.Name {
			want = "Launched from the warm pool, and deployed after 1.235s."
		}
		if event.Message != want || event.Reason != "Deployed" || event.Type != corev1.EventTypeNormal || event.InvolvedObject.Kind != "Pod" || event.Labels != nil {
			t.Errorf("got %+v", event)
		}
	}
	// The bucket has got some more since the first.
	if n := len(written()); n > announceBurst+1 {
		t.Errorf("%d Events were written", n)
	}
}
