package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	grafana "github.com/grafana/grafana-foundation-sdk/go/dashboard"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/dashboard"
)

const monitoringDir = "../manifests/components/monitoring"

// readStrictly reads a manifest that has no field which its type lacks.
func readStrictly[T any](t testing.TB, name string) (object T) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(monitoringDir, name))
	require.NoError(t, err)
	require.NoError(t, yaml.UnmarshalStrict(data, &object), name)
	return object
}

// writeRules writes the alerts to a file of Prometheus' own format.
func writeRules(t testing.TB, path string) monitoringv1.PrometheusRuleSpec {
	t.Helper()
	rule := readStrictly[monitoringv1.PrometheusRule](t, "prometheusrule.yaml")
	data, err := yaml.Marshal(rule.Spec)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return rule.Spec
}

// promtool runs Prometheus' own tool.
func promtool(t testing.TB, stdin string, args ...string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), "promtool", args...)
	command.Stdin = strings.NewReader(stdin)
	output, err := command.CombinedOutput()
	require.NoError(t, err, "the tests of monitoring need Prometheus (apt-get install prometheus): promtool %s\n%s", strings.Join(args, " "), output)
}

// TestAlerts runs testdata/alerts.yaml, which has each alert fire.
func TestAlerts(t *testing.T) {
	dir := t.TempDir()
	spec := writeRules(t, filepath.Join(dir, "rules.yaml"))
	cases, err := os.ReadFile("testdata/alerts.yaml")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "alerts.yaml"), cases, 0o600))
	promtool(t, "", "check", "rules", "--lint=all", "--lint-fatal", filepath.Join(dir, "rules.yaml"))
	promtool(t, "", "test", "rules", filepath.Join(dir, "alerts.yaml"))

	runbook, err := os.ReadFile("../docs/runbook.md")
	require.NoError(t, err)
	sections := strings.Split(string(runbook), "\n## ")[1:]
	var alerts, headings []string
	for _, section := range sections {
		heading, text, _ := strings.Cut(section, "\n")
		headings = append(headings, heading)
		for _, part := range []string{"Meaning", "Likely causes", "Look at", "Cure"} {
			assert.Contains(t, text, "\n**"+part+".** ", heading)
		}
	}
	for _, group := range spec.Groups {
		for _, rule := range group.Rules {
			alerts = append(alerts, rule.Alert)
			assert.True(t, strings.HasSuffix(rule.Annotations["runbook_url"], "/docs/runbook.md#"+strings.ToLower(rule.Alert)), rule.Alert)
			assert.Regexp(t, `(?s)alertname: `+rule.Alert+`\n\s+eval_time: \w+\n\s+exp_alerts:( \[\{|\n\s+- exp_labels)`, string(cases), "no test has the alert fire")
		}
	}
	assert.Equal(t, alerts, headings, "docs/runbook.md must have an entry for each alert, in their order")
}

// TestMonitoringKnowsItsMetrics checks that the alerts, the dashboard and the questions ask for
// metrics that there are.
func TestMonitoringKnowsItsMetrics(t *testing.T) {
	known := map[string]bool{"up": true}
	for _, name := range documentedMetrics(t) {
		known[name] = true
	}
	var asked []string
	for _, group := range readStrictly[monitoringv1.PrometheusRule](t, "prometheusrule.yaml").Spec.Groups {
		for _, rule := range group.Rules {
			asked = append(asked, rule.Expr.String())
		}
	}
	panels, err := dashboard.Panels(readDashboard(t), nil)
	require.NoError(t, err)
	for _, panel := range panels {
		for _, query := range panel.Queries {
			asked = append(asked, query.Expression)
		}
	}
	for _, queries := range questions(t) {
		asked = append(asked, queries...)
	}
	require.Greater(t, len(asked), 70)
	for _, expression := range asked {
		for _, name := range regexp.MustCompile(`\b(binder|rest_client|workqueue)_[a-z_]+`).FindAllString(expression, -1) {
			assert.True(t, known[name] || known[regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")], "%s in %s", name, expression)
		}
	}
}

// TestDashboard checks the dashboard as Grafana reads it: no field that its version of the
// schema lacks, and panels that neither overlap nor leave the grid.
func TestDashboard(t *testing.T) {
	board := readDashboard(t)
	noProblems(t, board.Validate())
	assert.EqualValues(t, 39, board.SchemaVersion)
	type cell struct{ x, y uint32 }
	taken, ids := map[cell]string{}, map[uint32]bool{}
	for _, panel := range panelsOf(t, board) {
		title := *panel.Title
		assert.False(t, ids[*panel.Id], "%s: its id is another's", title)
		ids[*panel.Id] = true
		assert.NotEmpty(t, *panel.Description, title)
		assert.NotEmpty(t, *panel.FieldConfig.Defaults.Unit, title)
		assert.Contains(t, []string{"timeseries", "stat"}, panel.Type, title)
		at := panel.GridPos
		assert.LessOrEqual(t, at.X+at.W, uint32(24), title)
		for x := range at.W {
			for y := range at.H {
				place := cell{at.X + x, at.Y + y}
				assert.Empty(t, taken[place], "%s overlaps another panel", title)
				taken[place] = title
			}
		}
	}
}

func readDashboard(t testing.TB) (board dashboard.Board) {
	t.Helper()
	plugins.RegisterDefaultPlugins()
	data, err := os.ReadFile(filepath.Join(monitoringDir, "dashboard.json"))
	require.NoError(t, err)
	noProblems(t, new(dashboard.Board).UnmarshalJSONStrict(data))
	require.NoError(t, json.Unmarshal(data, &board))
	return board
}

// noProblems checks an error of the Grafana SDK, which is a list that can be empty.
func noProblems(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		require.Empty(t, err.Error())
	}
}

// panelsOf returns the panels without the rows between them.
func panelsOf(t testing.TB, board dashboard.Board) (panels []grafana.Panel) {
	t.Helper()
	for _, each := range board.Panels {
		if each.Panel != nil {
			panels = append(panels, *each.Panel)
		} else {
			require.NotNil(t, each.RowPanel)
		}
	}
	require.NotEmpty(t, panels)
	return panels
}

// TestOperatorsQuestions checks that the page has the questions, so that the test on the
// cluster has what to ask.
func TestOperatorsQuestions(t *testing.T) {
	assert.GreaterOrEqual(t, len(questions(t)), 20)
}

// questions returns the queries of docs/operate.md, by their question.
func questions(t testing.TB) map[string][]string {
	t.Helper()
	section := operateSection(t, "### Questions and queries")
	all := map[string][]string{}
	for _, row := range regexp.MustCompile(`(?m)^\| (.+\?) \| (.+) \|$`).FindAllStringSubmatch(section, -1) {
		for _, query := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[2], -1) {
			all[row[1]] = append(all[row[1]], strings.ReplaceAll(query[1], `\|`, "|")) // as the table's cells need it
		}
	}
	return all
}

// operateSection returns the text of docs/operate.md below a heading, up to the next heading of
// its level.
func operateSection(t testing.TB, heading string) string {
	t.Helper()
	page, err := os.ReadFile("../docs/operate.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(page), "\n"+heading+"\n")
	require.True(t, found, heading)
	level, _, _ := strings.Cut(heading, " ")
	section, _, _ = strings.Cut(section, "\n"+level+" ")
	return section
}

// documentedMetrics returns the names in docs/metrics.md, sorted.
func documentedMetrics(t testing.TB) (names []string) {
	t.Helper()
	page, err := os.ReadFile("../docs/metrics.md")
	require.NoError(t, err)
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		names = append(names, row[1])
	}
	slices.Sort(names)
	return names
}
