package kube_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	. "github.com/binder-project/binder-deploy-kubernetes/internal/kube"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func TestAnnotate(t *testing.T) {
	server := kubetest.NewServer(kubetest.ClockAt(kubetest.Noon))
	pod := server.PutPod(t, kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.WithAnnotation("gone", "1"), kubetest.WithAnnotation("kept", "2")))
	pods := server.Client.CoreV1().Pods(kubetest.Namespace)
	change := map[string]any{"new": "3", "gone": nil}

	written, err := Annotate(t.Context(), pods, pod, change)
	if err != nil {
		t.Fatal(err)
	}
	want := maps.Clone(pod.Annotations)
	delete(want, "gone")
	want["new"] = "3"
	stored, err := server.StoredPod(pod.Name)
	if err != nil || !maps.Equal(stored.Annotations, want) {
		t.Errorf("the annotations are %v, %v; want %v", stored.Annotations, err, want)
	}
	if written.ResourceVersion != stored.ResourceVersion || !maps.Equal(written.Annotations, want) {
		t.Errorf("returned is version %s with %v, want what the server has", written.ResourceVersion, written.Annotations)
	}
	if patch := server.Calls("patch")[0].(k8stesting.PatchActionImpl); patch.PatchOptions.FieldManager != instance.ManagerName {
		t.Errorf("the field manager is %q", patch.PatchOptions.FieldManager)
	}

	_, err = Annotate(t.Context(), pods, pod, map[string]any{"kept": "4"}) // of the version that was read first
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), pod.Name) {
		t.Errorf("writing to an outdated pod: got %v, want a conflict that names the pod", err)
	}
	if stored, _ := server.StoredPod(pod.Name); stored.Annotations["kept"] != "2" {
		t.Error("an outdated write has changed the pod")
	}
}

func TestPatchMetadata(t *testing.T) {
	server := kubetest.NewServer(kubetest.ClockAt(kubetest.Noon))
	pod := server.PutPod(t, kubetest.Pod(kubetest.ID(1), kubetest.Noon, kubetest.WithLabel(instance.PoolLabel, instance.PoolWarm)))
	changes := map[string]any{"labels": map[string]any{instance.PoolLabel: nil}}
	written, err := PatchMetadata(t.Context(), server.Client.CoreV1().Pods(kubetest.Namespace), pod, changes)
	if err != nil || !instance.IsInstance(written) {
		t.Errorf("got %v, %v; want an instance", written, err)
	}
	if len(changes) != 1 {
		t.Errorf("the caller's changes have become %v", changes)
	}
	if _, err := PatchMetadata(t.Context(), server.Client.CoreV1().Pods(kubetest.Namespace), pod, map[string]any{"labels": 1i}); err == nil {
		t.Error("a value that has no JSON is not an error")
	}
}

// silent is an API server that never answers.
type silent struct{}

func (silent) Patch(ctx context.Context, _ string, _ types.PatchType, _ []byte, _ metav1.PatchOptions, _ ...string) (*corev1.Pod, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestAnnotateGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := Annotate(t.Context(), silent{}, kubetest.Pod(kubetest.ID(1), began), nil)
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != WriteTimeout {
			t.Errorf("after %s: got %v, want no answer within %s", took, err, WriteTimeout)
		}
	})
}

func TestRefusals(t *testing.T) {
	pods := corev1.Resource("pods")
	for name, test := range map[string]struct {
		err            error
		refused, quota bool
	}{
		"pod security":             {apierrors.NewForbidden(pods, "a", errors.New(`violates PodSecurity "baseline"`)), true, false},
		"a full quota":             {apierrors.NewForbidden(pods, "a", errors.New("exceeded quota: compute-resources, requested: pods=1")), true, true},
		"a quota not counted yet":  {apierrors.NewForbidden(pods, "a", errors.New("status unknown for quota: compute-resources")), true, true},
		"validation":               {apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "a", nil), true, false},
		"a malformed object":       {apierrors.NewBadRequest("exceeded quota"), true, false},
		"a right that lacks":       {apierrors.NewForbidden(pods, "", errors.New(`User "system:serviceaccount:binder:binder" cannot create resource "pods" in API group "" in the namespace "binder-instances"`)), false, false},
		"a conflict":               {kubetest.Conflict("a"), false, false},
		"a pod that is gone":       {kubetest.NotFound("a"), false, false},
		"an API server that waits": {apierrors.NewTooManyRequests("exceeded quota", 1), false, false},
		"no answer":                {errors.New("connection refused"), false, false},
		"no error":                 {nil, false, false},
	} {
		if refused, quota := IsRefused(test.err), IsQuota(test.err); refused != test.refused || quota != test.quota {
			t.Errorf("%s: refused %t, quota %t; want %t, %t", name, refused, quota, test.refused, test.quota)
		}
	}
}
