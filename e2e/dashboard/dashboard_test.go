package dashboard

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const board = `{
	"title": "A board", "schemaVersion": 39,
	"panels": [
		{"id": 1, "type": "row", "title": "A row", "collapsed": false, "panels": [], "gridPos": {"x": 0, "y": 0, "w": 24, "h": 1}},
		{"id": 2, "type": "timeseries", "title": "Stacked", "gridPos": {"x": 8, "y": 1, "w": 8, "h": 8},
			"fieldConfig": {"defaults": {"unit": "s", "custom": {"stacking": {"mode": "normal"}}}, "overrides": []},
			"targets": [{"refId": "A", "datasource": {"type": "prometheus"}, "expr": "rate(x{t=~\"$t\"}[$__rate_interval])", "legendFormat": "{{t}} {{none}} of <b>"}]},
		{"id": 3, "type": "stat", "title": "None", "gridPos": {"x": 0, "y": 9, "w": 4, "h": 4}, "fieldConfig": {"defaults": {"unit": "short"}, "overrides": []},
			"targets": [{"refId": "A", "datasource": {"type": "prometheus"}, "expr": "nothing"}]}
	]
}`

func TestDraw(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	var from Board
	require.NoError(t, json.Unmarshal([]byte(board), &from))
	panels, err := Panels(from, map[string]string{"$t": ".*", "$__rate_interval": "1m"})
	require.NoError(t, err)
	assert.Equal(t, []Panel{
		{Title: "A row", Type: Row, W: 24, H: 1},
		{Title: "Stacked", Type: TimeSeries, Unit: "s", Stacked: true, X: 8, Y: 1, W: 8, H: 8, Queries: []Query{{`rate(x{t=~".*"}[1m])`, "{{t}} {{none}} of <b>"}}},
		{Title: "None", Type: Stat, Unit: "short", Y: 9, W: 4, H: 4, Queries: []Query{{"nothing", "None"}}},
	}, panels)

	start := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	page, err := Draw(panels, func(expression string) (model.Matrix, error) {
		if expression == "nothing" {
			return nil, nil
		}
		stream := func(name model.LabelValue, value model.SampleValue) *model.SampleStream {
			return &model.SampleStream{Metric: model.Metric{"t": name}, Values: []model.SamplePair{
				{Timestamp: model.TimeFromUnixNano(start.UnixNano()), Value: value}, {Timestamp: model.TimeFromUnixNano(start.Add(time.Minute).UnixNano()), Value: value},
			}}
		}
		return model.Matrix{stream("a", 60), stream("b", 180)}, nil
	}, prometheus.Range{Start: start, End: start.Add(2 * time.Minute), Step: time.Minute})
	require.NoError(t, err)
	for _, want := range []string{
		"A row", "a of &lt;b&gt; 60 s", "b of &lt;b&gt; 3 min", ">4 min<", "12:02:00", // the axis ends at the sum of both
		`M0.0 100h0.1L0.0 100L145.0 100"`, `M0.0 10h0.1L0.0 10L145.0 10"`,
	} {
		assert.Contains(t, string(page), want)
	}
	assert.Equal(t, 1, strings.Count(string(page), "panel empty"))
}
