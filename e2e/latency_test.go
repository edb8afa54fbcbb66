//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
	"github.com/binder-project/binder-deploy-kubernetes/e2e/measure"
)

// TestWarmLaunchLatency measures 100 (with -short, 20) consecutive launches of a
// template with warm pods, each answered with a location. For comparison it measures bare patches of a
// pod, because a claim is one such write. The test is not parallel, so that other
// tests do not distort the figures. It asserts no time limit, because only figures
// of the same run are comparable.
func TestWarmLaunchLatency(t *testing.T) {
	const template, size = "echo-warm-latency", 20
	rounds, colds := 5, 10
	if testing.Short() {
		rounds, colds = 1, 5
	}
	newPool(t, template, size)
	var launches, patches, cold []time.Duration
	for range rounds {
		warm := awaitWarm(t, template, size, anyPod)
		var batch []*harness.Instance
		for range size {
			began := time.Now()
			instance, status := launchAndWait(t, suite.API, template)
			launches = append(launches, time.Since(began))
			require.Equal(t, instance.Location(), status.Location)
			if _, was := warm[instance.Pod(t).UID]; !was {
				// The pool was refilled, and the new pod was claimed first.
				t.Logf("%s was not warm at the start of the round", instance.ID)
			}
			patches = append(patches, barePatch(t, instance))
			batch = append(batch, instance)
		}
		for _, instance := range batch {
			suite.API.Do(t, http.MethodDelete, "/applications/"+template+"/"+instance.ID, "", "Authorization", suite.API.Key()).
				Decode(t, &harness.Status{})
		}
	}
	setPoolSize(t, template, "0")
	awaitWarm(t, template, 0, anyPod)
	for range colds {
		began := time.Now()
		launchAndWait(t, suite.API, template)
		cold = append(cold, time.Since(began))
	}
	report(t, "warm launch, POST to location", launches)
	report(t, "bare PATCH of a pod at the API server", patches)
	report(t, "cold launch, POST to location", cold)
}

// barePatch returns the time of one write to a pod at the API server.
func barePatch(t *testing.T, instance *harness.Instance) time.Duration {
	t.Helper()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{"binder-e2e/touched": time.Now().String()}}})
	require.NoError(t, err)
	began := time.Now()
	_, err = suite.Kube.Client.CoreV1().Pods(harness.InstancesNamespace).
		Patch(t.Context(), instance.PodName(), types.MergePatchType, patch, metav1.PatchOptions{})
	require.NoError(t, err)
	return time.Since(began)
}

// report writes one line of figures to the test's log and to the file that
// BINDER_E2E_MEASUREMENTS names. hack/test.sh prints the file at the end.
func report(t *testing.T, what string, all []time.Duration) {
	t.Helper()
	slices.Sort(all)
	line := fmt.Sprintf("%-40s n=%-4d median %-8s p99 %-8s max %s", what, len(all),
		quantile(all, 50), quantile(all, 99), all[len(all)-1].Round(100*time.Microsecond))
	t.Log(line)
	require.NoError(t, measure.Write(line))
}

// quantile returns the nearest-rank percentile of sorted durations.
func quantile(sorted []time.Duration, percent int) time.Duration {
	rank := (len(sorted)*percent + 99) / 100
	return sorted[max(rank, 1)-1].Round(100 * time.Microsecond)
}
