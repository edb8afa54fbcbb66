package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/binder-project/binder-deploy-kubernetes/internal/instance"

	"github.com/binder-project/binder-deploy-kubernetes/internal/config"
)

// TestREADME keeps the README in step with the code: it has a row for every
// flag, every key of the state contract and every metric.
func TestREADME(t *testing.T) {
	data, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := string(data)
	want := func(what, text string) {
		t.Helper()
		if !strings.Contains(readme, text) {
			t.Errorf("README.md does not have the %s %s", what, text)
		}
	}
	new(config.Config).Flags().VisitAll(func(f *flag.Flag) {
		row := fmt.Sprintf("| `--%s` | `%s` |", f.Name, config.EnvName(f.Name))
		if f.Name == "version" {
			row = "| `--version` | |"
		}
		want("flag", row)
	})
	for _, key := range []string{instance.ManagedByLabel, instance.IDLabel, instance.TemplateLabel, instance.TemplateHashLabel, instance.PoolLabel, instance.PreloadLabel, instance.PreloadNameLabel} {
		want("label", "| `"+key+"` | label |")
	}
	for _, key := range []string{
		instance.TemplateNameAnnotation, instance.LastActivityAnnotation, instance.ActivitySourceAnnotation, instance.LaunchedAnnotation, instance.CullTimeoutAnnotation, instance.MaxAgeAnnotation,
		instance.PortAnnotation, instance.StripPrefixAnnotation, instance.IdlePathsAnnotation, instance.ActivityProbeAnnotation, instance.ReadyWhenAnnotation,
	} {
		want("annotation", "| `"+key+"` | annotation |")
	}
	for _, key := range []string{
		instance.PortAnnotation, instance.CullTimeoutAnnotation, instance.MaxAgeAnnotation, instance.MaxInstancesAnnotation, instance.StripPrefixAnnotation, instance.PoolSizeAnnotation,
		instance.IdlePathsAnnotation, instance.ActivityProbeAnnotation,
	} {
		want("template annotation", "| `"+key+"` | ")
	}
	for _, name := range metricNames(t) {
		want("metric", "| `"+name+"` |")
	}
}

// metricNames are the service's own, those with labels before their first event too.
func metricNames(t *testing.T) []string {
	t.Helper()
	source, err := os.ReadFile("internal/metrics/metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, part := range strings.Split(string(source), `"`) {
		if strings.HasPrefix(part, "binder_") {
			names = append(names, part)
		}
	}
	if len(names) == 0 {
		t.Fatal("metrics.go names no metric")
	}
	return names
}
