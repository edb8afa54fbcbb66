package launch

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8stesting "k8s.io/client-go/testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"
	"github.com/binder-project/binder-deploy-kubernetes/internal/kubetest"
)

func repeatableID(idempotencyKey, template string) string {
	sum := sha256.Sum256([]byte(idempotencyKey + "\x00" + template))
	return hex.EncodeToString(sum[:16])
}

// retryID is the id of launches with the key "retry".
var retryID = repeatableID("retry", kubetest.TemplateName)

// The same request, to this replica or another, finds the instance that it launched.
// It claims no warm pod, whose id it would not find again.
func TestRepeatedLaunchFindsItsInstance(t *testing.T) {
	template := poolTemplate("1")
	first := noonReplica(t, template, warmPod(template, 100))
	second := newReplica(t, first.world)
	core := first.world.Client.CoreV1()
	for _, step := range []struct {
		name  string
		after func() error
	}{
		{"at first", func() error { return nil }},
		{"without its template", func() error {
			return core.PodTemplates(kubetest.Namespace).Delete(t.Context(), template.Name, metav1.DeleteOptions{})
		}},
		{"after its end", func() error {
			first.world.DropPod(t, instance.PodName(retryID))
			tombstone := kubetest.Tombstone(kubetest.Pod(retryID, kubetest.Noon), instance.EndCulled, "")
			_, err := core.Events(kubetest.Namespace).Create(t.Context(), tombstone, metav1.CreateOptions{})
			return err
		}},
	} {
		if err := step.after(); err != nil {
			t.Fatal(err)
		}
		if ids := []string{first.launch(t, "retry"), second.launch(t, "retry"), first.launch(t, "retry")}; !slices.Equal(ids, []string{retryID, retryID, retryID}) {
			t.Errorf("%s: got %q, want %q each time", step.name, ids, retryID)
		}
	}
	if writes := first.world.WritesOf("create", "pods"); !slices.Equal(writes, []string{instance.PodName(retryID)}) {
		t.Errorf("created are %q, want one pod", writes)
	}
}

// Launches share an instance only if they have the same key and the same template.
func TestOtherLaunchesGetOtherInstances(t *testing.T) {
	r := noonReplica(t, kubetest.Template(kubetest.TemplateName), kubetest.Template("other"))
	other, err := r.Launch(t.Context(), Request{Template: "other", IdempotencyKey: "retry"})
	ids := []string{r.launch(t, "retry"), r.launch(t, "retry2"), r.launch(t, ""), r.launch(t, ""), other}
	slices.Sort(ids)
	if err != nil || len(slices.Compact(ids)) != 5 {
		t.Errorf("got %q, %v", ids, err)
	}
}

// Where the watch has not delivered the pod yet, the API server refuses to create it
// twice.
func TestRepeatableLaunchesAtOnce(t *testing.T) {
	first := noonReplica(t, kubetest.Template(kubetest.TemplateName))
	if ids := launchAtOnce(t, 10, "retry", first, newReplica(t, first.world)); !slices.Equal(ids, []string{retryID}) {
		t.Errorf("got %q, want %q", ids, retryID)
	}
	if instances := first.world.Instances(kubetest.TemplateName); len(instances) != 1 {
		t.Errorf("there are %d instances, want one", len(instances))
	}
}

// A launch succeeds if another replica was a moment faster with it, even if that took
// the last place. When it began is not known here, so it is not measured.
func TestAnotherReplicaWasFaster(t *testing.T) {
	exists := apierrors.NewAlreadyExists(kubetest.PodResource.GroupResource(), "binder-x")
	quota, late := forbidden("exceeded quota"), instance.WatchDelay-time.Millisecond
	for _, test := range []struct {
		name    string
		limit   string        // of the template, which has one instance already
		refusal error         // of the pod
		after   time.Duration // until the watch delivers the pod
		want    error
	}{
		{"exists", "9", exists, 0, nil},
		{"exists, watch late", "9", exists, late, nil},
		{"exists, watch very late", "9", exists, time.Hour, nil},
		{"took the last place", "9", quota, 0, nil},
		{"took the last place, watch late", "9", quota, late, nil},
		{"took the last place of the limit", "1", nil, late, nil},
		{"somebody else took the last place", "9", quota, time.Hour, ErrCapacity},
		{"somebody else took the last place of the limit", "1", nil, time.Hour, errLimit},
	} {
		synctest.Test(t, func(t *testing.T) {
			template := kubetest.Template(kubetest.TemplateName, kubetest.WithTemplateAnnotation(instance.MaxInstancesAnnotation, test.limit))
			r := newReplica(t, newWorld(time.Now, template, kubetest.Pod(kubetest.ID(9), time.Now())))
			r.world.React("create", "pods", func(k8stesting.Action) (bool, runtime.Object, error) { return true, nil, test.refusal })
			time.AfterFunc(test.after, func() { r.world.PutPod(t, kubetest.Pod(retryID, time.Now())) })
			began := time.Now()
			id, err := r.Launch(t.Context(), Request{Template: kubetest.TemplateName, IdempotencyKey: "retry"})
			if !errors.Is(kindOf(err), test.want) || (id == retryID) != (err == nil) {
				t.Errorf("%s: got id %q and error %v, want %v", test.name, id, err, test.want)
			}
			if took, want := time.Since(began), min(test.after, instance.WatchDelay); took != want {
				t.Errorf("%s: took %s, want %s", test.name, took, want)
			}
			if err == nil {
				r.wantCounted(t, "launched repeated")
			} else {
				r.wantCounted(t, "launched "+result(err))
			}
		})
	}
}
