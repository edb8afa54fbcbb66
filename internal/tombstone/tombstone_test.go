package tombstone

import (
	"errors"
	"maps"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func newTestRemover(server *kubetest.Server) *Remover {
	return &Remover{Client: server.Client, Namespace: kubetest.Namespace, Now: server.Now}
}

// mustTombstone reads the Event of an instance from the API server.
func mustTombstone(t testing.TB, server *kubetest.Server, id string) *corev1.Event {
	t.Helper()
	event, err := server.Client.CoreV1().Events(kubetest.Namespace).Get(t.Context(), "binder-"+id+".deleted", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return event
}

func TestRemove(t *testing.T) {
	pod := kubetest.Pod(kubetest.ID(1), kubetest.Noon)
	for _, test := range []struct {
		name          string
		unchangedOnly bool
		only          metav1.Preconditions
	}{
		{"in use or not", false, metav1.Preconditions{UID: &pod.UID}},
		{"only if unchanged", true, metav1.Preconditions{UID: &pod.UID, ResourceVersion: &pod.ResourceVersion}},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := kubetest.NewServer(kubetest.ClockAt(kubetest.Noon), pod)
			if err := newTestRemover(server).Remove(t.Context(), pod, instance.EndStopped, "stopped by request", test.unchangedOnly); err != nil {
				t.Fatal(err)
			}
			kubetest.WantRemoved(t, server.Writes(), pod, test.only)
			got := instance.FromTombstone(mustTombstone(t, server, kubetest.ID(1)))
			if got.Status != instance.StatusDeleted || got.Reason != "Stopped" || got.Message != "stopped by request" {
				t.Errorf("what is remembered is %+v", got)
			}
		})
	}
}

// Nobody else's pod is deleted, and none that was used in between.
func TestRemoveConflicts(t *testing.T) {
	used := kubetest.Pod(kubetest.ID(1), kubetest.Noon, func(p *corev1.Pod) { p.ResourceVersion = "8" })
	other := kubetest.Pod(kubetest.ID(1), kubetest.Noon, func(p *corev1.Pod) { p.UID = "another" })
	for _, test := range []struct {
		name          string
		live          *corev1.Pod
		unchangedOnly bool
	}{
		{"used in between", used, true},
		{"another pod of that name", other, true},
		{"another pod of that name, changed or not", other, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := kubetest.NewServer(kubetest.ClockAt(kubetest.Noon), test.live)
			err := newTestRemover(server).Remove(t.Context(), kubetest.Pod(kubetest.ID(1), kubetest.Noon), instance.EndCulled, "", test.unchangedOnly)
			if !apierrors.IsConflict(err) {
				t.Errorf("got error %v, want a conflict", err)
			}
			if _, err := server.StoredPod(instance.PodName(kubetest.ID(1))); err != nil {
				t.Errorf("the pod was deleted: %v", err)
			}
			if writes := server.Writes(); test.unchangedOnly && len(writes) > 0 {
				t.Errorf("the writes are %v, though it lives", writes)
			}
		})
	}
}

// Somebody may use it just then.
func TestRemoveConflictsAtLast(t *testing.T) {
	server := kubetest.NewServer(kubetest.ClockAt(kubetest.Noon), kubetest.Pod(kubetest.ID(1), kubetest.Noon))
	server.React("patch", "events", func(k8stesting.Action) (bool, runtime.Object, error) {
		used := kubetest.Pod(kubetest.ID(1), kubetest.Noon, func(p *corev1.Pod) { p.ResourceVersion = "8" })
		return false, nil, server.Client.Tracker().Update(kubetest.PodResource, used, kubetest.Namespace)
	})
	err := newTestRemover(server).Remove(t.Context(), kubetest.Pod(kubetest.ID(1), kubetest.Noon), instance.EndCulled, "", true)
	if !apierrors.IsConflict(err) {
		t.Errorf("got error %v, want a conflict", err)
	}
	if _, err := server.StoredPod(instance.PodName(kubetest.ID(1))); err != nil {
		t.Errorf("the pod was deleted: %v", err)
	}
}

func TestRemoveWhatIsGone(t *testing.T) {
	server := kubetest.NewServer(kubetest.ClockAt(kubetest.Noon))
	err := newTestRemover(server).Remove(t.Context(), kubetest.Pod(kubetest.ID(1), kubetest.Noon), instance.EndStopped, "", false)
	if !apierrors.IsNotFound(err) {
		t.Errorf("got error %v, want that it is not found", err)
	}
	mustTombstone(t, server, kubetest.ID(1))
}

// An instance that cannot be remembered is not deleted.
func TestRemoveKeepsWhatItCannotRemember(t *testing.T) {
	server := kubetest.NewServer(kubetest.ClockAt(kubetest.Noon), kubetest.Pod(kubetest.ID(1), kubetest.Noon))
	away := errors.New("the API server is away")
	server.FailOn("patch", "events", away)
	err := newTestRemover(server).Remove(t.Context(), kubetest.Pod(kubetest.ID(1), kubetest.Noon), instance.EndCulled, "", true)
	if !errors.Is(err, away) {
		t.Errorf("got error %v, want %v", err, away)
	}
	if _, err := server.StoredPod(instance.PodName(kubetest.ID(1))); err != nil {
		t.Errorf("the pod was deleted: %v", err)
	}
}

// A tombstone may be left from a delete that was refused.
func TestRemoveReplacesAnEarlierTombstone(t *testing.T) {
	now := kubetest.Noon
	server := kubetest.NewServer(func() time.Time { return now }, kubetest.Pod(kubetest.ID(1), kubetest.Noon))
	remover := newTestRemover(server)
	away := errors.New("the API server is away")
	broken := true
	server.React("delete", "pods", func(action k8stesting.Action) (bool, runtime.Object, error) {
		return broken && !kubetest.IsDryRun(action), nil, away
	})
	if err := remover.Remove(t.Context(), kubetest.Pod(kubetest.ID(1), kubetest.Noon), instance.EndCulled, "not used", true); !errors.Is(err, away) {
		t.Fatalf("got error %v, want %v", err, away)
	}
	broken = false
	now = kubetest.Noon.Add(time.Hour)
	if err := remover.Remove(t.Context(), kubetest.Pod(kubetest.ID(1), kubetest.Noon), instance.EndStopped, "stopped by request", false); err != nil {
		t.Fatal(err)
	}
	event := mustTombstone(t, server, kubetest.ID(1))
	if event.Reason != "Stopped" || event.Message != "stopped by request" || !event.LastTimestamp.Time.Equal(now) {
		t.Errorf("got %s %q of %s, want the latest", event.Reason, event.Message, event.LastTimestamp)
	}
}

func TestRemember(t *testing.T) {
	server := kubetest.NewServer(kubetest.ClockAt(kubetest.Noon))
	if err := newTestRemover(server).Remember(t.Context(), kubetest.Pod(kubetest.ID(1), kubetest.Noon), "deleted from outside"); err != nil {
		t.Fatal(err)
	}
	event := mustTombstone(t, server, kubetest.ID(1))
	if event.Reason != "Gone" || event.Message != "deleted from outside" {
		t.Errorf("got %s %q", event.Reason, event.Message)
	}
}

// What ended an instance says more than that it is gone.
func TestRememberKeepsWhatIsKnown(t *testing.T) {
	server := kubetest.NewServer(kubetest.ClockAt(kubetest.Noon), kubetest.Pod(kubetest.ID(1), kubetest.Noon))
	remover := newTestRemover(server)
	if err := remover.Remove(t.Context(), kubetest.Pod(kubetest.ID(1), kubetest.Noon), instance.EndCulled, "not used", true); err != nil {
		t.Fatal(err)
	}
	if err := remover.Remember(t.Context(), kubetest.Pod(kubetest.ID(1), kubetest.Noon), "deleted from outside"); err != nil {
		t.Errorf("a tombstone that exists is an error: %v", err)
	}
	if event := mustTombstone(t, server, kubetest.ID(1)); event.Reason != "Culled" || event.Message != "not used" {
		t.Errorf("got %s %q, want what was there", event.Reason, event.Message)
	}
}

// And what ends an instance that was thought to be gone says more as well.
func TestRemoveReplacesWhatOthersRemember(t *testing.T) {
	server := kubetest.NewServer(kubetest.ClockAt(kubetest.Noon), kubetest.Pod(kubetest.ID(1), kubetest.Noon))
	remover := newTestRemover(server)
	if err := remover.Remember(t.Context(), kubetest.Pod(kubetest.ID(1), kubetest.Noon), "deleted from outside"); err != nil {
		t.Fatal(err)
	}
	if err := remover.Remove(t.Context(), kubetest.Pod(kubetest.ID(1), kubetest.Noon), instance.EndCulled, "not used", true); err != nil {
		t.Fatal(err)
	}
	if event := mustTombstone(t, server, kubetest.ID(1)); event.Reason != "Culled" || event.Message != "not used" {
		t.Errorf("got %s %q, want why it was ended", event.Reason, event.Message)
	}
}

func TestRememberFails(t *testing.T) {
	server := kubetest.NewServer(kubetest.ClockAt(kubetest.Noon))
	away := errors.New("the API server is away")
	server.FailOn("patch", "events", away)
	if err := newTestRemover(server).Remember(t.Context(), kubetest.Pod(kubetest.ID(1), kubetest.Noon), ""); !errors.Is(err, away) {
		t.Errorf("got error %v, want %v", err, away)
	}
}

// The tombstone is selected and indexed like the pod, and the API server takes
// it: an Event must be in the namespace of what it is about.
func TestNewTombstone(t *testing.T) {
	pod := kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.OfTemplate("org/image"))
	bury := func(reason instance.EndReason) *corev1.Event {
		server := kubetest.NewServer(kubetest.ClockAt(kubetest.Noon), pod)
		if err := newTestRemover(server).Remove(t.Context(), pod, reason, "message", false); err != nil {
			t.Fatal(err)
		}
		return mustTombstone(t, server, kubetest.ID(1))
	}
	for reason, kind := range map[instance.EndReason]string{
		instance.EndCulled: "Normal", instance.EndStopped: "Normal", instance.EndGone: "Normal", instance.EndFailed: "Warning",
	} {
		event := bury(reason)
		if event.Type != kind || event.Reason != string(reason) {
			t.Errorf("%s: got type %s and reason %s, want type %s", reason, event.Type, event.Reason, kind)
		}
	}
	event := bury(instance.EndCulled)
	if event.Name != "binder-"+kubetest.ID(1)+".deleted" || event.Namespace != kubetest.Namespace {
		t.Errorf("it is %s/%s", event.Namespace, event.Name)
	}
	if !maps.Equal(event.Labels, pod.Labels) {
		t.Errorf("its labels are %v, want the pod's %v", event.Labels, pod.Labels)
	}
	want := corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: kubetest.Namespace, Name: pod.Name, UID: pod.UID}
	if event.InvolvedObject != want {
		t.Errorf("it is about %+v, want %+v", event.InvolvedObject, want)
	}
}
