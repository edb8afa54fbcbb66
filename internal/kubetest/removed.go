package kubetest

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
)

// WantRemoved checks that the only writes are an instance's tombstone and then its
// delete, with these preconditions.
func WantRemoved(t testing.TB, writes Calls, pod *corev1.Pod, only metav1.Preconditions) {
	t.Helper()
	if len(writes) != 2 || !writes[0].Matches("patch", "events") || !writes[1].Matches("delete", "pods") {
		t.Fatalf("the writes are %v, want the tombstone and then the delete", writes)
	}
	tombstone := writes[0].(k8stesting.PatchActionImpl)
	if got, want := tombstone.Name, instance.TombstoneName(pod.Labels[instance.IDLabel]); got != want || tombstone.PatchType != types.ApplyPatchType {
		t.Errorf("the tombstone is written by a %s of %q, want an apply of %q", tombstone.PatchType, got, want)
	}
	deletion := writes[1].(k8stesting.DeleteActionImpl)
	if deletion.Name != pod.Name || deletion.Namespace != pod.Namespace {
		t.Errorf("the deleted pod is %s/%s, want %s/%s", deletion.Namespace, deletion.Name, pod.Namespace, pod.Name)
	}
	got := deletion.DeleteOptions.Preconditions
	if got == nil || got.UID == nil || *got.UID != *only.UID {
		t.Fatalf("the delete has preconditions %v, want UID %s", got, *only.UID)
	}
	switch {
	case only.ResourceVersion == nil && got.ResourceVersion != nil:
		t.Errorf("the delete requires resourceVersion %s, want none required", *got.ResourceVersion)
	case only.ResourceVersion != nil && (got.ResourceVersion == nil || *got.ResourceVersion != *only.ResourceVersion):
		t.Errorf("the delete requires resourceVersion %v, want %s", got.ResourceVersion, *only.ResourceVersion)
	}
}
