//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	promapi "github.com/prometheus/client_golang/api"
	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/dashboard"
	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

const (
	// monitorPeriod is how often Prometheus scrapes in the test, and rateWindow what Grafana
	// would choose for the rates: four times as long, and a bit more.
	monitorPeriod = 2 * time.Second
	rateWindow    = 30 * time.Second
	// dashboardTime is for how long there is traffic before the dashboard is drawn. The
	// variable BINDER_E2E_DASHBOARD sets a longer one, for the picture in docs.
	dashboardTime = 40 * time.Second
	// monitoringWait bounds the wait for data: a failed instance is ended after a minute, and
	// uses are written after some seconds.
	monitoringWait = 3 * time.Minute
)

// TestPrometheus collects the metrics of both replicas with a real Prometheus, as the
// shipped PodMonitor says, and asks all that the dashboard, the alerts and docs/operate.md
// ask.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	server := startPrometheus(t)
	began := time.Now()
	useService(t, began.Add(trafficTime(t)))

	t.Run("every query returns data", func(t *testing.T) {
		all := allQueries(t)
		harness.Until(t, monitoringWait, "all queries have data", func(ctx context.Context) error {
			var missing []error
			for name, queries := range all {
				for _, query := range queries {
					if err := hasData(ctx, server, query); err != nil {
						missing = append(missing, fmt.Errorf("%s: %w: %s", name, err, query))
					}
				}
			}
			return errors.Join(missing...)
		})
	})
	t.Run("both replicas are scraped", func(t *testing.T) {
		var names, scraped []string
		for _, replica := range suite.Replicas(t) {
			names = append(names, replica.Name)
			response := fetch(t, http.MethodGet, replica.Metrics+"/metrics", http.NoBody)
			page, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			promtool(t, string(page), "check", "metrics")
		}
		for _, sample := range ask(t, server, `binder_build_info`) {
			scraped = append(scraped, string(sample.Metric["instance"]))
			assert.EqualValues(t, "binder-deploy-kubernetes", sample.Metric["job"])
			assert.NotEmpty(t, sample.Metric["node"])
			assert.Equal(t, sample.Metric["instance"], sample.Metric["pod"], "the autoscaler's rule needs it")
			assert.EqualValues(t, harness.Namespace, sample.Metric["namespace"])
		}
		assert.ElementsMatch(t, names, scraped)
	})
	t.Run("the docs have every metric and no other", func(t *testing.T) {
		found := map[string]bool{}
		for _, sample := range ask(t, server, `{__name__=~"(binder|rest_client|workqueue)_.+"}`) {
			name := string(sample.Metric["__name__"])
			if _, histogram := sample.Metric["le"]; histogram || regexp.MustCompile(`_(sum|count)$`).MatchString(name) {
				name = regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
			}
			found[name] = true
		}
		var names []string
		for name := range found {
			names = append(names, name)
		}
		slices.Sort(names)
		assert.Equal(t, documentedMetrics(t), names)
	})
	t.Run("made-up names make no series", func(t *testing.T) {
		assert.Empty(t, ask(t, server, `count by (__name__) ({template=~"made-up.*"})`))
		assert.NotEmpty(t, ask(t, server, `binder_launches_total{template="other", result="unknown_template"} > 0`))
	})
	t.Run("the dashboard", func(t *testing.T) { drawDashboard(t, server, began) })
}

// trafficTime returns for how long there is traffic.
func trafficTime(t *testing.T) time.Duration {
	text := os.Getenv("BINDER_E2E_DASHBOARD")
	if text == "" {
		return dashboardTime
	}
	longer, err := time.ParseDuration(text)
	require.NoError(t, err, "BINDER_E2E_DASHBOARD must be a duration, such as 10m")
	return longer
}

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

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
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

// useService does what people do, until a time: it launches, warm and cold, visits, stops, and
// asks for what there is not.
func useService(t *testing.T, until time.Time) {
	t.Helper()
	const warm, broken = "echo-monitored", "echo-unstartable"
	newPool(t, warm, 1)
	suite.CopyTemplate(t, "echo", broken, func(template *corev1.PodTemplate) {
		template.Template.Spec.Containers[0].Command = []string{"/no-such-program"}
	})
	suite.Launch(t, broken, harness.LongTimeout)
	awaitWarm(t, warm, 1, anyPod)
	for round := 0; round == 0 || time.Now().Before(until); round++ {
		suite.API.Do(t, http.MethodPost, fmt.Sprintf("/applications/made-up-%d", round), "")
		for _, template := range []string{warm, "echo"} {
			instance := suite.Launch(t, template, time.Minute).AwaitDeployed(t)
			visit(t, http.MethodPost, instance.URL("/"), []byte("hello"))
			visit(t, http.MethodGet, instance.URL("/status?code=500"), nil)
			socket, _, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(instance.URL("/ws"), "http"), nil)
			require.NoError(t, err)
			require.NoError(t, socket.Write(t.Context(), websocket.MessageText, []byte("hello")))
			_, _, err = socket.Read(t.Context())
			require.NoError(t, err)
			require.NoError(t, socket.Close(websocket.StatusNormalClosure, ""))
			awaitWrittenUse(t, instance)
			suite.API.Do(t, http.MethodDelete, "/applications/"+template+"/"+instance.ID, "", "Authorization", suite.API.Key())
			visit(t, http.MethodGet, instance.URL("/"), nil)
		}
		visit(t, http.MethodGet, "http://"+harness.PublicHost+"/user/made-up/", nil)
	}
}

