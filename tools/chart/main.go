// Command chart writes the parts of the Helm chart that are generated:
//
//	chart [repository]
//
// Its templates come from the files of manifests/, in which the edits of edits.go put values
// in place of what the files say, and its README from the comments in values.yaml. The
// dashboard is a copy.
package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// chartDir is the chart's directory in the repository.
const chartDir = "charts/binder-deploy-kubernetes"

func main() {
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	if err := run(root); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

func run(root string) error {
	files, err := generate(root)
	if err != nil {
		return err
	}
	stale, err := stale(root, files)
	if err != nil {
		return err
	}
	for _, path := range stale {
		if err := os.Remove(filepath.Join(root, path)); err != nil {
			return fmt.Errorf("remove what is no longer generated: %w", err)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		path, content := filepath.Join(root, path), files[path]
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make the directory of a template: %w", err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return fmt.Errorf("write what is generated: %w", err)
		}
	}
	fmt.Printf("wrote %d files in %s\n", len(files), chartDir)
	return nil
}

// generate returns the generated files by their paths in the repository.
func generate(root string) (map[string]string, error) {
	files := map[string]string{}
	for _, t := range templates() {
		content, err := t.generate(filepath.Join(root, "manifests"))
		if err != nil {
			return nil, err
		}
		files[t.target()] = content
	}
	// Helm does not read files outside of a chart.
	dashboard, err := os.ReadFile(filepath.Join(root, "manifests/components/monitoring/dashboard.json"))
	if err != nil {
		return nil, fmt.Errorf("read the dashboard: %w", err)
	}
	files[filepath.Join(chartDir, "files/dashboard.json")] = string(dashboard)
	readme, err := readme(filepath.Join(root, chartDir))
	if err != nil {
		return nil, err
	}
	files[filepath.Join(chartDir, "README.md")] = readme
	return files, nil
}

// stale returns the templates that an earlier version generated. Generated templates are in
// subdirectories, and only they are.
func stale(root string, files map[string]string) (paths []string, err error) {
	found, err := filepath.Glob(filepath.Join(root, chartDir, "templates", "*", "*"))
	if err != nil {
		return nil, fmt.Errorf("look for generated templates: %w", err)
	}
	for _, path := range found {
		path, err := filepath.Rel(root, path)
		if err != nil {
			return nil, fmt.Errorf("look for generated templates: %w", err)
		}
		if _, ok := files[path]; !ok {
			paths = append(paths, path)
		}
	}
	return paths, nil
}
