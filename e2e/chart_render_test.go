package e2e

import (
	"errors"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"helm.sh/helm/v4/pkg/chart/common"
	chartutil "helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// chartDir is the chart, below the root of the repository.
const chartDir = "charts/binder-deploy-kubernetes"

func loadChart(t *testing.T) *chart.Chart {
	t.Helper()
	loaded, err := loader.Load(filepath.Join("..", chartDir))
	require.NoError(t, err)
	return loaded
}

// executeChart executes the chart's templates as helm template does. It returns the result
// of each template.
func executeChart(t *testing.T, namespace string, values map[string]any) (map[string]string, error) {
	t.Helper()
	loaded := loadChart(t)
	options := common.ReleaseOptions{Name: "test", Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(loaded, values, options, common.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	return engine.Render(loaded, all)
}

// renderChart returns the objects of the chart.
func renderChart(t *testing.T, namespace string, values map[string]any) []*unstructured.Unstructured {
	t.Helper()
	files, err := executeChart(t, namespace, values)
	require.NoError(t, err)
	var objects []*unstructured.Unstructured
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasSuffix(path, ".yaml") {
			continue
		}
		decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(files[path]), 4096)
		for {
			object := &unstructured.Unstructured{}
			err := decoder.Decode(&object.Object)
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err, "%s:\n%s", path, files[path])
			if len(object.Object) > 0 {
				objects = append(objects, object)
			}
		}
	}
	require.NotEmpty(t, objects)
	return objects
}

// chartValues returns the values that do what components do.
func chartValues(t *testing.T, components ...string) map[string]any {
	t.Helper()
	enabled := func() map[string]any { return map[string]any{"enabled": true} } // Helm adds defaults to it
	domain := strings.TrimPrefix(instanceHosts, "*.")
	proxies := []any{"192.0.2.0/24"}
	byComponent := map[string]map[string]any{
		"cert-manager":                {"certManager": enabled()},
		"cert-manager-instance-hosts": {"certManager": enabled(), "publicHost": publicHost, "instanceDomain": domain},
		"gateway":                     {"gateway": map[string]any{"enabled": true, "className": "example"}, "publicHost": publicHost, "trustedProxies": proxies},
		"headroom":                    {"headroom": enabled()},
		"horizontal-pod-autoscaler":   {"autoscaling": enabled()},
		"ingress":                     {"ingress": enabled(), "publicHost": publicHost, "trustedProxies": proxies},
		"monitoring":                  {"monitoring": enabled()},
		"start-logs":                  {"startLogs": enabled()},
		"instance-hosts":              {"publicHost": publicHost, "instanceDomain": domain},
	}
	values := map[string]any{}
	for _, component := range components {
		require.Contains(t, byComponent, component, "the chart does not have the component")
		maps.Copy(values, byComponent[component])
	}
	return values
}
