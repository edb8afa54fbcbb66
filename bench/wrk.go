package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/binder-project/binder-deploy-kubernetes/bench/measure"
	"github.com/binder-project/binder-deploy-kubernetes/bench/process"
)

const (
	// wrkSeconds is how long one run of wrk takes.
	wrkSeconds = 2
	// wrkRounds is how many rounds of it there are for each of others. Many short ones show
	// more than a few long ones: what else the machine does comes and goes.
	wrkRounds = 2
)

//go:embed wrk.lua
var wrkScript string

// wrk returns a subject that sends GETs to an address over a number of connections, with
// paths in turn if there are some. Its figure is requests per second.
func (b *bench) wrk(name, url string, connections int, paths ...string) measure.Subject {
	return measure.Subject{Name: name, Run: func(ctx context.Context) (float64, error) {
		script := filepath.Join(b.dir, "wrk.lua")
		if err := os.WriteFile(script, []byte(wrkScript), 0o600); err != nil {
			return 0, fmt.Errorf("write wrk's script: %w", err)
		}
		list := filepath.Join(b.dir, "paths")
		if err := os.WriteFile(list, []byte(strings.Join(paths, "\n")), 0o600); err != nil {
			return 0, fmt.Errorf("write the paths: %w", err)
		}
		output, err := process.Output(ctx, "wrk", "--threads=1", "--connections="+strconv.Itoa(connections),
			"--duration="+strconv.Itoa(wrkSeconds)+"s", "--timeout=10s", "--script="+script, url, "--", list)
		if err != nil {
			return 0, err
		}
		return readWrk(output)
	}}
}

// readWrk reads the last line of wrk's output, which the script has written.
func readWrk(output string) (float64, error) {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	var summary struct{ Requests, Microseconds, Errors float64 }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &summary); err != nil {
		return 0, fmt.Errorf("read the output of wrk: %w\n%s", err, output)
	}
	if summary.Errors > 0 || summary.Requests == 0 {
		return 0, fmt.Errorf("of %.0f requests, %.0f failed\n%s", summary.Requests, summary.Errors, output)
	}
	return summary.Requests / summary.Microseconds * 1e6, nil
}
