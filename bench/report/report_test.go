package report

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestVerdicts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		figure float64
		goal   Goal
		want   string
	}{
		{"no goal", 5, Goal{}, "reported"},
		{"at least, reached", 0.9, AtLeast(0.9, ""), "met"},
		{"at least, below", 0.89, AtLeast(0.9, ""), "MISSED"},
		{"at most, reached", 0, AtMost(0, "requests"), "met"},
		{"at most, above", 1, AtMost(0, "requests"), "MISSED"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := (Line{Figure: test.figure, Goal: test.goal}).verdict(); got != test.want {
				t.Errorf("verdict %s, want %s", got, test.want)
			}
		})
	}
}

func TestWriteMarkdown(t *testing.T) {
	t.Parallel()
	lines := []Line{
		{Metric: "rate", Ours: "45 requests/s", Peer: "nginx: 90 requests/s", Figure: 0.5, Low: 0.45, High: 0.55, Goal: AtLeast(0.5, "")},
		{Metric: "memory", Ours: "41.0 KiB", Figure: 41, Low: 41, High: 41, Goal: AtMost(40, "KiB each"), Missed: "two buffers of 16 KiB"},
		{Metric: "launch", Failed: errors.New("no cluster")},
		{Metric: "load", Ours: "0.20 of one processor", Figure: 0.2, Low: 0.2, High: 0.2},
	}
	var text strings.Builder
	if err := WriteMarkdown(&text, lines); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| rate | 45 requests/s | nginx: 90 requests/s | 0.50 (0.45–0.55) | ≥ 0.5 | met |\n",
		"| memory | 41.0 KiB |  | 41 | ≤ 40 KiB each | **missed** |\n",
		"| load | 0.20 of one processor |  | 0.20 |  | reported |\n",
		"| launch |  |  |  |  | **not measured** |\n",
		"1 goals met, 1 missed; 1 figures without a goal; 1 rows not measured\n",
		"- **launch**: no cluster\n",
		"- **memory**: two buffers of 16 KiB\n",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, &text)
		}
	}
}

func TestWriteGrowthPicture(t *testing.T) {
	t.Parallel()
	var svg strings.Builder
	growth := []Growth{{Instances: 0, Heap: 3, Resident: 36}, {Instances: 1000, Heap: 5, Resident: 40, Start: 0.2, List: 4}}
	if err := WriteGrowthPicture(&svg, growth); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<svg", "heap in use, MiB", "start to ready, s", ">1,000<", "Arial"} {
		if !strings.Contains(svg.String(), want) {
			t.Errorf("the picture has no %q", want)
		}
	}
}

func TestTicksDoNotOverlap(t *testing.T) {
	t.Parallel()
	var labels []string
	for _, mark := range ticks([]Growth{{Instances: 0}, {Instances: 1000}, {Instances: 10_000}, {Instances: 50_000}}) {
		labels = append(labels, mark.Label)
	}
	if want := []string{"50,000", "10,000", "1,000", ""}; !slices.Equal(labels, want) {
		t.Errorf("labels %q, want %q", labels, want)
	}
}
