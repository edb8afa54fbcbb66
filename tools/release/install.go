package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/binder-project/binder-deploy-kubernetes/tools/goimage"
)

// writeInstall renders the manifests with the release's image into one file. The image is
// named with its digest, so that a tag that is moved changes nothing.
func (r *release) writeInstall(source goimage.Source, digest v1.Hash) (err error) {
	overlay, err := os.MkdirTemp(r.output, "overlay-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(overlay)
	// Kustomize refuses absolute paths.
	base, err := filepath.Rel(overlay, filepath.Join(r.root, "manifests", "base"))
	if err != nil {
		return err
	}
	kustomization, err := yaml.Marshal(types.Kustomization{
		TypeMeta:  types.TypeMeta{APIVersion: types.KustomizationVersion, Kind: types.KustomizationKind},
		Resources: []string{filepath.ToSlash(base)},
		Images:    []types.Image{{Name: goimage.ServiceName, NewName: r.image, NewTag: source.Version, Digest: digest.String()}},
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), kustomization, 0o644); err != nil {
		return err
	}
	options := krusty.MakeDefaultOptions()
	options.Reorder = krusty.ReorderOptionLegacy // namespaces and roles first
	objects, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), overlay)
	if err != nil {
		return err
	}
	data, err := objects.AsYaml()
	if err != nil {
		return err
	}
	var file bytes.Buffer
	fmt.Fprintf(&file, "# %s %s. It needs two Secrets: docs/install.md.\n", goimage.ServiceName, source.Version)
	file.Write(data)
	return os.WriteFile(r.path(installFile), file.Bytes(), 0o644)
}
