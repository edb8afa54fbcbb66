package kubetest

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8stesting "k8s.io/client-go/testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// WantRemoved checks that an instance was remembered and then deleted, with
// these preconditions and by no other write.
func WantRemoved(t testing.TB, writes Calls, pod *corev1.Pod, only metav1.Preconditions) {
	t.Helper()
	if len(writes) != 2 || !writes[0].Matches("patch", "events") || !writes[1].Matches("delete", "pods") {
		t.Fatalf("the writes are %v, want the tombstone and then the delete", writes)
	}
	tombstone := writes[0].(k8stesting.PatchActionImpl)
	if got, want := tombstone.Name, "binder-"+pod.Labels[instance.IDLabel]+".deleted"; got != want || tombstone.PatchType != types.ApplyPatchType {
		t.Errorf("the tombstone is a %s of %q, want an apply of %q", tombstone.PatchType, got, want)
	}
	deletion := writes[1].(k8stesting.DeleteActionImpl)
	if deletion.Name != pod.Name || deletion.Namespace != pod.Namespace {
		t.Errorf("deleted is %s/%s, want %s/%s", deletion.Namespace, deletion.Name, pod.Namespace, pod.Name)
	}
	got := deletion.DeleteOptions.Preconditions
	if got == nil || got.UID == nil || *got.UID != *only.UID {
		t.Fatalf("the delete has preconditions %v, want UID %s", got, *only.UID)
	}
	switch {
	case only.ResourceVersion == nil && got.ResourceVersion != nil:
		t.Errorf("the delete is only of resourceVersion %s, want of any", *got.ResourceVersion)
	case only.ResourceVersion != nil && (got.ResourceVersion == nil || *got.ResourceVersion != *only.ResourceVersion):
		t.Errorf("the delete is of resourceVersion %v, want only %s", got.ResourceVersion, *only.ResourceVersion)
	}
}
