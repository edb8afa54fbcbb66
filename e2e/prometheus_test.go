//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

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

// useService does what people do, until a time: it launches, warm and cold, visits, stops, and
// asks for what there is not.
func useService(t *testing.T, until time.Time) {
	t.Helper()
	const warm, broken = "echo-monitored", "echo-unstartable"
	newPool(t, warm, 1, func(template *corev1.PodTemplate) {
		template.Annotations["binder-project.org/max-instances"] = "5" // so that the leader gives places
	})
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
