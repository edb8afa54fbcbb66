package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// Render renders a directory of manifests as "kubectl kustomize" does. Components, if
// there are any, are applied to it in their order.
func Render(dir string, components ...string) ([]*unstructured.Unstructured, error) {
	if len(components) > 0 {
		overlay, err := writeOverlay(dir, components)
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(overlay)
		dir = overlay
	}
	options := krusty.MakeDefaultOptions()
	options.Reorder = krusty.ReorderOptionLegacy // namespaces and roles first
	resources, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, fmt.Errorf("render %s: %w", dir, err)
	}
	var objects []*unstructured.Unstructured
	for _, resource := range resources.Resources() {
		fields, err := resource.Map()
		if err != nil {
			return nil, fmt.Errorf("read %s in %s: %w", resource.CurId(), dir, err)
		}
		objects = append(objects, &unstructured.Unstructured{Object: fields})
	}
	return objects, nil
}

// writeOverlay writes a kustomization of a directory and components to a temporary
// directory.
func writeOverlay(dir string, components []string) (overlay string, err error) {
	overlay, err = os.MkdirTemp("", "binder-overlay")
	if err != nil {
		return "", fmt.Errorf("make a directory for the overlay: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write the overlay: %w", err), os.RemoveAll(overlay))
		}
	}()
	var paths []string
	for _, path := range append([]string{dir}, components...) {
		absolute, err := filepath.Abs(path)
		if err != nil {
			return "", err
		}
		relative, err := filepath.Rel(overlay, absolute) // kustomize takes no absolute paths
		if err != nil {
			return "", err
		}
		paths = append(paths, relative)
	}
	data, err := yaml.Marshal(types.Kustomization{Resources: paths[:1], Components: paths[1:]})
	if err != nil {
		return "", err
	}
	return overlay, os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), data, 0o600)
}
