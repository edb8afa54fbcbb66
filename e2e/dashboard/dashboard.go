// Package dashboard draws a Grafana dashboard without Grafana, with the answers of a
// Prometheus: so one sees whether its panels say what they should. It knows the kinds of
// panels that this project's dashboard has, and nothing of their looks beyond that.
package dashboard

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// The types of panels that Draw knows.
const (
	Row        = "row"
	Stat       = "stat"
	TimeSeries = "timeseries"
)

// Board is a dashboard as Grafana has written it up to schema version 41, and reads it still.
//
//lint:ignore SA1019 dashboardv2 is another format, which only newer ones read
type Board = dashboard.Dashboard

// Panel is one panel, or a row between panels.
type Panel struct {
	Title, Type string
	Unit        string // Grafana's name of it
	Stacked     bool
	X, Y, W, H  uint32 // in cells of Grafana's grid, which is 24 cells wide
	Queries     []Query
}

// Query is what a panel asks.
type Query struct {
	Expression string // in PromQL
	Legend     string // names a series: {{label}} stands for the value of a label
}

// Panels returns the panels of a dashboard, in their order. variables are the values of its
// variables, and of Grafana's own, by their names with the dollar sign.
func Panels(board Board, variables map[string]string) ([]Panel, error) {
	var replace []string
	for name, value := range variables {
		replace = append(replace, name, value)
	}
	expand := strings.NewReplacer(replace...)
	var all []Panel
	for _, each := range board.Panels {
		if row := each.RowPanel; row != nil {
			all = append(all, Panel{Title: *row.Title, Type: Row, X: row.GridPos.X, Y: row.GridPos.Y, W: row.GridPos.W, H: row.GridPos.H})
			continue
		}
		from := each.Panel
		panel := Panel{
			Title: *from.Title, Type: from.Type, Unit: *from.FieldConfig.Defaults.Unit,
			X: from.GridPos.X, Y: from.GridPos.Y, W: from.GridPos.W, H: from.GridPos.H,
		}
		if custom, ok := from.FieldConfig.Defaults.Custom.(*timeseries.FieldConfig); ok && custom.Stacking != nil {
			panel.Stacked = string(*custom.Stacking.Mode) == "normal"
		}
		for _, target := range from.Targets {
			query, ok := target.(*prometheus.Dataquery)
			if !ok {
				return nil, fmt.Errorf("panel %q: a query is of type %T", panel.Title, target)
			}
			legend := ""
			if query.LegendFormat != nil {
				legend = *query.LegendFormat
			}
			panel.Queries = append(panel.Queries, Query{expand.Replace(query.Expr), cmp.Or(legend, panel.Title)})
		}
		all = append(all, panel)
	}
	return all, nil
}