// awaitWrittenUse uses an instance until that is written to its pod, after a twelfth of its
// cull timeout.
func awaitWrittenUse(t *testing.T, instance *harness.Instance) {
	t.Helper()
	const annotation = "binder-project.org/last-activity"
	first := instance.Pod(t).Annotations[annotation]
	harness.Until(t, 30*time.Second, "a use is written", func(context.Context) error {
		visit(t, http.MethodGet, instance.URL("/"), nil)
		if instance.Pod(t).Annotations[annotation] == first {
			return fmt.Errorf("it is %s still", first)
		}
		return nil
	})
}

// allQueries returns the queries of the alerts, of the dashboard, and of docs/operate.md. Of an
// alert, each alternative is taken without what it is compared with and without errors, because
// it usually does not fire.
func allQueries(t *testing.T) map[string][]string {
	t.Helper()
	all := questions(t)
	for _, group := range readStrictly[monitoringv1.PrometheusRule](t, "prometheusrule.yaml").Spec.Groups {
		for _, rule := range group.Rules {
			for _, part := range regexp.MustCompile(`\s+or `).Split(rule.Expr.String(), -1) {
				part, _, _ = strings.Cut(part, " and ")
				part = strings.ReplaceAll(part, `code=~"5..|429|<error>"`, `code=~".+"`)
				if part = regexp.MustCompile(`\s(>|==)\s+[0-9.]+( \+ .+)?`).ReplaceAllString(part, ""); !strings.HasPrefix(part, "absent(") {
					all[rule.Alert] = append(all[rule.Alert], part)
				}
			}
		}
	}
	for _, panel := range dashboardPanels(t) {
		for _, target := range panel.Queries {
			all["panel "+panel.Title] = append(all["panel "+panel.Title], target.Expression)
		}
	}
	return all
}

func dashboardPanels(t *testing.T) []dashboard.Panel {
	t.Helper()
	panels, err := dashboard.Panels(readDashboard(t), map[string]string{"$__rate_interval": rateWindow.String(), "$template": ".*", "$namespace": ".*"})
	require.NoError(t, err)
	return panels
}

// hasData checks that a query returns a number.
func hasData(ctx context.Context, server prometheus.API, expression string) error {
	samples, err := query(ctx, server, expression)
	if err != nil {
		return err
	}
	for _, sample := range samples {
		if !math.IsNaN(float64(sample.Value)) {
			return nil
		}
	}
	return fmt.Errorf("it has only %v", samples)
}

func query(ctx context.Context, server prometheus.API, expression string) (model.Vector, error) {
	value, _, _, err := server.Query(ctx, expression, time.Now())
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", expression, err)
	}
	vector, ok := value.(model.Vector)
	if !ok {
		return nil, fmt.Errorf("query %s: it returned a %s", expression, value.Type())
	}
	return vector, nil
}

func ask(t *testing.T, server prometheus.API, expression string) model.Vector {
	t.Helper()
	samples, err := query(t.Context(), server, expression)
	require.NoError(t, err)
	return samples
}

// drawDashboard draws the dashboard with what Prometheus answers, as a picture of what one
// will see: Grafana itself is not there.
func drawDashboard(t *testing.T, server prometheus.API, began time.Time) {
	span := prometheus.Range{Start: began, End: time.Now(), Step: max(monitorPeriod, time.Since(began)/200)}
	page, err := dashboard.Draw(dashboardPanels(t), func(expression string) (model.Matrix, error) {
		value, _, _, err := server.QueryRange(t.Context(), expression, span)
		if err != nil {
			return nil, fmt.Errorf("query %s: %w", expression, err)
		}
		return value.(model.Matrix), nil // as the API promises of ranges
	}, span)
	require.NoError(t, err)
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page)
	})
	b := openBrowser(t)
	b.open(url)
	assert.Equal(t, len(panelsOf(t, readDashboard(t))), eval[int](b, `document.querySelectorAll("section.panel").length`))
	assert.Equal(t, 0, eval[int](b, `document.querySelectorAll("section.panel.empty").length`), "panels without data")
	picture, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100)) // as PNG
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(screenshotDir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(screenshotDir, "dashboard.png"), picture, 0o644))
}
