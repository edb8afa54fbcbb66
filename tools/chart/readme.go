package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// readme returns the chart's README.md: its description from Chart.yaml, and a table of the
// values with their comments.
func readme(chart string) (string, error) {
	var about struct{ Name, Description string }
	data, err := os.ReadFile(filepath.Join(chart, "Chart.yaml"))
	if err != nil {
		return "", fmt.Errorf("read the chart's description: %w", err)
	}
	if err := yaml.Unmarshal(data, &about); err != nil {
		return "", fmt.Errorf("read Chart.yaml: %w", err)
	}
	rows, err := valueRows(filepath.Join(chart, "values.yaml"))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(readmeText, about.Name, about.Description, strings.Join(rows, "\n")), nil
}

// readmeText is the page around the description and the table.
const readmeText = `<!-- Generated from Chart.yaml and values.yaml by make chart. Do not edit. -->
# %s

%s

` + "```sh test=TestChartInstalls" + `
helm install binder charts/binder-deploy-kubernetes --namespace binder --create-namespace \
  --set image.repository=registry.example.com/binder-deploy-kubernetes --set image.tag=v1
` + "```" + `

[docs/install.md](../../docs/install.md#with-helm) says more. The templates are generated from [manifests/](../../docs/components.md), so what the documentation says of the manifests holds for the chart.

## Values

| value | default | meaning |
|---|---|---|
%s
`

// valueRows returns a row for each value that has a comment.
func valueRows(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the values: %w", err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return nil, fmt.Errorf("read values.yaml: %w", err)
	}
	return rowsOf("", document.Content[0])
}

// rowsOf returns the rows of a mapping. A key with a comment is a row, and so are the keys
// below it that have one. A key without is a group, or part of a value that is a row.
func rowsOf(prefix string, mapping *yaml.Node) (rows []string, err error) {
	for i := 0; i < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		name := prefix + key.Value
		if key.HeadComment != "" {
			var content any
			if err := value.Decode(&content); err != nil {
				return nil, fmt.Errorf("read the value %s: %w", name, err)
			}
			shown, err := json.Marshal(content)
			if err != nil {
				return nil, fmt.Errorf("write the value %s: %w", name, err)
			}
			meaning := strings.ReplaceAll(strings.TrimPrefix(key.HeadComment, "# "), "\n# ", " ")
			rows = append(rows, fmt.Sprintf("| `%s` | `%s` | %s |", name, shown, meaning))
		}
		if value.Kind == yaml.MappingNode {
			below, err := rowsOf(name+".", value)
			if err != nil {
				return nil, err
			}
			rows = append(rows, below...)
		}
	}
	return rows, nil
}
