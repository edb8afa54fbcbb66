//go:build integration

package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"

	"github.com/binder-project/binder-deploy-kubernetes/internal/tombstone"
)

func (s *sandbox) remover() *tombstone.Remover {
	return &tombstone.Remover{Client: s.client, Namespace: s.namespace, Now: time.Now, Log: kubetest.NoLog()}
}

// wantAlive checks that a pod is there, the very same, and not being deleted.
func (s *sandbox) wantAlive(t testing.TB, id string, uid types.UID) *corev1.Pod {
	t.Helper()
	pod, exists := s.pod(t, id)
	if !exists || pod.DeletionTimestamp != nil || pod.UID != uid {
		t.Fatalf("pod %s: exists %t, UID %s, deleted at %s; want UID %s, alive", instance.PodName(id), exists, pod.UID, pod.DeletionTimestamp, uid)
	}
	return pod
}

// wantTombstone checks what is remembered of an instance that is over.
func (s *sandbox) wantTombstone(t testing.TB, id string, reason instance.EndReason, message string) *corev1.Event {
	t.Helper()
	event, exists := s.tombstone(t, id)
	if !exists || event.Reason != string(reason) || event.Message != message {
		t.Fatalf("tombstone of %s: exists %t, %s %q; want %s %q", id, exists, event.Reason, event.Message, reason, message)
	}
	return event
}

// A pod that was touched since it was read survives, whoever touched it, and
// nothing says that it is over before it is.
func TestIntegrationRemoverSparesWhatWasTouched(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, nil)
	read := s.createPod(t, kubetest.ID(1))
	reader := s.startReplica(t, time.Now)
	used := time.Now().Add(time.Minute).Truncate(time.Millisecond)
	s.touch(t, kubetest.ID(1), used)

	if err := s.remover().RemoveIfUnchanged(t.Context(), read, instance.EndCulled, "not used"); !apierrors.IsConflict(err) {
		t.Fatalf("got error %v, want a conflict", err)
	}
	pod := s.wantAlive(t, kubetest.ID(1), read.UID)
	if at, err := instance.LastActivity(pod); err != nil || !at.Equal(used) {
		t.Errorf("its activity is %s, %v; want %s", at, err, used)
	}
	if event, exists := s.tombstone(t, kubetest.ID(1)); exists {
		t.Errorf("what lives is remembered as %s: %s", event.Reason, event.Message)
	}
	if inst, _ := reader.Instance(kubetest.ID(1)); inst.Status != instance.StatusDeployed {
		t.Errorf("the instance is %s while its pod lives, want deployed", inst.Status)
	}

	// The next attempt has read what was written since.
	if err := s.remover().RemoveIfUnchanged(t.Context(), pod, instance.EndFailed, "broke down"); err != nil {
		t.Fatal(err)
	}
	if _, exists := s.pod(t, kubetest.ID(1)); exists {
		t.Error("the pod is still there")
	}
	event := s.wantTombstone(t, kubetest.ID(1), instance.EndFailed, "broke down")
	if event.Type != corev1.EventTypeWarning || event.Count != 1 {
		t.Errorf("the tombstone is of type %s, counts %d; want one Warning", event.Type, event.Count)
	}
	kubetest.Eventually(t, "the instance is deleted for its last reason", func() bool {
		inst, _ := reader.Instance(kubetest.ID(1))
		return inst.Status == instance.StatusDeleted && inst.Reason == string(instance.EndFailed) && inst.Message == "broke down"
	})
}

// A stop is for the instance, used or not; but for this instance only.
func TestIntegrationRemoverStopsWhatWasTouched(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, nil)
	read := s.createPod(t, kubetest.ID(1))
	s.touch(t, kubetest.ID(1), time.Now())
	if err := s.remover().Remove(t.Context(), read, instance.EndStopped, "stopped by request"); err != nil {
		t.Fatal(err)
	}
	if _, exists := s.pod(t, kubetest.ID(1)); exists {
		t.Error("the pod is still there")
	}
	// Once more: it is gone, by somebody else's doing.
	if err := s.remover().Remove(t.Context(), read, instance.EndStopped, "stopped by request"); !apierrors.IsNotFound(err) {
		t.Errorf("stopped again: %v, want that it is not found", err)
	}
}

