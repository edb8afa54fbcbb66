//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// electionWait exceeds the lifetime of a Lease whose holder was killed.
const electionWait = 40 * time.Second

// TestMetrics scrapes each replica as Prometheus would.
func TestMetrics(t *testing.T) {
	t.Parallel()
	instance := suite.Launch(t, "echo", harness.LongTimeout).AwaitDeployed(t)
	visit(t, http.MethodGet, instance.URL("/"), nil)
	launches := 0.0
	for _, replica := range suite.Replicas(t) {
		families := scrape(t, replica)
		for _, name := range []string{"binder_launches_total", "binder_instances", "binder_culls_total", "binder_leader", "go_goroutines"} {
			require.Contains(t, families, name)
			assert.NotEmpty(t, families[name].GetHelp(), name)
		}
		assert.GreaterOrEqual(t, value(families["binder_instances"], "status", "deployed"), 1.0, "every replica must count all instances")
		launches += value(families["binder_launches_total"], "result", "ok")
		for name, family := range families {
			if strings.HasPrefix(name, "binder_") {
				assertNoSecrets(t, instance.ID, family)
			}
		}
	}
	assert.GreaterOrEqual(t, launches, 1.0)
}

// assertNoSecrets checks that no label contains an id or the API key. An id is a
// secret, and a label per id would create ever more series.
func assertNoSecrets(t *testing.T, id string, family *dto.MetricFamily) {
	for _, metric := range family.GetMetric() {
		for _, label := range metric.GetLabel() {
			assert.NotContains(t, label.GetValue(), id, family.GetName())
			assert.NotContains(t, label.GetValue(), suite.API.Key(), family.GetName())
		}
	}
}

func TestProbes(t *testing.T) {
	t.Parallel()
	for _, replica := range suite.Replicas(t) {
		for _, path := range []string{"/healthz", "/readyz"} {
			code, page := visit(t, http.MethodGet, replica.Metrics+path, nil)
			assert.Equal(t, http.StatusOK, code, "%s of %s: %s", path, replica.Name, page)
		}
	}
}

// TestOneLeader checks that exactly one replica leads, and that it holds the Lease.
func TestOneLeader(t *testing.T) {
	t.Parallel()
	harness.Until(t, electionWait, "exactly one leader", func(ctx context.Context) error {
		var leaders []string
		for _, replica := range suite.Replicas(t) {
			if value(scrape(t, replica)["binder_leader"], "", "") == 1 {
				leaders = append(leaders, replica.Name)
			}
		}
		if len(leaders) != 1 {
			return fmt.Errorf("the leaders are %q", leaders)
		}
		lease, err := suite.Kube.Client.CoordinationV1().Leases(harness.Namespace).Get(ctx, "binder-deploy-kubernetes", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if holder := lease.Spec.HolderIdentity; holder == nil || *holder != leaders[0] {
			return fmt.Errorf("the leader is %s, but the Lease is %+v", leaders[0], lease.Spec)
		}
		return nil
	})
}

func scrape(t *testing.T, replica harness.Replica) map[string]*dto.MetricFamily {
	t.Helper()
	response := fetch(t, http.MethodGet, replica.Metrics+"/metrics", http.NoBody)
	require.Equal(t, http.StatusOK, response.StatusCode)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	require.NoError(t, err)
	return families
}

// value returns the sum of the series with a label, or of all if label is "".
func value(family *dto.MetricFamily, label, want string) (sum float64) {
	for _, metric := range family.GetMetric() {
		matches := label == ""
		for _, pair := range metric.GetLabel() {
			matches = matches || pair.GetName() == label && pair.GetValue() == want
		}
		if matches {
			sum += metric.GetGauge().GetValue() + metric.GetCounter().GetValue() // one of them is nil, and 0
		}
	}
	return sum
}
