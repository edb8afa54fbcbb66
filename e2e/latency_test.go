//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestWarmLaunchLatency measures 100 launches of a template with warm pods, one
// after another, each answered with its location, beside bare patches of a pod:
// the one write that a claim is. It is not parallel, so that it measures little
// else, and asserts nothing about time: figures of one run compare only with
// each other.
func TestWarmLaunchLatency(t *testing.T) {
	const template, size, rounds = "echo-warm-latency", 20, 5
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
				// Refilled meanwhile, and claimed before those that were there.
				t.Logf("%s was not warm when the round began", instance.ID)
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
	for range 10 {
		began := time.Now()
		launchAndWait(t, suite.API, template)
		cold = append(cold, time.Since(began))
	}
	report(t, "warm launch, POST to location", launches)
	report(t, "bare PATCH of a pod at the API server", patches)
	report(t, "cold launch, POST to location", cold)
}

// barePatch is the time of one write to a pod, straight to the API server.
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

// report writes one line of figures into the file that BINDER_E2E_MEASUREMENTS
// names, for who ran the tests to read at the end, and into the test's log.
func report(t *testing.T, what string, all []time.Duration) {
	t.Helper()
	slices.Sort(all)
	line := fmt.Sprintf("%-40s n=%-4d median %-8s p99 %-8s max %s", what, len(all),
		quantile(all, 50), quantile(all, 99), all[len(all)-1].Round(100*time.Microsecond))
	t.Log(line)
	path := os.Getenv("BINDER_E2E_MEASUREMENTS")
	if path == "" {
		return
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	require.NoError(t, err)
	defer file.Close()
	_, err = fmt.Fprintln(file, line)
	require.NoError(t, err)
}

// quantile is the nearest-rank percentile of sorted durations.
func quantile(sorted []time.Duration, percent int) time.Duration {
	rank := (len(sorted)*percent + 99) / 100
	return sorted[max(rank, 1)-1].Round(100 * time.Microsecond)
}
