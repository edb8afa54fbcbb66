package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// makeImage returns a single-layer image for this machine's architecture.
func makeImage(layer v1.Layer, config v1.Config) (v1.Image, error) {
	built, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, fmt.Errorf("assemble the image: %w", err)
	}
	file, err := built.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("assemble the image: %w", err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, config
	return mutate.ConfigFile(built, file)
}

// writeArchive writes the image to an archive at path. It leaves an identical
// archive in place.
func writeArchive(path, ref string, built v1.Image) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("parse the image's name: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("create the image directory: %w", err)
	}
	next := path + ".next"
	defer os.Remove(next)
	file, err := os.Create(next)
	if err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	if err := errors.Join(tarball.Write(tag, built, file), file.Close()); err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	return replaceIfChanged(next, path)
}

// archivedImage is an image in an archive.
type archivedImage struct {
	ref string
	id  string // digest of its configuration; the container runtime's image id
}

// readArchive returns the images in an archive.
func readArchive(path string) ([]archivedImage, error) {
	open := func() (io.ReadCloser, error) { return os.Open(path) }
	manifest, err := tarball.LoadManifest(open)
	if err != nil {
		return nil, err
	}
	var images []archivedImage
	for _, entry := range manifest {
		for _, ref := range entry.RepoTags {
			tag, err := name.NewTag(ref)
			if err != nil {
				return nil, err
			}
			image, err := tarball.Image(open, &tag)
			if err != nil {
				return nil, err
			}
			id, err := image.ConfigName()
			if err != nil {
				return nil, err
			}
			images = append(images, archivedImage{ref: ref, id: id.String()})
		}
	}
	if len(images) == 0 {
		return nil, errors.New("it contains no tagged image")
	}
	return images, nil
}