func TestIntegrationRemoverSparesAnotherPodOfTheName(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, nil)
	remover := s.remover()
	for n, remove := range []func(context.Context, *corev1.Pod, instance.EndReason, string) error{remover.RemoveIfUnchanged, remover.Remove} {
		id := kubetest.ID(n)
		read := s.createPod(t, id)
		s.deletePod(t, id)
		other := s.createPod(t, id)
		if other.UID == read.UID {
			t.Fatalf("both pods have the UID %s", other.UID)
		}
		if err := remove(t.Context(), read, instance.EndCulled, "not used"); !apierrors.IsConflict(err) {
			t.Errorf("method %d: got error %v, want a conflict", n, err)
		}
		s.wantAlive(t, id, other.UID)
	}
}

// The API server takes the tombstone, keeps all of it, and keeps it without the
// pod, whatever the template is called and the message says.
func TestIntegrationTombstoneOutlivesThePod(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, nil)
	name := "org/Émile's image:" + strings.Repeat("x", 200)
	pod := s.createPod(t, kubetest.ID(1), kubetest.OfTemplate(name))
	message := instance.Clip(strings.Repeat("…", 2000)) // of three bytes each
	if err := s.remover().RemoveIfUnchanged(t.Context(), pod, instance.EndCulled, message); err != nil {
		t.Fatal(err)
	}
	if _, exists := s.pod(t, kubetest.ID(1)); exists {
		t.Fatal("the pod is still there")
	}
	event := s.wantTombstone(t, kubetest.ID(1), instance.EndCulled, message)
	if !maps.Equal(event.Labels, pod.Labels) {
		t.Errorf("its labels are %v, want the pod's %v", event.Labels, pod.Labels)
	}
	if got := event.Annotations[instance.TemplateNameAnnotation]; got != name {
		t.Errorf("its template is %q, want %q", got, name)
	}
	want := corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: s.namespace, Name: pod.Name, UID: pod.UID}
	if event.InvolvedObject != want {
		t.Errorf("it is about %+v, want %+v", event.InvolvedObject, want)
	}
	if !event.FirstTimestamp.Equal(&pod.CreationTimestamp) || event.LastTimestamp.Before(&pod.CreationTimestamp) {
		t.Errorf("it is from %s to %s, want from %s to now", event.FirstTimestamp, event.LastTimestamp, pod.CreationTimestamp)
	}
	// By the selector of the watch it is found.
	list, err := s.client.CoreV1().Events(s.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: instance.Selector().String()})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(list.Items, func(e corev1.Event) bool { return e.UID == event.UID }) {
		t.Errorf("it is not among the %d events of the selector", len(list.Items))
	}
}

func TestIntegrationRemember(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, nil)
	pod := s.createPod(t, kubetest.ID(1))
	remember := func(message string) {
		t.Helper()
		if err := s.remover().Remember(t.Context(), pod, message); err != nil {
			t.Fatal(err)
		}
	}
	remember("deleted from outside")
	s.wantTombstone(t, kubetest.ID(1), instance.EndGone, "deleted from outside")
	remember("deleted from outside, as another leader has it")
	s.wantTombstone(t, kubetest.ID(1), instance.EndGone, "deleted from outside, as another leader has it")

	// What this service ended says more, before or after.
	if err := s.remover().RemoveIfUnchanged(t.Context(), pod, instance.EndCulled, "not used"); err != nil {
		t.Fatal(err)
	}
	said := s.wantTombstone(t, kubetest.ID(1), instance.EndCulled, "not used")
	remember("deleted from outside")
	if kept := s.wantTombstone(t, kubetest.ID(1), instance.EndCulled, "not used"); kept.ResourceVersion != said.ResourceVersion {
		t.Errorf("the tombstone has been written to: resourceVersion %s, want %s", kept.ResourceVersion, said.ResourceVersion)
	}
}
