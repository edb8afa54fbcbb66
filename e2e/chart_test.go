package e2e

import (
	"cmp"
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// The tests in this file are about the Helm chart. They need no cluster. Those in
// manifests_test.go hold for the chart as well.

// TestChartIsTheManifests compares the chart's objects with those of the manifests, by
// default and with the value that stands for each component.
func TestChartIsTheManifests(t *testing.T) {
	tested := map[string]bool{}
	for _, components := range [][]string{
		{},
		{"headroom"},
		{"start-logs"},
		{"horizontal-pod-autoscaler"},
		{"monitoring"},
		{"ingress"},
		{"ingress", "cert-manager"},
		{"ingress", "cert-manager", "cert-manager-instance-hosts", "instance-hosts"},
		{"gateway"},
		{"gateway", "cert-manager"},
		{"gateway", "cert-manager", "cert-manager-instance-hosts", "instance-hosts"},
		{"instance-hosts"},
		components(t),
	} {
		for _, component := range components {
			tested[component] = len(components) < 5 || tested[component]
		}
		t.Run("with "+strings.Join(components, "+"), func(t *testing.T) {
			manifests := comparable(t, source{dir: "manifests", components: components}.render(t))
			chart := comparable(t, renderChart(t, "binder", chartValues(t, components...)))

			// Helm makes the namespace of a release.
			assert.Contains(t, manifests, "Namespace /binder")
			delete(manifests, "Namespace /binder")
			// Those who apply the manifests make the Secrets.
			for _, name := range []string{"Secret binder/binder-api-key", "Secret binder/binder-secret"} {
				assert.Contains(t, chart, name)
				delete(chart, name)
			}
			assert.Equal(t, slices.Sorted(maps.Keys(manifests)), slices.Sorted(maps.Keys(chart)))
			for name, object := range manifests {
				assert.Equal(t, object, chart[name], name)
			}
		})
	}
	for _, component := range components(t) {
		assert.True(t, tested[component], "%s is not compared by itself", component)
	}
}

// comparable returns objects by kind and name, without the labels that only a chart can
// have. Environment variables are sorted, because their order means nothing here.
func comparable(t *testing.T, objects []*unstructured.Unstructured) map[string]any {
	t.Helper()
	found := map[string]any{}
	for _, object := range objects {
		labels := object.GetLabels()
		for _, label := range []string{"app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "helm.sh/chart"} {
			delete(labels, label)
		}
		object.SetLabels(labels)
		data, err := object.MarshalJSON()
		require.NoError(t, err)
		plain := map[string]any{}
		require.NoError(t, json.Unmarshal(data, &plain)) // all numbers become float64
		if object.GetKind() == "Deployment" {
			sortEnv(t, plain)
		}
		name := object.GetKind() + " " + object.GetNamespace() + "/" + object.GetName()
		assert.NotContains(t, found, name)
		found[name] = plain
	}
	return found
}

func sortEnv(t *testing.T, deployment map[string]any) {
	t.Helper()
	containers, _, err := unstructured.NestedFieldNoCopy(deployment, "spec", "template", "spec", "containers")
	require.NoError(t, err)
	for _, container := range containers.([]any) {
		env, _ := container.(map[string]any)["env"].([]any)
		slices.SortFunc(env, func(a, b any) int {
			return cmp.Compare(a.(map[string]any)["name"].(string), b.(map[string]any)["name"].(string))
		})
	}
}

// TestChartHasNoFindings lints the chart as helm lint does.
func TestChartHasNoFindings(t *testing.T) {
	for name, values := range map[string]map[string]any{"defaults": {}, "everything": chartValues(t, components(t)...)} {
		for _, message := range lint.RunAll(filepath.Join("..", chartDir), values, "binder").Messages {
			if message.Severity > support.InfoSev {
				t.Errorf("%s: %s", name, message)
			}
		}
	}
}

// TestChartValues checks what single values do.
func TestChartValues(t *testing.T) {
	for name, tc := range map[string]struct {
		values map[string]any
		want   []string
	}{
		"a digest counts before a tag": {
			map[string]any{"image": map[string]any{"repository": "r.example.com/b", "tag": "v1", "digest": "sha256:" + strings.Repeat("a", 64)}},
			[]string{"image: r.example.com/b@sha256:" + strings.Repeat("a", 64) + "\n"},
		},
		"variables are added": {
			map[string]any{"env": map[string]any{"BINDER_MAX_AGE": "6h", "BINDER_MAX_INSTANCES": 100}},
			[]string{"- name: BINDER_MAX_AGE\n              value: \"6h\"\n", "value: \"100\"\n", "- name: GOMEMLIMIT\n"},
		},
		"hosts have no port where none can be": {
			map[string]any{"publicHost": "b.example.com:8443", "instanceDomain": "u.example.com:8443", "ingress": map[string]any{"enabled": true}},
			[]string{"value: \"b.example.com:8443\"\n", "- host: b.example.com\n", "- host: \"*.u.example.com\"\n"},
		},
		"a type of the proxy's Service counts": {
			map[string]any{"publicHost": "b.example.com", "ingress": map[string]any{"enabled": true}, "service": map[string]any{"proxy": map[string]any{"type": "NodePort"}}},
			[]string{"\n  type: NodePort\n", "\n  externalTrafficPolicy: Local\n"},
		},
		"rules are added to the policies": {
			map[string]any{"networkPolicy": map[string]any{
				"ingress":         []any{map[string]any{"ports": []any{map[string]any{"port": 1001}}}},
				"egress":          []any{map[string]any{"ports": []any{map[string]any{"port": 1002}}}},
				"instancesEgress": []any{map[string]any{"ports": []any{map[string]any{"port": 1003}}}},
				"instancesExcept": []any{"198.18.0.1/32", "2a00:1::/32"},
			}},
			[]string{"    - ports:\n      - port: 1001\n  egress:\n", "\n    - ports:\n      - port: 1002\n", "\n    - ports:\n      - port: 1003\n", "except:\n              - 198.18.0.1/32\n", "except:\n              - 2a00:1::/32\n"},
		},
		"labels for the Prometheus operator": {
			map[string]any{"monitoring": map[string]any{"enabled": true, "labels": map[string]any{"release": "prometheus"}}},
			[]string{"component: monitoring\n    release: prometheus\n    app.kubernetes.io/part-of: binder\n"},
		},
		"ports of the controller": {
			map[string]any{"publicHost": "b.example.com", "instanceDomain": "u.example.com", "gateway": map[string]any{"enabled": true, "className": "c", "httpPort": 8001, "httpsPort": 8443}},
			[]string{"protocol: HTTP\n      port: 8001\n", "port: 8443\n      hostname: b.example.com\n", "port: 8443\n      hostname: \"*.u.example.com\"\n"},
		},
		"a pool of notebooks": {
			map[string]any{"jupyter": map[string]any{"poolSize": 2}},
			[]string{"binder-project.org/pool-size: \"2\"\n"},
		},
		"room on some nodes": {
			map[string]any{"headroom": map[string]any{"enabled": true, "replicas": 7, "nodeSelector": map[string]any{"pool": "instances"}}},
			[]string{"replicas: 7\n", "nodeSelector:\n        pool: instances\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			files, err := executeChart(t, "binder", tc.values)
			require.NoError(t, err)
			all := strings.Join(slices.Collect(maps.Values(files)), "\n")
			for _, want := range tc.want {
				assert.True(t, strings.Contains(all, want), "no template has %q", want)
			}
			decode(t, renderChart(t, "binder", tc.values))
		})
	}
}

// TestChartLeavesOut checks what values turn off.
func TestChartLeavesOut(t *testing.T) {
	for value, kind := range map[string]string{"jupyter.enabled": "PodTemplate", "secrets.create": "Secret", "instances.createNamespace": "Namespace"} {
		group, key, _ := strings.Cut(value, ".")
		for _, object := range renderChart(t, "binder", map[string]any{group: map[string]any{key: false}}) {
			assert.NotEqual(t, kind, object.GetKind(), value)
		}
	}
}

// TestChartNotes checks that the notes tell of what is missing.
func TestChartNotes(t *testing.T) {
	const noImage, oneClient, noSecret = "THE IMAGE DOES NOT EXIST", "ALL VISITORS COUNT AS ONE CLIENT", "waits for the Secrets"
	image := map[string]any{"repository": "r.example.com/b"}
	for name, tc := range map[string]struct {
		values map[string]any
		want   []string
	}{
		"defaults":       {nil, []string{noImage}},
		"an image":       {map[string]any{"image": image}, nil},
		"no Secrets":     {map[string]any{"image": image, "secrets": map[string]any{"create": false}}, []string{noSecret}},
		"unknown client": {map[string]any{"image": image, "publicHost": "b.example.com", "ingress": map[string]any{"enabled": true}}, []string{oneClient}},
	} {
		files, err := executeChart(t, "binder", tc.values)
		require.NoError(t, err)
		notes := files["binder-deploy-kubernetes/templates/NOTES.txt"]
		assert.Contains(t, notes, "rollout status", name)
		for _, text := range []string{noImage, oneClient, noSecret} {
			assert.Equal(t, slices.Contains(tc.want, text), strings.Contains(notes, text), "%s: %s", name, text)
		}
	}
}

// TestChartRefuses checks that mistakes in values are errors that name the value.
func TestChartRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		values map[string]any
		want   string
	}{
		"unknown":             {map[string]any{"replica": 2}, "replica"},
		"unknown below":       {map[string]any{"ingress": map[string]any{"enable": true}}, "/ingress"},
		"type":                {map[string]any{"replicas": "two"}, "/replicas"},
		"negative":            {map[string]any{"replicas": -1}, "/replicas"},
		"scheme in host":      {map[string]any{"publicHost": "https://b.example.com"}, "/publicHost"},
		"no public host":      {map[string]any{"ingress": map[string]any{"enabled": true}}, "/publicHost"},
		"only a domain":       {map[string]any{"instanceDomain": "u.example.com"}, "/publicHost"},
		"no gateway class":    {map[string]any{"publicHost": "b.example.com", "gateway": map[string]any{"enabled": true}}, "/gateway/className"},
		"quantity":            {map[string]any{"resources": map[string]any{"limits": map[string]any{"memory": "512MB"}}}, "/resources/limits/memory"},
		"digest":              {map[string]any{"image": map[string]any{"digest": "latest"}}, "/image/digest"},
		"pull policy":         {map[string]any{"image": map[string]any{"pullPolicy": "always"}}, "/image/pullPolicy"},
		"service type":        {map[string]any{"service": map[string]any{"proxy": map[string]any{"type": "ExternalName"}}}, "/service/proxy/type"},
		"network":             {map[string]any{"networkPolicy": map[string]any{"instancesExcept": []any{"192.0.2.1"}}}, "/networkPolicy/instancesExcept/0"},
		"variable of a value": {map[string]any{"env": map[string]any{"BINDER_PUBLIC_HOST": "b.example.com"}}, "BINDER_PUBLIC_HOST"},
		"key in a variable":   {map[string]any{"env": map[string]any{"BINDER_API_KEY": "0123456789abcdef"}}, "BINDER_API_KEY"},
		"one namespace":       {map[string]any{"instances": map[string]any{"namespace": "binder"}}, "instances.namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := executeChart(t, "binder", tc.values)
			assert.ErrorContains(t, err, tc.want)
		})
	}
}

// TestChartSchemaHasEveryValue checks that the schema knows the values of values.yaml, and
// no others.
func TestChartSchemaHasEveryValue(t *testing.T) {
	loaded := loadChart(t)
	var schema map[string]any
	require.NoError(t, json.Unmarshal(loaded.Schema, &schema))
	properties := schema["properties"].(map[string]any)
	delete(properties, "global") // Helm's own
	requireSameKeys(t, "", loaded.Values, schema)
}

// requireSameKeys compares a value with the properties that its schema lists, if it does.
func requireSameKeys(t *testing.T, path string, value any, schema map[string]any) {
	t.Helper()
	properties, listed := schema["properties"].(map[string]any)
	values, ok := value.(map[string]any)
	if !listed || !ok {
		return
	}
	known := slices.Sorted(maps.Keys(properties))
	if path == ".resources" { // as Kubernetes has them
		known = slices.DeleteFunc(known, func(key string) bool { return key == "claims" })
	}
	assert.Equal(t, slices.Sorted(maps.Keys(values)), known, path)
	for key, below := range values {
		if property, ok := properties[key].(map[string]any); ok {
			requireSameKeys(t, path+"."+key, below, property)
		}
	}
}
