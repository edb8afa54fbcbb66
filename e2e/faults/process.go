package faults

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// usage is what a process of the service uses.
type usage struct{ goroutines, bytes float64 }

// usages has an entry for each process: a replica, and how often it was restarted.
type usages map[string]usage

// What a process may have more of after a fault than before. Connections that are open at the
// moment, and memory that the Go runtime has not returned yet, are no leak.
const (
	moreGoroutines = 150
	moreBytes      = 64 << 20
)

// processes asks every replica what it uses, when all is well.
func (w *World) processes(ctx context.Context) usages {
	all := usages{}
	replicas, err := w.Suite.ReadyReplicas(ctx)
	for _, replica := range replicas {
		var u usage
		if u, err = readUsage(ctx, replica); err != nil {
			break
		}
		all[fmt.Sprint(replica.Name, " ", replica.Restarts)] = u
	}
	if err != nil {
		w.Ledger.Complain("what the replicas use is not known: %v", err)
	}
	return all
}

func readUsage(ctx context.Context, replica harness.Replica) (usage, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, replica.Metrics+"/metrics", nil)
	if err != nil {
		return usage{}, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return usage{}, fmt.Errorf("read the metrics: %w", err)
	}
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		return usage{}, fmt.Errorf("parse the metrics: %w", err)
	}
	value := func(name string) float64 {
		if family := families[name]; family != nil && len(family.Metric) == 1 {
			return family.Metric[0].GetGauge().GetValue()
		}
		return 0
	}
	u := usage{value("go_goroutines"), value("process_resident_memory_bytes")}
	if u.goroutines == 0 || u.bytes == 0 {
		return u, errors.New("the metrics lack the goroutines or the memory")
	}
	return u, nil
}

// grown says which processes use much more now than before the fault, or than twice as much more
// than at first; "" if none does.
func (w *World) grown(before, now usages) string {
	if w.first == nil {
		w.first = usages{}
	}
	var grown []string
	for process, after := range now {
		if _, known := w.first[process]; !known {
			w.first[process] = after
		}
		since, runs := before[process]
		if !runs {
			continue
		}
		if more := since.grown(after, 1) + w.first[process].grown(after, 2); more != "" {
			grown = append(grown, process+more)
		}
	}
	slices.Sort(grown)
	return strings.Join(grown, "; ")
}

// grown says whether a process uses more now than it may, by so many times.
func (u usage) grown(now usage, times float64) string {
	if now.goroutines <= u.goroutines+times*moreGoroutines && now.bytes <= u.bytes+times*moreBytes {
		return ""
	}
	return fmt.Sprintf(" grew from %.0f goroutines and %.0f MiB to %.0f and %.0f", u.goroutines, u.bytes/(1<<20), now.goroutines, now.bytes/(1<<20))
}

// repeatedInLogs says which lines the replicas have logged more than once a minute for one cause,
// or "". before is how long their logs were when that began to count.
func (w *World) repeatedInLogs(before map[string]int64) string {
	now, err := w.Suite.LogSizes()
	if err != nil {
		return err.Error()
	}
	var repeated []string
	for path := range now {
		lines, err := repeatedIn(path, before[path])
		if err != nil {
			return err.Error()
		}
		repeated = append(repeated, lines...)
	}
	slices.Sort(repeated)
	return strings.Join(slices.Compact(repeated), "; ")
}

// repeatedIn is repeatedLines of a file from an offset on.
func repeatedIn(path string, offset int64) ([]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open a replica's log: %w", err)
	}
	defer file.Close()
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read a replica's log: %w", err)
	}
	return repeatedLines(file), nil
}

// logLine is what of a line says its cause.
type logLine struct {
	Time     time.Time `json:"time"`
	Level    string    `json:"level"`
	Msg      string    `json:"msg"`
	Error    string    `json:"error"`
	Template string    `json:"template"`
}

// particular matches what differs between two lines of one cause: numbers, names of pods,
// quoted words.
var particular = regexp.MustCompile(`[0-9a-f]{8,}|\d+|"[^"]*"`)

// repeatedLines returns the warnings and errors that a log has more than once within a minute.
func repeatedLines(log io.Reader) []string {
	times := map[string][]time.Time{}
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line logLine
		if json.Unmarshal(lines.Bytes(), &line) != nil || line.Level != "WARN" && line.Level != "ERROR" {
			continue
		}
		cause := particular.ReplaceAllString(strings.Join([]string{line.Level, line.Template, line.Msg, line.Error}, " "), "#")
		times[cause] = append(times[cause], line.Time)
	}
	var repeated []string
	for cause, at := range times {
		most := 0
		for first := range at {
			n := 0
			for _, t := range at[first:] {
				if t.Sub(at[first]) < time.Minute-time.Second { // timers are not exact
					n++
				}
			}
			most = max(most, n)
		}
		if most > 1 {
			repeated = append(repeated, fmt.Sprintf("logged %d times within a minute: %.200s", most, cause))
		}
	}
	if err := lines.Err(); err != nil {
		repeated = append(repeated, "a log cannot be read: "+err.Error())
	}
	return repeated
}
