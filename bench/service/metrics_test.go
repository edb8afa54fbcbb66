package service

import (
	"slices"
	"testing"
)

func TestSums(t *testing.T) {
	t.Parallel()
	text := []byte(`# TYPE sent_total counter
sent_total{resource="pods",group=""} 3
sent_total{resource="nodes",group=""} 4
# TYPE sizes histogram
sizes_bucket{resource="pods",le="+Inf"} 3
sizes_sum{resource="pods"} 900
sizes_count{resource="pods"} 3
`)
	for _, test := range []struct {
		label, value string
		want         []float64
	}{
		{"", "", []float64{7, 900}},
		{"resource", "pods", []float64{3, 900}},
	} {
		if got, err := Sums(text, test.label, test.value, "sent_total", "sizes"); err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s=%s: %v, %v; want %v", test.label, test.value, got, err, test.want)
		}
	}
	if _, err := Sums(text, "", "", "received_total"); err == nil {
		t.Error("no error of a metric that there is not")
	}
	if _, err := Sums(text, "resource", "leases", "sent_total"); err == nil {
		t.Error("no error of a sample that there is not")
	}
}
