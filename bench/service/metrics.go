package service

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Sums reads the text of /metrics and returns the sum of each metric over its labels: of a
// histogram, the sum of what was observed. If label is not "", only those count that have it
// with this value.
func Sums(text []byte, label, value string, names ...string) ([]float64, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read the metrics: %w", err)
	}
	var sums []float64
	for _, name := range names {
		family, ok := families[name]
		if !ok {
			return nil, errors.New("there is no metric " + name)
		}
		var sum float64
		found := false
		for _, metric := range family.Metric {
			counts := label == ""
			for _, pair := range metric.Label {
				counts = counts || pair.GetName() == label && pair.GetValue() == value
			}
			found = found || counts
			if counts {
				sum += metric.GetCounter().GetValue() + metric.GetGauge().GetValue() + metric.GetUntyped().GetValue() + metric.GetHistogram().GetSampleSum()
			}
		}
		if !found {
			return nil, fmt.Errorf("the metric %s has no sample with %s=%q", name, label, value)
		}
		sums = append(sums, sum)
	}
	return sums, nil
}
