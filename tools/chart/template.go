package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// template is a template of the chart that is generated from a file of manifests/.
type template struct {
	from  string // below manifests/
	when  string // what must be true for the objects to exist, if there is a condition
	edits []edit
}

// edit puts new text in every place of old text, which must be there. Without old text, the
// new comes at the end.
type edit struct{ old, new string }

// target returns the template's path in the repository: that of the manifest, without its
// first directory.
func (t template) target() string {
	_, path, _ := strings.Cut(t.from, "/")
	return filepath.Join(chartDir, "templates", path)
}

// nameLine matches the beginning of an object's metadata. What comes before its name is
// never more than one line.
var nameLine = regexp.MustCompile(`(?m)^metadata:\n  name: .*\n(  labels:\n)?`)

// generate reads the manifest and edits it.
func (t template) generate(manifests string) (string, error) {
	data, err := os.ReadFile(filepath.Join(manifests, t.from))
	if err != nil {
		return "", fmt.Errorf("read a manifest: %w", err)
	}
	// What looks like a template is one of Prometheus, in the texts of alerts.
	text := strings.ReplaceAll(string(data), "{{", `{{ "{{" }}`)
	for _, e := range t.edits {
		if !strings.Contains(text, e.old) {
			return "", fmt.Errorf("%s no longer has the text %q, which tools/chart/edits.go replaces", t.from, e.old)
		}
		if e.old == "" {
			text += e.new
		} else {
			text = strings.ReplaceAll(text, e.old, e.new)
		}
	}
	if strings.HasPrefix(t.from, "base/") {
		text, err = t.addMetadata(manifests, text)
	} else {
		text = editMetadata(text)
	}
	if err != nil {
		return "", err
	}
	if t.when != "" {
		text = fmt.Sprintf("{{- if %s }}\n%s{{- end }}\n", t.when, text)
	}
	return fmt.Sprintf("{{- /* Generated from manifests/%s by make chart. Do not edit. */}}\n%s", t.from, text), nil
}

// commonLabels is the line that adds the labels of all objects.
const commonLabels = "    {{- include \"binder.labels\" . | nindent 4 }}\n"

// addMetadata adds what the kustomization of a directory adds to its objects: a namespace
// and labels.
func (t template) addMetadata(manifests, text string) (string, error) {
	path := filepath.Join(manifests, filepath.Dir(t.from), "kustomization.yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read a kustomization: %w", err)
	}
	var kustomization struct {
		Namespace string
		Labels    []struct{ Pairs map[string]string }
	}
	if err := yaml.Unmarshal(data, &kustomization); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	if len(kustomization.Labels) != 1 {
		return "", fmt.Errorf("%s has %d lists of labels, want 1", path, len(kustomization.Labels))
	}
	labels := "  labels:\n"
	for _, key := range []string{"app.kubernetes.io/name", "app.kubernetes.io/component"} {
		labels += fmt.Sprintf("    %s: %s\n", key, kustomization.Labels[0].Pairs[key])
	}
	var namespace string
	if kustomization.Namespace != "" && !strings.Contains(text, "\nkind: Namespace\n") {
		namespace = fmt.Sprintf("  namespace: %s\n", cmp.Or(namespaces()[kustomization.Namespace], kustomization.Namespace))
	}
	return nameLine.ReplaceAllStringFunc(text, func(match string) string {
		return strings.TrimSuffix(match, "  labels:\n") + namespace + labels + commonLabels
	}), nil
}

// editMetadata edits the namespace and the labels that objects of components have.
func editMetadata(text string) string {
	for name, value := range namespaces() {
		text = strings.ReplaceAll(text, "\n  namespace: "+name+"\n", "\n  namespace: "+value+"\n")
	}
	return strings.ReplaceAll(text, "\n    app.kubernetes.io/part-of: binder\n", "\n"+commonLabels)
}

// namespaces returns what stands in templates for the namespaces of the manifests.
func namespaces() map[string]string {
	return map[string]string{"binder": release, "binder-instances": instances, "binder-headroom": headroom}
}
