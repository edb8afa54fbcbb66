package report

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Growth is what one replica costs with a number of instances.
type Growth struct {
	Instances int
	Heap      float64 // MiB in use after a collection of garbage
	Resident  float64 // MiB of RSS
	Start     float64 // seconds from the start of the process to ready
	List      float64 // milliseconds of GET of all instances
	Scrape    float64 // milliseconds of GET /metrics
}

// WriteGrowth writes the costs as a table in Markdown.
func WriteGrowth(w io.Writer, growth []Growth) error {
	if _, err := fmt.Fprint(w, "| instances | heap in use, MiB | RSS, MiB | start to ready, s | GET list of all, ms | GET /metrics, ms |\n|---|---|---|---|---|---|\n"); err != nil {
		return err
	}
	for _, g := range growth {
		if _, err := fmt.Fprintf(w, "| %d | %.1f | %.0f | %.2f | %.0f | %.1f |\n", g.Instances, g.Heap, g.Resident, g.Start, g.List, g.Scrape); err != nil {
			return err
		}
	}
	return nil
}

// The size of one curve's picture.
const (
	width  = 300
	height = 220
)

// WriteGrowthPicture draws one curve for each cost, as an SVG.
func WriteGrowthPicture(w io.Writer, growth []Growth) error {
	curves := []struct {
		title string
		of    func(Growth) float64
	}{
		{"heap in use, MiB", func(g Growth) float64 { return g.Heap }},
		{"RSS, MiB", func(g Growth) float64 { return g.Resident }},
		{"start to ready, s", func(g Growth) float64 { return g.Start }},
		{"GET list of all, ms", func(g Growth) float64 { return g.List }},
	}
	sizes := ticks(growth)
	canvas := vgsvg.New(vg.Points(float64(width*len(curves))), vg.Points(height))
	all := draw.New(canvas)
	for i, curve := range curves {
		p := plot.New()
		p.Title.Text, p.X.Label.Text = curve.title, "instances"
		p.Y.Min = 0
		p.X.Tick.Marker, p.Y.Tick.Marker = sizes, shortLabels{}
		for _, style := range []*text.Style{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label} {
			style.Font.Variant = "Sans"
		}
		var points plotter.XYs
		for _, g := range growth {
			points = append(points, plotter.XY{X: float64(g.Instances), Y: curve.of(g)})
			p.Y.Max = math.Max(p.Y.Max, curve.of(g))
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return fmt.Errorf("draw %s: %w", curve.title, err)
		}
		p.Add(plotter.NewGrid(), line, dots)
		left := vg.Points(float64(width * i))
		p.Draw(draw.Crop(all, left+10, left+vg.Points(width-10)-all.Max.X, 5, -5))
	}
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return fmt.Errorf("draw the picture: %w", err)
	}
	// The labels' places are computed for this font. Browsers without it must take one that
	// is as wide.
	families := bytes.ReplaceAll(svg.Bytes(), []byte("Liberation Sans;"), []byte("Liberation Sans,Arial,Helvetica,sans-serif;"))
	if _, err := w.Write(families); err != nil {
		return fmt.Errorf("write the picture: %w", err)
	}
	return nil
}

// labelShare is how much of an axis a label takes.
const labelShare = 0.15

// ticks marks the sizes that were measured, and labels those whose labels do not overlap.
func ticks(growth []Growth) plot.ConstantTicks {
	var marks plot.ConstantTicks
	labelled := math.Inf(1) // the next label to the right
	for _, g := range slices.Backward(growth) {
		mark := plot.Tick{Value: float64(g.Instances)}
		if labelled-mark.Value > labelShare*float64(growth[len(growth)-1].Instances) {
			mark.Label, labelled = thousands(g.Instances), mark.Value
		}
		marks = append(marks, mark)
	}
	return marks
}

// thousands writes a number as in 50,000.
func thousands(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

// shortLabels are the usual ticks, without zeros behind the decimal point.
type shortLabels struct{}

// Ticks implements plot.Ticker.
func (shortLabels) Ticks(low, high float64) []plot.Tick {
	marks := plot.DefaultTicks{}.Ticks(low, high)
	for i := range marks {
		if marks[i].Label != "" {
			marks[i].Label = strconv.FormatFloat(marks[i].Value, 'g', 4, 64)
		}
	}
	return marks
}
