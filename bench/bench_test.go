package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	t.Parallel()
	all, err := choose("")
	if err != nil || len(all) != len(rows()) {
		t.Errorf("without a pattern: %d rows, %v", len(all), err)
	}
	some, err := choose("^proxy$")
	if err != nil || len(some) != 1 || some[0].name != "proxy" {
		t.Errorf("one name: %d rows, %v", len(some), err)
	}
	for _, wrong := range []string{"proxies", "("} {
		if _, err := choose(wrong); err == nil || !strings.Contains(err.Error(), "--run") {
			t.Errorf("--run=%s: error %v", wrong, err)
		}
	}
	names := map[string]bool{}
	for _, r := range rows() {
		if names[r.name] {
			t.Errorf("there are two rows %s", r.name)
		}
		names[r.name] = true
	}
}

func TestReadWrk(t *testing.T) {
	t.Parallel()
	const report = "Running 5s test @ http://127.0.0.1:1/\nRequests/sec:  10\n"
	rate, err := readWrk(report + `{"requests": 50, "microseconds": 5000000, "errors": 0}` + "\n")
	if err != nil || rate != 10 {
		t.Errorf("rate %v, %v", rate, err)
	}
	for _, wrong := range []string{"", report, report + `{"requests": 50, "microseconds": 1, "errors": 1}`, report + `{"requests": 0, "microseconds": 1, "errors": 0}`} {
		if _, err := readWrk(wrong); err == nil {
			t.Errorf("no error of %q", wrong)
		}
	}
}

func TestGatewayCounts(t *testing.T) {
	t.Parallel()
	g := &gateway{requests: map[string]int{}}
	for _, request := range []struct{ method, path string }{
		{http.MethodPatch, "/api/v1/namespaces/a/pods/b"},
		{http.MethodPatch, "/api/v1/namespaces/a/pods/c"},
		{http.MethodGet, "/api/v1/namespaces/a/pods"},
		{http.MethodGet, "/api/v1/nodes"},
		{http.MethodPut, "/apis/coordination.k8s.io/v1/namespaces/a/leases/b"},
	} {
		g.count(httptest.NewRequest(request.method, request.path, nil))
	}
	if counts := g.counts(); counts["PATCH pods"] != 2 || counts["GET pods"] != 1 || counts["GET nodes"] != 1 || g.total() != 4 {
		t.Errorf("counts %v", counts)
	}
	if g.reset(); g.total() != 0 {
		t.Errorf("after a reset, %v", g.counts())
	}
}

func TestActivityLines(t *testing.T) {
	t.Parallel()
	writes := make([]float64, int(activityTime/activityPart))
	for i := range writes {
		writes[i] = 100
	}
	writes[0], writes[1] = 150, 50
	lines := activityLines(writes)
	if lines[0].Figure != 600 || lines[1].Figure != 1.5 {
		t.Errorf("a minute: %v, most: %v", lines[0].Figure, lines[1].Figure)
	}
}

func TestFanOutLines(t *testing.T) {
	t.Parallel()
	var found [][]fanOut
	for _, count := range []float64{0, 1, 2, 4} {
		f := fanOut{replicas: count, server: 1000 + 50*count, events: fanOutWrites * (3 + count), each: 200}
		f.volume = f.events * 4 * kibibyte
		found = append(found, []fanOut{f, f, f})
	}
	lines := fanOutLines(found)
	for i, want := range []string{"100 ms, without a replica: 2000 ms", "1.00 a write, of 4.00 KiB", "400 ms"} {
		if got := lines[i].String(); !strings.Contains(got, ": "+want+": ") {
			t.Errorf("line %q has no %q", got, want)
		}
	}
}
