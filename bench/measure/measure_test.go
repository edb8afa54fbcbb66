package measure

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestAlternate(t *testing.T) {
	t.Parallel()
	var ran []string
	subject := func(name string) Subject {
		return Subject{Name: name, Run: func(context.Context) (float64, error) {
			ran = append(ran, name)
			return float64(len(ran)), nil
		}}
	}
	rounds, err := Alternate(t.Context(), 2, true, subject("a"), subject("b"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(ran, ""); got != "abbaab" {
		t.Errorf("the order is %s", got)
	}
	if !slices.Equal(rounds[0], []float64{4, 5}) || !slices.Equal(rounds[1], []float64{3, 6}) {
		t.Errorf("figures %v", rounds)
	}
	if got := rounds.Ratios(1, 0); !slices.Equal(got, []float64{0.75, 1.2}) {
		t.Errorf("ratios %v", got)
	}
	broken := errors.New("broken")
	_, err = Alternate(t.Context(), 1, false, Subject{Name: "c", Run: func(context.Context) (float64, error) { return 0, broken }})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "measure c") {
		t.Errorf("error %v", err)
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	var twenty []float64
	for i := range 20 {
		twenty = append(twenty, float64(20-i))
	}
	for _, test := range []struct {
		values []float64
		q      float64
		want   float64
	}{
		{nil, 0.5, 0},
		{[]float64{7}, 0.95, 7},
		{[]float64{3, 1, 2}, 0.5, 2},
		{twenty, 0.5, 10},
		{twenty, 0.95, 19},
		{twenty, 0, 1},
		{twenty, 1, 20},
	} {
		if got := Quantile(test.values, test.q); got != test.want {
			t.Errorf("Quantile(%v, %v) = %v, want %v", test.values, test.q, got, test.want)
		}
	}
}
