package tombstone_test

import (
	"context"
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
	"github.com/binder-project/binder-deploy-kubernetes/internal/tombstone"
)

var errAway = errors.New("the API server is away")

// remover returns a Remover and the fake API server, which has these objects.
func remover(objects ...runtime.Object) (*tombstone.Remover, *kubetest.Server) {
	server := kubetest.NewServer(kubetest.ClockAt(kubetest.Noon), objects...)
	return &tombstone.Remover{Client: server.Client, Namespace: kubetest.Namespace, Now: server.Now, Log: kubetest.NoLog()}, server
}

func newPod(changes ...func(*corev1.Pod)) *corev1.Pod {
	return kubetest.Pod(kubetest.ID(1), kubetest.Noon, changes...)
}

// used is a change of a pod whose activity was written since it was read.
func used(pod *corev1.Pod) { pod.ResourceVersion = "8" }

// wantEvent returns the tombstone at the API server, which must have a reason and a
// message.
func wantEvent(t testing.TB, server *kubetest.Server, reason, message string) *corev1.Event {
	t.Helper()
	name := instance.TombstoneName(kubetest.ID(1))
	event, err := server.Client.CoreV1().Events(kubetest.Namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if event.Reason != reason || event.Message != message {
		t.Errorf("the tombstone says %s %q, want %s %q", event.Reason, event.Message, reason, message)
	}
	return event
}

func wantPodKept(t testing.TB, server *kubetest.Server) {
	t.Helper()
	if _, err := server.StoredPod(instance.PodName(kubetest.ID(1))); err != nil {
		t.Errorf("the pod was deleted: %v", err)
	}
}

// removal returns the method that removes a pod: only if it is unchanged, or in any case.
func removal(r *tombstone.Remover, unchangedOnly bool) func(context.Context, *corev1.Pod, instance.End) error {
	if unchangedOnly {
		return r.RemoveIfUnchanged
	}
	return r.Remove
}

func TestRemove(t *testing.T) {
	pod := newPod()
	for unchangedOnly, only := range map[bool]metav1.Preconditions{
		false: {UID: &pod.UID},
		true:  {UID: &pod.UID, ResourceVersion: &pod.ResourceVersion},
	} {
		r, server := remover(pod)
		if err := removal(r, unchangedOnly)(t.Context(), pod, instance.End{Reason: instance.EndStopped, Message: "stopped by request"}); err != nil {
			t.Fatal(err)
		}
		kubetest.WantRemoved(t, server.Writes(), pod, only)
		got := instance.FromTombstone(wantEvent(t, server, "Stopped", "stopped by request"))
		if got.Status != instance.StatusDeleted || got.ID != kubetest.ID(1) || !got.Ended.Equal(kubetest.Noon) {
			t.Errorf("the tombstone is read as %+v", got)
		}
	}
}

func TestRemoveConflicts(t *testing.T) {
	other := newPod(func(p *corev1.Pod) { p.UID = "another" })
	for name, row := range map[string]struct {
		live          *corev1.Pod
		unchangedOnly bool
		usedMeanwhile bool // after the preconditions were tried
	}{
		"used since it was read":               {live: newPod(used), unchangedOnly: true},
		"another pod of the name":              {live: other, unchangedOnly: true},
		"another pod of the name, used or not": {live: other},
		"used while the tombstone was written": {live: newPod(), unchangedOnly: true, usedMeanwhile: true},
	} {
		t.Run(name, func(t *testing.T) {
			r, server := remover(row.live)
			server.React("patch", "events", func(k8stesting.Action) (bool, runtime.Object, error) {
				if row.usedMeanwhile {
					return false, nil, server.Client.Tracker().Update(kubetest.PodResource, newPod(used), kubetest.Namespace)
				}
				return false, nil, nil
			})
			err := removal(r, row.unchangedOnly)(t.Context(), newPod(), instance.End{Reason: instance.EndCulled})
			if !apierrors.IsConflict(err) {
				t.Errorf("got error %v, want a conflict", err)
			}
			wantPodKept(t, server)
			if writes := server.Writes(); row.unchangedOnly && !row.usedMeanwhile && len(writes) > 0 {
				t.Errorf("the instance lives, and yet there are the writes %v", writes)
			}
		})
	}
}

func TestRemovePodThatIsGone(t *testing.T) {
	r, server := remover()
	if err := r.Remove(t.Context(), newPod(), instance.End{Reason: instance.EndStopped, Message: ""}); !apierrors.IsNotFound(err) {
		t.Errorf("got error %v, want not found", err)
	}
	wantEvent(t, server, "Stopped", "")
}

// A failed delete leaves a tombstone, which the next attempt replaces.
func TestRemoveReplacesATombstone(t *testing.T) {
	now := kubetest.Noon
	r, server := remover(newPod())
	r.Now = func() time.Time { return now }
	broken := true
	server.React("delete", "pods", func(action k8stesting.Action) (bool, runtime.Object, error) {
		return broken && !kubetest.IsDryRun(action), nil, errAway
	})
	if err := r.RemoveIfUnchanged(t.Context(), newPod(), instance.End{Reason: instance.EndCulled, Message: "not used"}); !errors.Is(err, errAway) {
		t.Fatalf("got error %v, want %v", err, errAway)
	}
	wantEvent(t, server, "Culled", "not used")
	broken, now = false, now.Add(time.Hour)
	if err := r.Remove(t.Context(), newPod(), instance.End{Reason: instance.EndStopped, Message: "stopped by request"}); err != nil {
		t.Fatal(err)
	}
	if event := wantEvent(t, server, "Stopped", "stopped by request"); !event.LastTimestamp.Time.Equal(now) {
		t.Errorf("it ended at %s, want %s", event.LastTimestamp, now)
	}
}

// What Remove wrote says more than what Remember would write, whichever comes first.
func TestRemember(t *testing.T) {
	remember := func(wantNews bool) func(*tombstone.Remover) error {
		return func(r *tombstone.Remover) error {
			news, err := r.Remember(t.Context(), newPod(), instance.End{Reason: instance.EndGone, Message: "deleted from outside"})
			if news != wantNews {
				t.Errorf("got news %v, want %v", news, wantNews)
			}
			return err
		}
	}
	remove := func(r *tombstone.Remover) error {
		return r.RemoveIfUnchanged(t.Context(), newPod(), instance.End{Reason: instance.EndCulled, Message: "not used"})
	}
	for name, row := range map[string]struct {
		steps           []func(*tombstone.Remover) error
		reason, message string
	}{
		"nothing is known":   {[]func(*tombstone.Remover) error{remember(true)}, "Gone", "deleted from outside"},
		"removed before":     {[]func(*tombstone.Remover) error{remove, remember(false)}, "Culled", "not used"},
		"removed afterwards": {[]func(*tombstone.Remover) error{remember(true), remove}, "Culled", "not used"},
	} {
		t.Run(name, func(t *testing.T) {
			r, server := remover(newPod())
			for _, step := range row.steps {
				if err := step(r); err != nil {
					t.Fatal(err)
				}
			}
			wantEvent(t, server, row.reason, row.message)
		})
	}
}

func TestEvent(t *testing.T) {
	launched := kubetest.Noon.Add(time.Hour) // it was warm before
	pod := newPod(kubetest.OfTemplate("org/image"), kubetest.WithLabel(instance.ClientLabel, "whoever"), kubetest.LaunchedAt(launched))
	for reason, eventType := range map[instance.EndReason]string{
		instance.EndCulled: "Normal", instance.EndStopped: "Normal", instance.EndGone: "Normal", instance.EndFailed: "Warning",
	} {
		r, server := remover(pod)
		if err := r.Remove(t.Context(), pod, instance.End{Reason: reason, Message: "message"}); err != nil {
			t.Fatal(err)
		}
		event := wantEvent(t, server, string(reason), "message")
		if event.Type != eventType {
			t.Errorf("%s: got type %s, want %s", reason, event.Type, eventType)
		}
		if !maps.Equal(event.Labels, pod.Labels) || instance.TemplateOf(event) != "org/image" {
			t.Errorf("got labels %v of template %s, want the pod's %v", event.Labels, instance.TemplateOf(event), pod.Labels)
		}
		if got := instance.FromTombstone(event).Launched; !got.Equal(launched) {
			t.Errorf("it was launched at %s, want %s", got, launched)
		}
		want := corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: kubetest.Namespace, Name: pod.Name, UID: pod.UID}
		if event.InvolvedObject != want || event.Namespace != kubetest.Namespace {
			t.Errorf("the event in %s is about %+v, want %+v", event.Namespace, event.InvolvedObject, want)
		}
	}
}
