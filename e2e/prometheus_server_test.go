//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	promapi "github.com/prometheus/client_golang/api"
	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// startPrometheus starts Prometheus on this machine. It scrapes what the PodMonitor selects,
// and evaluates the shipped alerts.
func startPrometheus(t *testing.T) prometheus.API {
	t.Helper()
	dir := t.TempDir()
	writeRules(t, filepath.Join(dir, "rules.yaml"))
	config, err := yaml.Marshal(map[string]any{
		"global":         map[string]any{"scrape_interval": monitorPeriod.String(), "evaluation_interval": monitorPeriod.String()},
		"rule_files":     []string{"rules.yaml"},
		"scrape_configs": []any{scrapeConfig(t, readStrictly[monitoringv1.PodMonitor](t, "podmonitor.yaml"))},
	})
	require.NoError(t, err)
	path := filepath.Join(dir, "prometheus.yaml")
	require.NoError(t, os.WriteFile(path, config, 0o600))
	promtool(t, "", "check", "config", path)

	address := "127.0.0.1:" + freePort(t)
	startProgram(t, exec.CommandContext(t.Context(), "prometheus", "--config.file="+path, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--log.level=warn"))
	client, err := promapi.NewClient(promapi.Config{Address: "http://" + address})
	require.NoError(t, err)
	server := prometheus.NewAPI(client)
	harness.Until(t, time.Minute, "Prometheus scrapes both replicas", func(ctx context.Context) error {
		samples, err := query(ctx, server, `up == 1`)
		if err == nil && len(samples) != 2 {
			err = fmt.Errorf("it has %v", samples)
		}
		return err
	})
	return server
}

// scrapeConfig returns what the Prometheus operator makes of a PodMonitor, in the namespace
// of the tests. A field that it does not know fails the test.
func scrapeConfig(t *testing.T, monitor monitoringv1.PodMonitor) map[string]any {
	t.Helper()
	require.Len(t, monitor.Spec.PodMetricsEndpoints, 1)
	endpoint := monitor.Spec.PodMetricsEndpoints[0]
	known := monitoringv1.PodMonitorSpec{
		JobLabel: monitor.Spec.JobLabel, Selector: monitor.Spec.Selector, PodMetricsEndpoints: []monitoringv1.PodMetricsEndpoint{
			{Port: endpoint.Port, Path: endpoint.Path, Interval: endpoint.Interval, RelabelConfigs: endpoint.RelabelConfigs},
		},
	}
	require.Equal(t, known, monitor.Spec, "this test does not know all of it")
	var relabel []any
	for label, value := range monitor.Spec.Selector.MatchLabels {
		relabel = append(relabel, map[string]any{"action": "keep", "source_labels": []string{metaLabel(label)}, "regex": regexp.QuoteMeta(value)})
	}
	relabel = append(relabel,
		map[string]any{"action": "keep", "source_labels": []string{"__meta_kubernetes_pod_container_port_name"}, "regex": *endpoint.Port},
		map[string]any{"source_labels": []string{"__meta_kubernetes_namespace"}, "target_label": "namespace"},
		map[string]any{"source_labels": []string{"__meta_kubernetes_pod_name"}, "target_label": "pod"},
		map[string]any{"source_labels": []string{metaLabel(monitor.Spec.JobLabel)}, "target_label": "job"})
	for _, rule := range endpoint.RelabelConfigs {
		require.Equal(t, monitoringv1.RelabelConfig{SourceLabels: rule.SourceLabels, TargetLabel: rule.TargetLabel}, rule, "this test does not know all of it")
		relabel = append(relabel, map[string]any{"source_labels": rule.SourceLabels, "target_label": rule.TargetLabel})
	}
	return map[string]any{
		"job_name": "pods", "metrics_path": endpoint.Path, "relabel_configs": relabel,
		"http_sd_configs": []any{map[string]any{"url": servePods(t), "refresh_interval": "5s"}},
	}
}

// servePods serves the ports of the pods in the service's namespace as targets, with the
// labels that Prometheus' own discovery of pods gives them. Debian's Prometheus has none.
func servePods(t *testing.T) (url string) {
	t.Helper()
	type target struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		pods, err := suite.Kube.Client.CoreV1().Pods(harness.Namespace).List(r.Context(), metav1.ListOptions{})
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		targets := []target{}
		for _, pod := range pods.Items {
			for _, container := range pod.Spec.Containers {
				for _, port := range container.Ports {
					labels := map[string]string{
						"__meta_kubernetes_namespace": pod.Namespace, "__meta_kubernetes_pod_name": pod.Name, "__meta_kubernetes_pod_node_name": pod.Spec.NodeName,
						"__meta_kubernetes_pod_container_port_name": port.Name,
					}
					for name, value := range pod.Labels {
						labels[metaLabel(name)] = value
					}
					address := net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(port.ContainerPort)))
					targets = append(targets, target{[]string{address}, labels})
				}
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(targets)
	})
}

// metaLabel is the label under which Prometheus' discovery gives a label of a pod.
func metaLabel(name string) string {
	return "__meta_kubernetes_pod_label_" + regexp.MustCompile(`[^a-zA-Z0-9_]`).ReplaceAllString(name, "_")
}

// serve serves on this machine until the test ends, and returns the address.
func serve(t *testing.T, handler http.HandlerFunc) (url string) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}
