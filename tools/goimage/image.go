// Package goimage builds container images of Go programs, without a container engine.
// An image has one static binary and nothing that the program does not need: no shell, no
// libraries, no package manager. The same input gives the same image.
//
// The releases and the local cluster build their images with it, so that the tests on the
// cluster run what is released.
package goimage

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// User is an unprivileged user and group. It is numeric so that Kubernetes can check
// runAsNonRoot.
const User = "65532:65532"

// Spec says what an image is made of.
type Spec struct {
	Platform v1.Platform
	Name     string            // of the binary in the image's root; it is the entry point
	Binary   string            // path of the binary on this machine
	Files    map[string][]byte // further files, by their path in the image without the first slash
	Ports    []string          // ports that the program listens on, such as "80/tcp"
	Labels   map[string]string // labels of the image, and annotations of its manifest
	Created  time.Time         // zero if it is not to be known
}

// New returns an OCI image with a single layer.
func New(spec Spec) (v1.Image, error) {
	layer, err := newLayer(spec)
	if err != nil {
		return nil, err
	}
	created := v1.Time{Time: spec.Created}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.Append(image, mutate.Addendum{Layer: layer, History: v1.History{Created: created, CreatedBy: "go build"}})
	if err != nil {
		return nil, fmt.Errorf("assemble the image: %w", err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("assemble the image: %w", err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created = spec.Platform.OS, spec.Platform.Architecture, created
	file.Config = v1.Config{User: User, Entrypoint: []string{"/" + spec.Name}, Labels: spec.Labels}
	for _, port := range spec.Ports {
		if file.Config.ExposedPorts == nil {
			file.Config.ExposedPorts = map[string]struct{}{}
		}
		file.Config.ExposedPorts[port] = struct{}{}
	}
	if image, err = mutate.ConfigFile(image, file); err != nil {
		return nil, fmt.Errorf("assemble the image: %w", err)
	}
	if len(spec.Labels) > 0 {
		image = mutate.Annotations(image, spec.Labels).(v1.Image)
	}
	return image, nil
}

// newLayer returns a layer with the binary and the further files. All belong to root, and
// have no times.
func newLayer(spec Spec) (v1.Layer, error) {
	binary, err := os.ReadFile(spec.Binary)
	if err != nil {
		return nil, fmt.Errorf("read the program: %w", err)
	}
	var files bytes.Buffer
	archive := tar.NewWriter(&files)
	err = writeFile(archive, spec.Name, 0o755, binary)
	written := map[string]bool{} // directories
	for _, name := range slices.Sorted(maps.Keys(spec.Files)) {
		err = errors.Join(err, writeParents(archive, name, written), writeFile(archive, name, 0o644, spec.Files[name]))
	}
	if err := errors.Join(err, archive.Close()); err != nil {
		return nil, fmt.Errorf("archive the program: %w", err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files.Bytes())), nil
	}, tarball.WithCompressedCaching, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, fmt.Errorf("create the image's layer: %w", err)
	}
	return layer, nil
}

func writeFile(archive *tar.Writer, name string, mode int64, data []byte) error {
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err := archive.Write(data)
	return err
}

// writeParents writes the directories above a file that are not written yet.
func writeParents(archive *tar.Writer, name string, written map[string]bool) error {
	dir := path.Dir(name)
	if dir == "." || written[dir] {
		return nil
	}
	if err := writeParents(archive, dir, written); err != nil {
		return err
	}
	written[dir] = true
	return archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755})
}
