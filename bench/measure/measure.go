// Package measure runs things in turn and says what their figures have in common.
package measure

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Subject is one of the things that a benchmark compares. Run returns one figure.
type Subject struct {
	Name string
	Run  func(ctx context.Context) (float64, error)
}

// Rounds has the figures of each subject, in the order of the subjects. All figures at
// the same index are of the same round, so that what slows the machine down for a while
// slows all of them.
type Rounds [][]float64

// Alternate runs the subjects one after the other, rounds times. Every other round is in
// reverse order, so that none always runs first. One short run of each, which does not
// count, comes before that if warm is true.
func Alternate(ctx context.Context, rounds int, warm bool, subjects ...Subject) (Rounds, error) {
	figures := make(Rounds, len(subjects))
	if warm {
		rounds++
	}
	for round := range rounds {
		order := make([]int, len(subjects))
		for i := range order {
			order[i] = i
		}
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, i := range order {
			figure, err := subjects[i].Run(ctx)
			if err != nil {
				return nil, fmt.Errorf("measure %s: %w", subjects[i].Name, err)
			}
			if round == 0 && warm {
				continue
			}
			figures[i] = append(figures[i], figure)
		}
	}
	return figures, nil
}

// Ratios returns the figures of one subject divided by those of another, round by round.
func (r Rounds) Ratios(of, by int) []float64 {
	ratios := make([]float64, 0, len(r[of]))
	for round := range r[of] {
		ratios = append(ratios, r[of][round]/r[by][round])
	}
	return ratios
}

// Quantile returns the value below which a share q of the values is. It does not
// interpolate: with 20 values, the 0.95 quantile is the 19th.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	rank := int(q*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(rank, 0), len(sorted)-1)]
}

// Median returns the value in the middle, or the mean of the two there.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

// Milliseconds returns a time as a figure.
func Milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }
