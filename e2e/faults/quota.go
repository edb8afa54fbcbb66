package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// quotaFaults are what a ResourceQuota does to launches. All else goes on.
func quotaFaults() []Fault {
	unharmed := []Kind{Polls, Stops, Pages, Uploads, Downloads, WebSockets}
	isLaunch := func(r *http.Request) bool {
		return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/pods")
	}
	conflict := apierrors.NewConflict(schema.GroupResource{Resource: "resourcequotas"}, "instances",
		errors.New("the object has been modified; please apply your changes to the latest version and try again"))
	return []Fault{
		{Name: "a quota has no room", Make: fillQuota, Hold: 10 * time.Second, Within: 30 * time.Second, Harmless: unharmed},
		{
			Name: "half of the launches conflict at a quota", Make: inject("", Injection{Error: conflict, Share: 0.5, Only: isLaunch}),
			Hold: 20 * time.Second, Within: 10 * time.Second, Harmless: unharmed,
		},
	}
}

// fillQuota makes a quota that has no room, and launches at each replica what must be refused.
func fillQuota(ctx context.Context, w *World, _ *rand.Rand) (func(context.Context) error, error) {
	quotas := w.Suite.Kube.Client.CoreV1().ResourceQuotas(harness.InstancesNamespace)
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "full"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}},
	}
	replicas, err := w.replicas(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := quotas.Create(ctx, quota, metav1.CreateOptions{}); err != nil {
		return nil, fmt.Errorf("make a quota: %w", err)
	}
	undo := func(ctx context.Context) error {
		if err := quotas.Delete(ctx, quota.Name, metav1.DeleteOptions{}); err != nil {
			return fmt.Errorf("delete the quota: %w", err)
		}
		return nil
	}
	for range 5 {
		for _, replica := range replicas {
			w.launchRefused(ctx, replica)
		}
		pause(ctx, time.Second) // the service remembers a refusal for two
	}
	return undo, nil
}

// launchRefused launches at a replica, and complains about any other answer than that for a
// quota that is used up: docs/api.md has it.
func (w *World) launchRefused(ctx context.Context, replica harness.Replica) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := replica.API.Try(ctx, http.MethodPost, "/applications/", fmt.Sprintf(`{"template-name": %q}`, template))
	if err != nil {
		w.Ledger.Complain("a launch at %s while the quota has no room: %v", replica.Name, err)
		return
	}
	var got harness.Error
	err = json.Unmarshal(answer.Body, &got)
	if after := answer.Header.Get("Retry-After"); err != nil || answer.Code != http.StatusServiceUnavailable || got.Type != "badKubeRequest" || after != "60" {
		w.Ledger.Complain("a launch at %s while the quota has no room was answered with %d, Retry-After %q: %s", replica.Name, answer.Code, after, answer.Body)
	}
}
