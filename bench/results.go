package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/binder-project/binder-deploy-kubernetes/bench/process"
	"github.com/binder-project/binder-deploy-kubernetes/bench/report"
)

// write writes the files that a run was asked for.
func (b *bench) write(ctx context.Context, lines []report.Line, results, picture string) error {
	if results != "" {
		var text bytes.Buffer
		text.WriteString("# Results\n\n`make bench` has written this file. Each comparison was made in turn, in several rounds of one run: the ratios mean something, the figures alone do not.\n\n")
		if err := report.WriteMarkdown(&text, lines); err != nil {
			return err
		}
		if len(b.growth) > 0 {
			text.WriteString("\n## Growth\n\n")
			if err := report.WriteGrowth(&text, b.growth); err != nil {
				return err
			}
		}
		fmt.Fprintf(&text, "\n## Machine and versions\n\n%s", b.machine(ctx))
		if err := os.WriteFile(results, text.Bytes(), 0o644); err != nil {
			return fmt.Errorf("write the results: %w", err)
		}
		b.say("wrote %s", results)
	}
	if picture != "" && len(b.growth) > 1 {
		var svg bytes.Buffer
		if err := report.WriteGrowthPicture(&svg, b.growth); err != nil {
			return err
		}
		if err := os.WriteFile(picture, svg.Bytes(), 0o644); err != nil {
			return fmt.Errorf("write the picture: %w", err)
		}
		b.say("wrote %s", picture)
	}
	return nil
}

// machine describes what a run was made on and with. What cannot be found out is "unknown".
func (b *bench) machine(ctx context.Context) string {
	ask := func(path string, args ...string) string {
		output, err := process.Output(ctx, path, args...)
		first, _, _ := strings.Cut(strings.TrimSpace(output), "\n")
		if err != nil || first == "" {
			return "unknown"
		}
		return first
	}
	facts := [][2]string{
		{"processors", fmt.Sprintf("%d × %s", runtime.NumCPU(), fact("/proc/cpuinfo", "model name"))},
		{"memory", fact("/proc/meminfo", "MemTotal")},
		{"kernel", ask("uname", "-sr")},
		{"Go", runtime.Version()},
		{"the service", ask(b.binary, "--version")},
		{"Kubernetes", strings.TrimPrefix(ask(filepath.Join(b.cluster, "bin", "kubectl"), "--kubeconfig="+b.kubeconfig, "version", "--client=true"), "Client Version: ")},
		{"nginx", strings.TrimPrefix(ask("nginx", "-v"), "nginx version: ")},
		{"Node.js", ask("node", "--version")},
		{"configurable-http-proxy", ask("node", "-p", "require(process.argv[1]).version", filepath.Join(b.root, "bench", "peer", "chp", "node_modules", "configurable-http-proxy", "package.json"))},
	}
	var text strings.Builder
	for _, f := range facts {
		fmt.Fprintf(&text, "- %s: %s\n", f[0], f[1])
	}
	return text.String()
}

// fact returns the first value of a key in a file of /proc.
func fact(file, key string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
