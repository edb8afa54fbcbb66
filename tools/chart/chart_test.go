package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// root is the repository.
const root = "../.."

// The generated files of the chart are those that would be generated now.
func TestChartIsCurrent(t *testing.T) {
	files, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		data, err := os.ReadFile(filepath.Join(root, path))
		if err != nil || string(data) != files[path] {
			t.Errorf("%s is not current: run make chart (%v)", path, err)
		}
	}
	stale, err := stale(root, files)
	if err != nil || len(stale) > 0 {
		t.Errorf("no longer generated: %v: run make chart (%v)", stale, err)
	}
}

// A manifest that no longer has what an edit replaces is an error that names both.
func TestEditOfMissingText(t *testing.T) {
	manifest := template{from: "base/controller/role.yaml", edits: []edit{{"no such text", "x"}}}
	_, err := manifest.generate(filepath.Join(root, "manifests"))
	if err == nil || !strings.Contains(err.Error(), manifest.from) || !strings.Contains(err.Error(), "no such text") {
		t.Errorf("the error is %v", err)
	}
}

// Every value has a row of its own, or is in the row of a value above it.
func TestReadmeHasEveryValue(t *testing.T) {
	page, err := readme(filepath.Join(root, chartDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{
		"| `image.repository` | `\"registry.example.com/binder-deploy-kubernetes\"` | The image of the service,",
		"| `resources` | `{\"limits\":{\"memory\":\"512Mi\"},\"requests\":{\"cpu\":\"100m\",\"memory\":\"512Mi\"}}` |",
		"| `env.GOMEMLIMIT` | `\"450MiB\"` | Below the memory limit,",
		"| `autoscaling.enabled` | `false` |",
		"| `tolerations` | `[]` |",
	} {
		if !strings.Contains(page, "\n"+row) {
			t.Errorf("there is no row %s", row)
		}
	}
}
