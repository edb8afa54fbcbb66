package dashboard

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"regexp"
	"strings"
	"time"

	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

//go:embed page.html
var page string

// The size of a chart without its axes, in pixels, and its cell in the grid.
const (
	cellWidth, cellHeight = 46, 30
	chartMargin           = 58 // of the labels on the left
	chartHeight           = 130
)

// chart is one panel as the page shows it.
type chart struct {
	Panel
	Width, Height int // of the drawing
	Series        []line
	Ticks         []tick
	From, To      string // times
	Value         string // of a stat
}

// Empty reports whether there is nothing to draw.
func (c chart) Empty() bool { return c.Type != Row && len(c.Series) == 0 }

// Place returns where the panel is in the page's grid, in CSS.
func (c chart) Place() template.CSS {
	return template.CSS(fmt.Sprintf("grid-column: %d / span %d; grid-row: %d / span %d", c.X+1, c.W, c.Y+1, c.H))
}

type line struct {
	Name, Last string
	Color      string
	Path       string // in SVG
	values     []float64
}

type tick struct {
	Y     int
	Label string
}

// Draw returns a page with the panels. ask answers a query for the span.
func Draw(panels []Panel, ask func(expression string) (model.Matrix, error), span prometheus.Range) ([]byte, error) {
	var charts []chart
	for _, panel := range panels {
		c := chart{Panel: panel, Width: int(panel.W)*cellWidth - chartMargin - 20, Height: chartHeight, From: clock(span.Start), To: clock(span.End)}
		for _, query := range panel.Queries {
			answer, err := ask(query.Expression)
			if err != nil {
				return nil, fmt.Errorf("panel %q: %w", panel.Title, err)
			}
			for _, stream := range answer {
				if values, some := spread(stream, span); some {
					c.Series = append(c.Series, line{Name: named(query.Legend, stream.Metric), values: values})
				}
			}
		}
		c.draw()
		charts = append(charts, c)
	}
	var out bytes.Buffer
	err := template.Must(template.New("page").Parse(page)).Execute(&out, struct {
		Charts                []chart
		CellWidth, CellHeight int
	}{charts, cellWidth, cellHeight})
	if err != nil {
		return nil, fmt.Errorf("write the page: %w", err)
	}
	return out.Bytes(), nil
}

func clock(at time.Time) string { return at.Format("15:04:05") }

// spread returns the values of a stream at each step of the span; NaN where there is none.
// some says whether there is one.
func spread(stream *model.SampleStream, span prometheus.Range) (values []float64, some bool) {
	for range int(span.End.Sub(span.Start)/span.Step) + 1 {
		values = append(values, math.NaN())
	}
	for _, sample := range stream.Values {
		i := int(sample.Timestamp.Time().Sub(span.Start).Round(span.Step) / span.Step)
		if value := float64(sample.Value); i >= 0 && i < len(values) && !math.IsNaN(value) && !math.IsInf(value, 0) {
			values[i], some = value, true
		}
	}
	return values, some
}

// named fills a legend in with the labels of a series.
func named(legend string, labels model.Metric) string {
	name := regexp.MustCompile(`{{(\w+)}}`).ReplaceAllStringFunc(legend, func(part string) string {
		return string(labels[model.LabelName(strings.Trim(part, "{}"))])
	})
	return strings.Join(strings.Fields(name), " ")
}

// draw computes the lines and the axis of a panel.
func (c *chart) draw() {
	colors := []string{"#3274d9", "#56a64b", "#e02f44", "#ff9830", "#8f3bb8", "#1a9ba8", "#b5882b", "#7c8591"}
	top := 0.0
	below := make([]float64, 0)
	for i := range c.Series {
		series := &c.Series[i]
		series.Color = colors[i%len(colors)]
		last := math.NaN()
		for j, value := range series.values {
			if !math.IsNaN(value) {
				last = value
			}
			if len(below) <= j {
				below = append(below, 0)
			}
			if c.Stacked && !math.IsNaN(value) {
				below[j] += value
				series.values[j] = below[j]
			}
			if !math.IsNaN(series.values[j]) {
				top = max(top, series.values[j])
			}
		}
		series.Last = c.format(last)
		c.Value = series.Last
	}
	if top == 0 {
		top = 1
	}
	for _, share := range []float64{0, 0.5, 1} {
		c.Ticks = append(c.Ticks, tick{c.y(share*top, top), c.format(share * top)})
	}
	for i := range c.Series {
		c.Series[i].Path = c.path(c.Series[i].values, top)
	}
}

func (c *chart) y(value, top float64) int {
	return int(float64(c.Height) - value/top*float64(c.Height-10))
}

// path draws the values. A gap between them breaks the line, and a value between two gaps
// is a dot.
func (c *chart) path(values []float64, top float64) string {
	var path strings.Builder
	command := "M"
	for i, value := range values {
		if math.IsNaN(value) {
			command = "M"
			continue
		}
		x, y := float64(i)/float64(max(1, len(values)-1))*float64(c.Width), c.y(value, top)
		if command == "M" {
			fmt.Fprintf(&path, "M%.1f %dh0.1", x, y)
		}
		fmt.Fprintf(&path, "L%.1f %d", x, y)
		command = "L"
	}
	return path.String()
}

// format writes a value with its unit.
func (c *chart) format(value float64) string {
	switch c.Unit {
	case "s":
		switch {
		case value >= 120:
			return fmt.Sprintf("%.3g min", value/60)
		case value > 0 && value < 1:
			return fmt.Sprintf("%.3g ms", value*1000)
		}
		return fmt.Sprintf("%.3g s", value)
	case "percentunit":
		return fmt.Sprintf("%.3g%%", value*100)
	case "bytes", "Bps":
		per := map[string]string{"bytes": "", "Bps": "/s"}[c.Unit]
		if value >= 1<<20 {
			return fmt.Sprintf("%.3g MiB%s", value/(1<<20), per)
		}
		return fmt.Sprintf("%.3g KiB%s", value/(1<<10), per)
	case "reqps":
		return fmt.Sprintf("%.3g/s", value)
	}
	return fmt.Sprintf("%.3g", value)
}
